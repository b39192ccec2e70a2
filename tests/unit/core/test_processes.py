"""What two processes tell each other, which are started once for all of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing, nn

from tapetum.core.processes import add_up, average_gradients, count_processes, gather, share_buffers


def take_part(rank: int, folder: Path) -> None:
    """Tell the other process everything, and write down what was heard."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    weights = {
        "both": nn.Parameter(torch.zeros(3)),
        "first": nn.Parameter(torch.zeros(2, 2)),
        "nobody": nn.Parameter(torch.zeros(2)),
        "double": nn.Parameter(torch.zeros(2, dtype=torch.float64)),
        "kernel": nn.Parameter(torch.zeros(2, 3, 2, 2).to(memory_format=torch.channels_last)),
    }
    weights["both"].grad = torch.tensor([1.0, 2.0, 3.0]) * (rank + 1)
    if rank == 0:
        weights["first"].grad = torch.full((2, 2), 4.0)
    weights["double"].grad = torch.full((2,), 5.0 + rank, dtype=torch.float64)
    weights["kernel"].grad = torch.arange(24.0).reshape(2, 3, 2, 2) * (1 - rank)
    average_gradients(weights.values())
    norm = nn.BatchNorm1d(2)
    norm.running_mean += rank + 1
    share_buffers(norm)
    heard = {
        "count": count_processes(),
        "sum": add_up(torch.tensor([rank, 10])),
        "gathered": gather({"rank": rank}),
        "gradients": {name: weight.grad for name, weight in weights.items()},
        "mean": norm.running_mean,
    }
    torch.save(heard, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """By each of the two."""
    folder = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(take_part, (folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def test_sums_and_plain_values_of_all_processes_reach_each_of_them(heard: list[dict[str, Any]]) -> None:
    for each in heard:
        assert each["count"] == 2
        assert each["sum"].tolist() == [1, 20]
        assert each["gathered"] == [{"rank": 0}, {"rank": 1}]


def test_a_gradient_becomes_the_mean_of_all_and_where_no_process_has_one_there_is_none(
    heard: list[dict[str, Any]],
) -> None:
    for each in heard:
        found = each["gradients"]
        assert found["both"].tolist() == [1.5, 3.0, 4.5]
        assert found["first"].tolist() == [[2.0, 2.0], [2.0, 2.0]]
        assert found["nobody"] is None
        assert found["double"].tolist() == [5.5, 5.5]
        assert found["double"].dtype == torch.float64
        assert torch.equal(found["kernel"], torch.arange(24.0).reshape(2, 3, 2, 2) / 2)
        assert found["kernel"].is_contiguous(memory_format=torch.channels_last)


def test_all_processes_go_on_with_the_buffers_of_the_first(heard: list[dict[str, Any]]) -> None:
    for each in heard:
        assert each["mean"].tolist() == [1.0, 1.0]


def test_a_process_alone_hears_itself() -> None:
    weight = nn.Parameter(torch.zeros(2))
    average_gradients([weight])
    assert weight.grad is None
    assert gather("alone") == ["alone"]
    assert add_up(torch.tensor([3])).tolist() == [3]
