"""Is a dataset what its authors published? Counts, names, unreadable pictures, people without pictures, duplicates.

A visible-infrared dataset is also counted by modality, and people who train in one modality only are listed.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tapetum.core.errors import DataError
from tapetum.core.types import Modality, Record
from tapetum.data.catalog import Dataset, fingerprint, load_dataset_module, load_reader, numbers_anew, open_dataset
from tapetum.data.image_io import brightest_of_16_bits, read_picture
from tapetum.data.layout import Counts, is_number, list_pictures
from tapetum.data.threads import Progress, map_in_threads, report

_COPY = re.compile(r"(.+?)(?: ?\(\d+\)| - Copy.*| copy.*)", re.IGNORECASE)
_DARK = 4096  # largest value of a 16-bit picture that comes out as black: at most 16 of 255


@dataclass(frozen=True)
class SplitCount:
    """One row of the table.

    Attributes:
        pictures, ids, cameras: what is there; junk (pid -1) and distractors (pid 0 in Market-1501) count as pictures,
            and only pids from 0 on as ids.
    """

    split: str  # its name, with the modality where there are two ("train infrared"), or "total"
    pictures: int
    ids: int
    cameras: int
    published: Counts | None
    fewest: int = 0  # pictures of the person who has the fewest

    @property
    def differs(self) -> bool:
        """Whether a published number is not met, of which one can be certain."""
        if self.published is None or not self.published.certain:
            return False
        return self.pictures != self.published.pictures or self.published.ids not in (None, self.ids)


@dataclass(frozen=True)
class CheckReport:
    """What `check_dataset` found.

    Attributes:
        copied_people: people whose names look like a file manager's copy of another's, "0003 (2)" beside "0003".
        absent_people: people whom the dataset's own lists name and of whom there is no picture, "split person 12".
        lone: pictures taken in several spectra at once of which some have no file, "RGB/000001_cam1_0_01.jpg (no NI)".
        query_copies: query pictures that are also in the gallery (as published in Night600; the junk rule covers them).
    """

    name: str
    root: Path
    splits: tuple[SplitCount, ...]
    name_failures: tuple[Path, ...]
    unreadable: tuple[str, ...]
    left_out: tuple[Path, ...]
    people: Mapping[int, str]  # names of the people who have no number: pid -> name
    copied_people: tuple[str, ...]
    empty_ids: tuple[Path, ...]
    absent_people: tuple[str, ...]
    one_sided: tuple[str, ...]  # training people in one modality only, "person 12 (visible)"
    lone: tuple[str, ...]
    dark: tuple[str, ...]  # one message for each picture of 16 bits that is black when scaled by the full range
    queries_without_match: tuple[Path, ...]  # query pictures whose person no other camera's gallery shows
    duplicates: tuple[tuple[Path, ...], ...]
    mixed_duplicates: tuple[tuple[Path, ...], ...]  # those of the groups in which the files name different people
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
            ("names without identity and camera of this data set", self.name_failures),
            ("unreadable pictures", self.unreadable),
            ("pictures beside the layout, left out", self.left_out),
            ("people named like a copy of another", self.copied_people),
            ("people without pictures", self.empty_ids),
            ("people named by the dataset's lists without pictures", self.absent_people),
            ("training people in one modality only (sampler.unpaired=drop trains without them)", self.one_sided),
            ("pictures without their counterpart in another spectrum", self.lone),
            (f"pictures of 16 bits whose values end below {_DARK} and so come out black", self.dark),
            ("queries without a match", self.queries_without_match),
            ("groups of identical files", self.duplicates),
            ("groups of identical files under different people", self.mixed_duplicates),
        )
        return lines + [f"{len(cases)} {kind}, e.g. {_example(cases[0])}" for kind, cases in kinds if cases]


def check_dataset(
    name: str,
    root: Path,
    *,
    options: Mapping[str, Any] | None = None,
    num_workers: int = 2,
    progress: Progress | None = None,
) -> CheckReport:
    """Read every file of a dataset once and compare with what was published.

    Raises:
        DataError: the root is missing, holds another layout or no picture.
    """
    failures: list[Path] = []
    dataset = open_dataset(name, root, options=options, failures=failures)
    pictures = map_in_threads(_examine, dataset.records, num_workers, ahead=64)
    digests: dict[str, list[Record]] = defaultdict(list)
    readable: list[Record] = []
    unreadable: list[str] = []
    dark: list[str] = []
    findings = report(pictures, len(dataset.records), progress)
    for record, (digest, problem, too_dark) in zip(dataset.records, findings, strict=True):
        if digest:
            digests[digest].append(record)
        if problem:
            unreadable.append(problem)
        else:
            readable.append(record)
        if too_dark:
            dark.append(too_dark)
    duplicates, copies = _find_duplicates(digests)
    return CheckReport(
        name=name,
        root=Path(root),
        splits=_count_splits(dataset.records, published_counts(name, options), not numbers_anew(dataset)),
        name_failures=tuple(failures),
        unreadable=tuple(unreadable),
        left_out=dataset.left_out,
        people=dataset.people,
        copied_people=_find_copied_people(dataset.records),
        empty_ids=_find_empty_folders(dataset.records),
        absent_people=_find_absent_people(dataset, root),
        one_sided=_find_one_sided(dataset.records),
        lone=_find_lone(name, root),
        dark=tuple(dark),
        queries_without_match=_find_unmatched(dataset),
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
        options: reading options, of which one may choose the counts.
    """
    module = load_dataset_module(name)
    subset = (options or {}).get(getattr(module, "PUBLISHED_BY", ""))
    published: dict[str, Counts] = module.PUBLISHED if subset is None else module.PUBLISHED_SUBSETS[str(subset)]
    return dict(published)


