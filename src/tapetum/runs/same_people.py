"""Who of a dataset weights were trained on: nobody may be tested, or held out, whom they have seen.

Pids alone do not tell. Another dataset's are other people's, some layouts number the tested people anew, and two
generated scenes of one `identity_seed` show the same people, whatever else differs.
"""

from collections.abc import Collection
from pathlib import Path

from pydantic import ValidationError

from tapetum.core.errors import CheckpointError, DataError, RecipeError, first_line
from tapetum.data.catalog import Dataset, load_dataset_module, load_reader, numbers_anew, read_division
from tapetum.data.datasets.synth import NAME as SYNTH
from tapetum.data.datasets.synth import read_options
from tapetum.runs.header import Header
from tapetum.runs.recipe import DataSection, scene_options
from tapetum.synth.scene import SceneOptions

SHOWN = 5  # pids in a message


def shows_same_people(dataset: Dataset, own: DataSection) -> bool:
    """Whether equal pids are the same people in a dataset and in the one that a recipe names.

    In generated scenes a person is made of `identity_seed` and pid; look-alikes and infrared change the clothes alone.
    """
    here, there = read_options(dataset.root), _scene_of(own)
    if here is not None and there is None and not _is_there(own):  # what the recipe named is gone: it may be these
        return dataset.name == own.name
    if here is not None or there is not None:
        return here is not None and there is not None and here.identity_seed == there.identity_seed
    if dataset.name != own.name:
        return False
    anybodys = getattr(load_dataset_module(own.name), "ANYBODYS", False)
    return not anybodys or (own.root is not None and Path(own.root).resolve() == dataset.root.resolve())


def find_trained(dataset: Dataset, tested: Collection[int], trained: Collection[int], own: DataSection) -> set[int]:
    """Which of a dataset's tested people weights were trained on.

    Where the layout numbers people anew, or who was trained on is not kept, only a generated scene tells, by the
    numbers that its settings give.

    Args:
        tested: their pids.
        trained: pids of those trained on; empty where unknown.
        own: the data section of the recipe that the weights were trained by.
    """
    if not shows_same_people(dataset, own):
        return set()
    here, there = read_options(dataset.root), _scene_of(own)
    if not numbers_anew(dataset):
        return {*tested} & {*(trained or (() if there is None else there.train_pids))}
    return {*here.test_pids} & {*there.train_pids} if here is not None and there is not None else set()


def find_seen(dataset: Dataset, tested: Collection[int], header: Header) -> set[int]:
    """As `find_trained`, by every training that is behind a checkpoint's weights."""
    return {pid for own, pids in _trainings(header) for pid in find_trained(dataset, tested, pids, own)}


def check_untrained(dataset: Dataset, tested: Collection[int], header: Header, place: Path, use: str = "tests") -> None:
    """Refuse to test people whom weights were trained on.

    Args:
        tested: their pids.
        header: of the weights.
        place: where they are, for the message.
        use: what is done with these people, for the message.
    Raises:
        DataError: some of them were.
    """
    met = sorted(find_seen(dataset, tested, header))
    if met:
        pids = ", ".join([*map(str, met[:SHOWN]), *["..."] * (len(met) > SHOWN)])
        remedy = "read the data as it was trained with, or test on others with --data NAME=ROOT"
        if read_options(dataset.root) is not None:
            remedy = "keep the scene's first_pid and num_train_people, or take other people by another identity_seed"
        raise DataError(
            f"{place}: was trained on {len(met)} of the people whom {dataset.name} in {dataset.root} {use} "
            f"(pid {pids}); {remedy}"
        )


def check_division(dataset: Dataset, header: Header, place: Path) -> None:
    """Refuse a division of the people that may test, or hold out, somebody whom weights were trained on.

    Args:
        header: of the weights.
        place: where they are, for the message.
    Raises:
        RecipeError: the same people are divided in another way.
    """
    for own, _ in _trainings(header):
        if not dataset.division or not shows_same_people(dataset, own):
            continue
        division = read_division(load_reader(dataset.name, dataset.root), own.options)
        for name, value in dataset.division.items():
            if division[name] != value:
                raise RecipeError(
                    f"{place}: was trained with data.options.{name} = {division[name]!r}; {dataset.name} with {name} = "
                    f"{value!r} divides the people anew, so some of those trained on would be tested: keep "
                    f"{division[name]!r}, or take weights that were trained with {value!r}"
                )


def _trainings(header: Header) -> list[tuple[DataSection, Collection[int]]]:
    """Of each the data section of its recipe and its identities, see `Header.trainings`."""
    try:
        return [(DataSection.model_validate(each["data"]), each["pids"]) for each in header.trainings]
    except (ValidationError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"{header.method} ({header.chosen_by or 'weights'}): what it says of the pictures it was trained on cannot "
            f"be read ({first_line(error)}); update tapetum, or use another checkpoint"
        ) from None


def _is_there(section: DataSection) -> bool:
    return section.root is not None and Path(section.root).exists()


def _scene_of(section: DataSection) -> SceneOptions | None:
    """Settings of the generated scene that a recipe names; None for pictures that cameras took, or that are gone."""
    if section.root is not None and (there := read_options(Path(section.root))) is not None:
        return there
    made_by_recipe = section.name == SYNTH and (section.scene or section.root is None)
    return scene_options(section.scene)[0] if made_by_recipe else None
