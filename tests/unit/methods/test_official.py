"""Of every layout of released code: an option that it has no place for is refused, where no tensor tells of it."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor, nn

from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.methods import (
    build_method,
    build_options,
    method_options,
    official_formats,
    small_options,
    write_options,
)
from tapetum.methods.idf import OWN_EXTRACTOR_OPTIONS

NUM_IDS, PICTURES, SIZE, CAMIDS = 3, 4, (64, 32), (0, 1)
TOLERANCE = 1e-5
FORMATS = official_formats()
# Networks for tests in which options are tried; the small one of some methods allows one value only.
VARIANTS = ({}, {"backbone": "test_efficientnet"}, {"backbone": "test_efficientnet", "stem_relu": True})
WORDS = {"test_branches": ("e", "vf")}  # values of options that are texts; others name a network or a file


def list_alternatives(name: str, kind: Any, default: Any) -> Iterator[Any]:
    """Values that an option may have beside its default, and some that are out of its bounds."""
    if get_origin(kind) is Literal:
        yield from get_args(kind)
    elif kind is bool:
        yield not default
    elif kind is str:
        yield from WORDS.get(name, ())
    elif isinstance(default, tuple):
        for place, value in enumerate(default):
            yield (*default[:place], value + 1, *default[place + 1 :])
    elif isinstance(default, int | float):
        yield from (type(default)(value) for value in (2 * default, default + 1, default / 2))
    elif default is None:
        yield from (1, 0.5, 16)


def build(name: str, options: Mapping[str, Any]) -> nn.Module | None:
    """A network for tests; none where it cannot have these options."""
    torch.manual_seed(3)
    with contextlib.suppress(RecipeError):
        return build_method(name, options, NUM_IDS, camids=CAMIDS, size=SIZE)
    return None


def fill(method: nn.Module) -> dict[str, Tensor]:
    """Numbers with which no part of a network is silent."""
    generator = torch.Generator().manual_seed(4)
    return {
        name: value + 0.1 * torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in method.state_dict().items()
    }


def describe(method: nn.Module, state: Mapping[str, Tensor]) -> Tensor:
    """Vectors of a few pictures, without and with their mirrors."""
    method.load_state_dict(state)
    method.eval()
    images = torch.rand(PICTURES, 3, *SIZE, generator=torch.Generator().manual_seed(5))
    modalities, camids = torch.arange(PICTURES) % 2, torch.arange(PICTURES) % len(CAMIDS)
    with torch.no_grad():
        return torch.stack([method.embed(images, modalities, camids, mirror=mirror) for mirror in (False, True)])


@lru_cache(maxsize=len(VARIANTS))
def describe_released(name: str, options: str) -> tuple[dict[str, Tensor], Tensor] | None:
    """A network's numbers and vectors; `options`, all of them, as JSON."""
    method = build(name, json.loads(options))
    if method is None:
        return None
    state = fill(method)
    return state, describe(method, state)


def is_silent(name: str, options: Mapping[str, Any], option: str, default: Any, value: Any) -> bool | None:
    """Whether a value instead of the default changes vectors and no tensor; None: the network cannot have one of them.

    Args:
        options: all others.
    """
    with contextlib.suppress(RecipeError):
        usual = json.dumps(write_options(name, {**options, option: default}))
        released, other = describe_released(name, usual), build(name, {**options, option: value})
        if released is not None and other is not None:
            state, vectors = released
            if list_shapes(other.state_dict()) != list_shapes(state):
                return False
            found = describe(other, state)
            return found.shape != vectors.shape or not torch.allclose(found, vectors, atol=TOLERANCE)
    return None


def list_shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def list_silent(name: str) -> list[tuple[str, Any]]:
    """(option, value) of those which change a method's vectors, and none of its tensors' names and shapes."""
    kinds, silent = get_type_hints(method_options(name)), []
    for option, default in dataclasses.asdict(build_options(name)).items():
        for value in dict.fromkeys(list_alternatives(option, kinds[option], default)):
            answers = (
                is_silent(name, {**small_options(name), **variant}, option, default, value) for variant in VARIANTS
            )
            if value != default and next((answer for answer in answers if answer is not None), False):
                silent.append((option, value))
    return silent


@pytest.mark.parametrize("layout", FORMATS)
def test_an_option_that_changes_vectors_and_no_tensor_is_refused_with_its_value_and_the_remedy(layout: str) -> None:
    form = FORMATS[layout]
    # Which of its vectors a test takes is no part of a network, and the releases' own tests try several.
    silent = [(name, value) for name, value in list_silent(form.method) if not name.startswith("test_")]
    assert {"normalisation"} <= {name for name, _ in silent}
    exported = []
    for name, value in silent:
        remedy = f"only {getattr(form.options, name)!r} fits it: train with that"
        try:
            form.write({name: value}, {})
        except CheckpointError as error:
            if str(error) == f"method.{name}: {value!r} has no place in the released layout; {remedy}":
                continue
        except KeyError:  # for want of tensors
            pass
        exported.append((name, value))
    assert exported == []


def test_an_extractors_option_that_changes_vectors_and_no_tensor_is_refused_inside_idf_too() -> None:
    silent = [
        (name, value)
        for name, value in list_silent("ide")
        if not name.startswith("test_") and name not in OWN_EXTRACTOR_OPTIONS
    ]
    assert ("last_stride", 1) in silent
    for name, value in silent:
        with pytest.raises(CheckpointError, match=rf"method\.extractor_options\.{name}: {value!r} has no place in the"):
            FORMATS["idf-official"].write({"extractor_options": {name: value}}, {})
