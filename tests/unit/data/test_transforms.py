import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import golden_files
from tapetum.core.discovery import list_names, load
from tapetum.core.errors import RecipeError
from tapetum.data.transforms import (
    PACKAGE,
    BatchPosition,
    augment_batch,
    check_views,
    read_operations,
    to_float,
    to_tensor,
    write_operations,
)
from tapetum.runs.recipe_batches import list_operations

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(1, 256, (24, 32, 16, 3), dtype=np.uint8)
EVERYTHING = [
    {"name": "colour_jitter", "strength": [0.2, 0.2, 0.2, 0.1]},
    {"name": "grayscale", "probability": 0.5},
    {"name": "pad_crop", "pad": 4},
    {"name": "flip"},
    {"name": "erasing", "probability": 0.7, "fill": "noise"},
]
ANY = [{"name": name, "probability": 0.6} for name in ("gamma", "darken", "resize_crop", "channel_gray")]
ANY += [{"name": "flip_vertical", "probability": 0.6}]
ANY += [{"name": "channel_exchange", "probability": 0.6}, {"name": "erasing", "fill": "noise"}]
GOLDEN = golden_files.load("batches_before")
BEFORE: dict[str, dict[str, Any]] = {  # the mappings whose pictures the file holds, drawn before operations were files
    "pad": {"pad": 2, "flip": 0.0},
    "flip": {"flip": 0.5},
    "pad_and_flip": {"pad": 2, "flip": 0.5},
    "grayscale": {"grayscale": 0.5, "flip": 0.0},
    "jitter": {"colour_jitter": [0.2, 0.3, 0.4, 0.1], "flip": 0.0},
    "black": {"flip": 0.0, "erasing": {"probability": 0.5, "fill": "black"}},
    "mean": {"flip": 0.0, "erasing": {"probability": 1.0, "fill": "mean"}},
    "noise": {"flip": 0.0, "erasing": {"probability": 0.7, "fill": "noise"}},
    "colour_log": {
        "flip": 0.0,
        "erasing": {
            "probability": 0.7,
            "fill": [0.1, 0.6, 0.9],
            "aspect_scale": "log",
            "area": [0.2, 0.8],
            "aspect": [0.3, 1 / 0.3],
        },
    },
    "everything": {
        "pad": 2,
        "grayscale": 0.4,
        "flip": 0.5,
        "colour_jitter": [0.1, 0.1, 0.1, 0.0],
        "erasing": {"probability": 0.7, "fill": "noise"},
    },
    "nothing_said": {},
}


def run(
    entries: Sequence[dict],
    positions: np.ndarray | None = None,
    *,
    pictures: np.ndarray = PICTURES,
    modalities: np.ndarray | None = None,
    views: np.ndarray | None = None,
    **where: int,
) -> torch.Tensor:
    count = len(pictures)
    zeros = np.zeros(count, np.int64)
    chosen = np.arange(count) if positions is None else positions
    numbers = {"seed": 1, "epoch": 2, "number": 3} | where
    place = BatchPosition(
        **numbers, modalities=zeros if modalities is None else modalities, views=zeros if views is None else views
    )
    return augment_batch(pictures[chosen].copy(), read_operations(entries), place, chosen)


@pytest.mark.parametrize("case", BEFORE)
@pytest.mark.parametrize("world", [1, 3])
def test_recipes_of_before_make_the_pictures_of_before_in_one_process_and_in_three(case: str, world: int) -> None:
    pictures = np.random.default_rng(7).integers(0, 256, (8, 12, 8, 3), dtype=np.uint8)
    expected = GOLDEN[f"augment/{case}"]
    for rank in range(world):
        positions = np.arange(rank, 8, world)
        images = run(list_operations(BEFORE[case]), positions, pictures=pictures, seed=3, epoch=2, number=5)
        found = np.rint(images.permute(0, 2, 3, 1).numpy() * 255).astype(int)
        # OpenCV's turn of the hue may round differently with another processor's instructions
        assert np.abs(found - expected[positions]).max() <= (1 if case == "jitter" else 0)


def test_nothing_asked_for_changes_nothing() -> None:
    assert torch.equal(run([]), to_tensor(to_float(PICTURES)))
    assert torch.equal(run([{"name": "pad_crop", "pad": 0}]), to_tensor(to_float(PICTURES)))


