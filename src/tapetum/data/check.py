"""Is a dataset what its authors published? Counts, names, unreadable pictures, people without pictures, duplicates."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tapetum.core.errors import DataError
from tapetum.core.types import Record
from tapetum.data.catalog import fingerprint, load_dataset_module, open_dataset
from tapetum.data.image_io import read_picture
from tapetum.data.layout import Counts, list_pictures
from tapetum.data.loader import Progress, map_in_threads

_REPORT_EVERY = 256


@dataclass(frozen=True)
class SplitCount:
    """One row of the table.

    Attributes:
        split: its name, or "total".
        pictures, ids, cameras: what is there; junk (pid -1) and distractors (pid 0 in Market-1501) count as pictures,
            and only pids from 0 on as ids.
        published: what the authors state, or None.
    """

    split: str
    pictures: int
    ids: int
    cameras: int
    published: Counts | None

    @property
    def differs(self) -> bool:
        """Whether a published number is not met."""
        if self.published is None:
            return False
        return self.pictures != self.published.pictures or self.published.ids not in (None, self.ids)


@dataclass(frozen=True)
class CheckReport:
    """What `check_dataset` found.

    Attributes:
        name, root: of the dataset.
        splits: counts beside the published ones.
        name_failures: files whose names give no identity and camera.
        unreadable: one message for each picture that cannot be decoded.
        empty_ids: folders of people without any picture.
        queries_without_match: query pictures whose person no other camera's gallery shows.
        duplicates: groups of files with the same content.
        mixed_duplicates: those of the groups in which the files name different people.
        query_copies: query pictures that are also in the gallery (as published in Night600; the junk rule covers them).
        fingerprint: of the readable pictures.
    """

    name: str
    root: Path
    splits: tuple[SplitCount, ...]
    name_failures: tuple[Path, ...]
    unreadable: tuple[str, ...]
    empty_ids: tuple[Path, ...]
    queries_without_match: tuple[Path, ...]
    duplicates: tuple[tuple[Path, ...], ...]
    mixed_duplicates: tuple[tuple[Path, ...], ...]
    query_copies: int
    fingerprint: str

    @property
    def problems(self) -> list[str]:
        """One line a kind of problem; empty where everything is as published."""
        lines = [
            f"{row.split}: {row.pictures} pictures of {row.ids} people; published {row.published.pictures}"
            + (f" of {row.published.ids}" if row.published.ids is not None else "")
            for row in self.splits
            if row.differs and row.published
        ]
        kinds: tuple[tuple[str, Sequence[object]], ...] = (
            ("names without identity and camera", self.name_failures),
            ("unreadable pictures", self.unreadable),
            ("people without pictures", self.empty_ids),
            ("queries without a match", self.queries_without_match),
            ("groups of identical files", self.duplicates),
            ("groups of identical files under different people", self.mixed_duplicates),
        )
        return lines + [f"{len(found)} {kind}, e.g. {_example(found[0])}" for kind, found in kinds if found]


def check_dataset(
    name: str,
    root: Path,
    *,
    options: Mapping[str, Any] | None = None,
    num_workers: int = 2,
    progress: Progress | None = None,
) -> CheckReport:
    """Read every file of a dataset once and compare with what was published.

    Args:
        name: e.g. "night600".
        root: its folder.
        options: the dataset's own reading options.
        num_workers: threads.
        progress: called with (done, total).
    Raises:
        DataError: the root is missing, holds another layout or no picture.
    """
    failures: list[Path] = []
    dataset = open_dataset(name, root, options=options, failures=failures)
    examined = map_in_threads(_examine, dataset.records, num_workers, ahead=64)
    digests: dict[str, list[Record]] = defaultdict(list)
    readable: list[Record] = []
    unreadable: list[str] = []
    for done, (record, (digest, problem)) in enumerate(zip(dataset.records, examined, strict=True), start=1):
        if digest:
            digests[digest].append(record)
        if problem:
            unreadable.append(problem)
        else:
            readable.append(record)
        if progress and (done % _REPORT_EVERY == 0 or done == len(dataset.records)):
            progress(done, len(dataset.records))
    duplicates, copies = _find_duplicates(digests)
    return CheckReport(
        name=name,
        root=Path(root),
        splits=_count_splits(dataset.records, published_counts(name, options)),
        name_failures=tuple(failures),
        unreadable=tuple(unreadable),
        empty_ids=_find_empty_folders(dataset.records),
        queries_without_match=_find_unmatched(dataset.records),
        duplicates=tuple(tuple(record.path for record in group) for group in duplicates),
        mixed_duplicates=tuple(
            tuple(record.path for record in group) for group in duplicates if len({record.pid for record in group}) > 1
        ),
        query_copies=copies,
        fingerprint=fingerprint(readable),
    )


def published_counts(name: str, options: Mapping[str, Any] | None = None) -> dict[str, Counts]:
    """What the authors state: split, or "total" -> counts.

    Args:
        name: of the dataset.
        options: reading options; a "subset" chooses that subset's counts.
    """
    module = load_dataset_module(name)
    subset = (options or {}).get("subset")
    published: dict[str, Counts] = module.PUBLISHED if subset is None else module.PUBLISHED_SUBSETS[subset]
    return dict(published)


def _examine(record: Record) -> tuple[str, str]:
    """(hash of the file, "" if it cannot be read; problem, "" if there is none)."""
    try:
        digest = hashlib.blake2b(record.path.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        return "", f"{record.path}: cannot be read ({error.strerror})"
    try:
        read_picture(record.path)
    except DataError as error:
        return digest, str(error)
    return digest, ""


def _count_splits(records: Sequence[Record], published: Mapping[str, Counts]) -> tuple[SplitCount, ...]:
    pictures = Counter(record.split for record in records)
    names = [*pictures, *(split for split in published if split not in pictures and split != "total")]
    if "total" in published or len(names) > 1:
        names.append("total")
    rows = []
    for name in names:
        chosen = [record for record in records if name in (record.split, "total")]
        ids = len({record.pid for record in chosen if record.pid >= 0})
        cameras = len({record.camid for record in chosen})
        rows.append(SplitCount(name, len(chosen), ids, cameras, published.get(name)))
    return tuple(rows)


def _find_duplicates(digests: Mapping[str, Sequence[Record]]) -> tuple[list[list[Record]], int]:
    """Groups of files with one content, and how many queries have a copy of themselves in the gallery."""
    groups, copies = [], 0
    for records in digests.values():
        queries = {(record.pid, record.camid) for record in records if record.split == "query"}
        gallery = {(record.pid, record.camid) for record in records if record.split == "gallery"}
        both = queries & gallery
        copies += len(both)
        group = [record for record in records if record.split != "query" or (record.pid, record.camid) not in both]
        if len(group) > 1:
            groups.append(group)
    return groups, copies


def _find_empty_folders(records: Sequence[Record]) -> tuple[Path, ...]:
    """Sisters of the people's folders that hold no picture."""
    folders = {record.path.parent for record in records}
    parents = {folder.parent for folder in folders if folder.name.lstrip("-").isdigit()}
    candidates = [child for parent in sorted(parents) for child in sorted(parent.iterdir()) if child.is_dir()]
    return tuple(child for child in candidates if child not in folders and not list_pictures(child))


def _find_unmatched(records: Sequence[Record]) -> tuple[Path, ...]:
    """Queries whose person is in the gallery under no other camera; nothing where there is no gallery."""
    cameras: dict[int, set[int]] = defaultdict(set)
    for record in records:
        if record.split == "gallery":
            cameras[record.pid].add(record.camid)
    if not cameras:
        return ()
    return tuple(
        record.path
        for record in records
        if record.split == "query" and not cameras.get(record.pid, set()) - {record.camid}
    )


def _example(found: object) -> str:
    if isinstance(found, tuple):
        return " = ".join(str(path) for path in found[:3])
    return str(found)
