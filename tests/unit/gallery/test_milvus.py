"""What readers and the writer of a Milvus gallery do at once, with a client as slow as the test wants."""

import threading
from typing import Any

import pytest

from gallery_rows import MODEL
from tapetum.gallery.milvus import MilvusAddress, MilvusStore

pytest.importorskip("pymilvus")


class SlowClient:
    """Counts rows when it is let, and notes when its collection had no index meanwhile."""

    def __init__(self, parties: int) -> None:
        self.asked = threading.Barrier(parties)
        self.may_answer = threading.Event()
        self.loaded = True
        self.answered: list[bool] = []  # whether the collection was loaded

    def query(self, *_: Any, **__: Any) -> list[dict[str, int]]:
        if threading.current_thread() is not threading.main_thread():
            self.asked.wait(20)
            assert self.may_answer.wait(20)
            self.answered.append(self.loaded)
        return [{"count(*)": 7}]

    def describe_index(self, *_: Any) -> dict[str, str]:
        return {"index_type": "HNSW"}

    def release_collection(self, _: str) -> None:
        self.loaded = False

    def load_collection(self, _: str) -> None:
        self.loaded = True

    def prepare_index_params(self) -> "SlowClient":
        return self

    def add_index(self, *_: Any, **__: Any) -> None: ...

    flush = compact = drop_index = create_index = upsert = lambda self, *_: None


def open_slow(client: SlowClient) -> MilvusStore:
    return MilvusStore(MilvusAddress("milvus://far:1/night", "", "", "night", "far", 1), client, MODEL, None, 10)


def test_a_slow_answer_keeps_no_other_reader_waiting() -> None:
    client, counts = SlowClient(parties=3), list[int]()
    store = open_slow(client)
    threads = [threading.Thread(target=lambda: counts.append(store.count())) for _ in range(2)]
    for thread in threads:
        thread.start()
    client.asked.wait(5)  # both questions are with the server before either is answered
    client.may_answer.set()
    for thread in threads:
        thread.join(20)
    assert counts == [7, 7]


def test_an_index_is_changed_only_between_the_questions_of_readers() -> None:
    client, counts = SlowClient(parties=2), list[int]()
    store = open_slow(client)
    reader = threading.Thread(target=lambda: counts.append(store.count()))
    reader.start()
    client.asked.wait(20)
    timer = threading.Timer(0.2, client.may_answer.set)
    timer.start()
    store.compact()  # seven rows need no graph: the index is replaced
    reader.join(20)
    assert (counts, client.answered, client.loaded) == ([7], [True], True)