def test_float_pictures_are_rgb_in_unit_range_in_channels_last_memory() -> None:
    images = to_tensor(to_float(PICTURES))
    assert images.shape == (24, 3, 32, 16)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(images[5, 1, 2, 3], torch.tensor(PICTURES[5, 2, 3, 1] / 255.0, dtype=torch.float32))


def test_every_operation_there_is_is_tried_here() -> None:
    assert {entry["name"] for entry in EVERYTHING + ANY} == set(list_names(PACKAGE))


@pytest.mark.parametrize("entries", [EVERYTHING, ANY])
def test_same_place_gives_the_same_pictures_and_another_place_others(entries: list[dict]) -> None:
    assert torch.equal(run(entries), run(entries))
    for other in ({"seed": 2}, {"epoch": 1}, {"number": 0}):
        assert not torch.equal(run(entries), run(entries, **other))


@pytest.mark.parametrize("entry", EVERYTHING + ANY, ids=lambda entry: entry["name"])
@pytest.mark.parametrize("world", [2, 24])
def test_processes_together_make_the_pictures_that_one_process_makes(entry: dict, world: int) -> None:
    whole = run([entry])
    assert not torch.equal(whole, run([]))
    for rank in range(world):
        positions = np.arange(rank, 24, world)
        assert torch.equal(run([entry], positions), whole[positions])


@pytest.mark.parametrize("entry", EVERYTHING + ANY, ids=lambda entry: entry["name"])
def test_an_operation_of_one_modality_and_view_leaves_the_other_pictures_alone(entry: dict) -> None:
    modalities, views = np.arange(24) % 2, np.arange(24) // 2 % 2
    places = {"modalities": modalities, "views": views}
    always = {**entry, "probability": 1.0}
    changed = (run([always | {"modality": "infrared", "view": 1}], **places) != run([])).flatten(1).any(1).numpy()
    assert not changed[~((modalities == 1) & (views == 1))].any()
    assert changed.any()
    of_a_modality = (run([always | {"modality": "visible"}], **places) != run([])).flatten(1).any(1).numpy()
    assert set(np.flatnonzero(of_a_modality) % 2) == {0}


@pytest.mark.parametrize("name", list_names(PACKAGE))
def test_an_operation_happens_with_its_probability(name: str) -> None:
    changed = 0
    if name in ("darken", "resize_crop"):
        probability, rounds = 0.3, 10
    else:
        probability, rounds = 0.3, 40
    for number in range(rounds):
        images = run([{"name": name, "probability": probability}], number=number)
        changed += int((images != run([])).flatten(1).any(1).sum())
    whole = int(
        sum((run([{"name": name, "probability": 1.0}], number=n) != run([])).flatten(1).any(1).sum() for n in range(4))
    )
    expected = rounds * 24 * probability * whole / 96  # a gamma near 1, or a cut in the middle, changes nothing
    assert abs(changed - expected) < 5 * np.sqrt(expected)


def test_a_second_operation_of_the_same_name_draws_anew() -> None:
    twice = run([{"name": "flip"}, {"name": "flip"}])
    mirrored = (twice != run([])).flatten(1).any(1)
    assert 0 < mirrored.sum() < 24  # the same draws would mirror back each picture that they mirrored


def test_the_choice_of_pictures_does_not_move_with_what_is_done_to_them() -> None:
    few, many = (run([{"name": "pad_crop", "pad": 3, "probability": p}]) for p in (0.3, 0.8))
    whole = run([{"name": "pad_crop", "pad": 3}])
    same = (few == whole).flatten(1).all(1)
    assert same.any()
    assert torch.equal(many[same], whole[same])