def _examine(record: Record) -> tuple[str, str, str]:
    """(hash of the file, "" if it cannot be read; problem, "" if there is none; why it comes out black, or "")."""
    try:
        digest = hashlib.blake2b(record.path.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        return "", f"{record.path}: cannot be read ({error.strerror})", ""
    try:
        read_picture(record.path)
        brightest = brightest_of_16_bits(record.path)
    except DataError as error:
        return digest, str(error), ""
    if brightest is None or brightest >= _DARK:
        return digest, "", ""
    return digest, "", f"{record.path} (largest value {brightest}; convert to 8 bits with 255 for the largest one)"


def _count_splits(
    records: Sequence[Record], published: Mapping[str, Counts], one_person_a_number: bool
) -> tuple[SplitCount, ...]:
    """Rows of splits, of splits by modality where there are two, and of everything."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.split].append(record)
    if any(record.modality is Modality.INFRARED for record in records):
        for record in sorted(records, key=lambda record: record.modality):
            groups[f"{record.split} {record.modality.name.lower()}"].append(record)
    for split in published:
        groups.setdefault(split, [])
    groups.pop("total", None)
    if "total" in published or len(groups) > 1:
        groups["total"] = list(records)
    rows = []
    for name, group in groups.items():
        of_person = Counter((one_person_a_number or record.split, record.pid) for record in group if record.pid >= 0)
        cameras = len({(record.camid, record.modality) for record in group})
        fewest = min(of_person.values(), default=0)
        rows.append(SplitCount(name, len(group), len(of_person), cameras, published.get(name), fewest))
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


def _find_copied_people(records: Sequence[Record]) -> tuple[str, ...]:
    """People whose names are another's and the mark of a copy."""
    names = {record.person or str(record.pid) for record in records}
    pairs = []
    for name in sorted(names):
        match = _COPY.fullmatch(name)
        original = match[1] if match else ""
        if (str(int(original)) if is_number(original) else original) in names:
            pairs.append(f"{name!r} beside {original!r}")
    return tuple(pairs)


def _find_empty_folders(records: Sequence[Record]) -> tuple[Path, ...]:
    """Sisters of the people's folders that hold no picture; not every camera (``cam1/0012``) meets everybody."""
    folders = {record.path.parent for record in records}
    people_folders = {
        record.path.parent for record in records if record.person and record.path.parent.name == record.person
    }
    parents = {folder.parent for folder in folders if folder.name.lstrip("-").isdigit() or folder in people_folders}
    parents = {parent for parent in parents if not re.fullmatch(r"cam\d+", parent.name)}
    candidates = [child for parent in sorted(parents) for child in sorted(parent.iterdir()) if child.is_dir()]
    return tuple(child for child in candidates if child not in folders and not list_pictures(child))


def _find_absent_people(dataset: Dataset, root: Path) -> tuple[str, ...]:
    """People of the dataset's own lists, where it has such, of whom nothing was read."""
    module = load_reader(dataset.name, Path(root))
    if not hasattr(module, "read_people"):
        return ()
    there = {(record.split, record.pid) for record in dataset.records}
    people = [(split, pid) for split, pids in module.read_people(Path(root)).items() for pid in pids]
    return tuple(f"{split} person {pid}" for split, pid in people if (split, pid) not in there)


def _find_one_sided(records: Sequence[Record]) -> tuple[str, ...]:
    """Training people with pictures of one modality, in a dataset that has both."""
    seen: dict[int, set[Modality]] = defaultdict(set)
    for record in records:
        if record.split == "train" and record.pid >= 0:
            seen[record.pid].add(record.modality)
    if len(set().union(*seen.values())) < 2:
        return ()
    alone = sorted((pid, modalities) for pid, modalities in seen.items() if len(modalities) == 1)
    return tuple(f"person {pid} ({next(iter(modalities)).name.lower()})" for pid, modalities in alone)


def _find_lone(name: str, root: Path) -> tuple[str, ...]:
    """Pictures without their counterpart, in a dataset that has such; of all its spectra, whichever are read.

    A generated scene has none, whatever layout it is in: its cameras of a place take pictures at moments of their own.
    """
    module = load_dataset_module(name)
    if not hasattr(module, "read_lone"):
        return ()
    return tuple(f"{path} (no {', '.join(absent)})" for path, absent in module.read_lone(Path(root)))


def _find_unmatched(dataset: Dataset) -> tuple[Path, ...]:
    """Queries whose person is in the gallery under no camera that counts; nothing where there is no gallery.

    Query, gallery and junk are those of the dataset's usual protocol.
    """
    rules = dataset.protocol()
    cameras: dict[int, set[int]] = defaultdict(set)
    for record in dataset.side("gallery"):
        cameras[record.pid].add(record.camid)
    if not cameras:
        return ()
    return tuple(
        record.path
        for record in dataset.side("query")
        if all(rules.person_junk(record.camid, camid) for camid in cameras.get(record.pid, ()))
    )


def _example(case: object) -> str:
    if isinstance(case, tuple):
        return " = ".join(str(path) for path in case[:3])
    return str(case)