def test_what_is_written_of_operations_reads_back_as_the_same() -> None:
    entries = [
        {"name": "pad_crop", "pad": 4, "view": 0, "modality": "visible"},
        {"name": "flip"},
        {"name": "gamma", "probability": 0.25},
        {"name": "erasing", "probability": 0.0},
        {"name": "erasing", "fill": [0.1, 0.2, 0.3]},
    ]
    entries.insert(0, entries.pop(2))
    operations = read_operations(entries)
    assert [operation.name for operation in operations] == ["gamma", "pad_crop", "flip", "erasing"]
    written = write_operations(operations)
    assert read_operations(written) == operations
    assert written[1] == {"name": "pad_crop", "modality": "visible", "view": 0, "pad": 4, "fill": 0}
    assert written[2] == {"name": "flip", "probability": 0.5}
    assert written[3]["aspect"] == [0.3, 1 / 0.3]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "erazing"}, "augmentation 'erazing' is unknown; did you mean erasing?"),
        ({"name": "nowhere.flip"}, "nowhere.flip: package nowhere is not installed"),
        ({"name": "pad_crop", "pads": 3}, "augment.0 (pad_crop).pads is unknown; did you mean pad?"),
        ({"name": "flip", "probabilty": 0.3}, "augment.0 (flip).probabilty is unknown; did you mean probability?"),
        ({"name": "pad_crop", "pad": -1}, "augment.0 (pad_crop).pad: -1 is out of range; use a number from 0"),
        ({"name": "flip", "modality": "visibel"}, "modality 'visibel' is unknown; did you mean visible?"),
        ({"name": "flip", "view": -1}, "augment.0 (flip).view: -1 is out of range"),
        ({"name": "flip", "probability": 2}, "augment.0 (flip).probability: 2.0 is out of range; use a number from 0"),
        ({"probability": 0.5}, "augment.0 is {'probability': 0.5}; write an operation as {name: flip"),
        ("flip", "augment.0 is 'flip'; write an operation as {name: flip"),
        ({"name": "erasing", "area": [0.4, 0.02]}, "erasing: area is [0.4, 0.02]; write the smaller number first"),
        ({"name": "erasing", "fill": [0.4, 0.4, 2.4]}, "is no colour in 0..1; name a normalisation"),
        ({"name": "gamma", "gamma": [2, 1]}, "gamma: gamma is [2, 1]; write the smaller number first"),
        ({"name": "darken", "lightness": [40, 6]}, "darken: lightness is [40, 6]; write the smaller number first"),
    ],
)
def test_what_cannot_be_done_is_refused_with_place_value_and_remedy(entry: Any, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_operations([entry])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_operation_on_bytes_behind_one_on_floats_is_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"augment.1: gamma works on bytes, but stands behind erasing.*move it before"
    ):
        read_operations([{"name": "erasing"}, {"name": "gamma"}])
    read_operations([{"name": "gamma"}, {"name": "erasing"}, {"name": "flip"}, {"name": "pad_crop"}])


@pytest.mark.parametrize(
    ("entry", "views", "good"),
    [
        ({"name": "flip", "view": 1}, (2, 1), True),
        ({"name": "flip", "view": 1}, (1, 1), False),
        ({"name": "flip", "view": 1, "modality": "infrared"}, (2, 1), False),
        ({"name": "flip", "view": 1, "modality": "visible"}, (2, 1), True),
        ({"name": "flip", "view": 2}, (2, 1), False),
    ],
)
def test_a_view_that_the_sampler_does_not_give_is_refused(entry: dict, views: tuple[int, int], good: bool) -> None:
    operations = read_operations([entry])
    if good:
        check_views(operations, views)
        return
    with pytest.raises(RecipeError, match=r"augment.0 \(flip\): view \d of \w+ pictures is never drawn, sampler.views"):
        check_views(operations, views)


THEIRS = """
from dataclasses import dataclass

from tapetum.core.options import option

WORKS_ON = "floats"


@dataclass(frozen=True)
class Options:
    by: float = option(0.5, "factor", above=0)


def change(pictures, options, draws):
    return pictures * options.by
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (THEIRS, ""),
        (THEIRS.replace("def change", "def alter"), "'theirs.{}': its file has no change; add a function"),
        (THEIRS.replace("class Options", "class Choices"), "'theirs.{}': its file has no Options; add a frozen"),
        (THEIRS.replace('"floats"', '"pixels"'), "'theirs.{}': its WORKS_ON is none of bytes, floats, either"),
    ],
)
def test_an_augmentation_of_one_s_own_is_found_by_its_dotted_name_and_checked(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    name = f"case{abs(hash(text))}"
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text("")
    (tmp_path / "theirs" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    if message:
        with pytest.raises(RecipeError) as caught:
            read_operations([{"name": f"theirs.{name}"}])
        assert message.format(name) in str(caught.value)
    else:
        images = run([{"name": f"theirs.{name}", "by": 0.25, "view": 0}])
        assert torch.equal(images, run([]) * 0.25)


@pytest.mark.parametrize("name", list_names(PACKAGE))
def test_the_options_of_an_operation_explain_themselves(name: str) -> None:
    from tapetum.core.options import describe_options

    module = load(PACKAGE, name)
    assert all(text for *_, text in describe_options(module.Options))
    module.Options()  # every option has a default
