"""Checkpoints in the layouts of released code: strict renaming, in both directions."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.core.method import TrainingFacts
from tapetum.core.options import read_options
from tapetum.layers.weights import check_tensors

Renaming = tuple[tuple[str, str], ...]  # (our prefix, their prefix), the first that fits counts
Tensors = Mapping[str, Tensor]
# Of the visible-infrared releases; one of them keeps no mINP.
FEWER_SCORES: Mapping[str, Any] = {"cmc": torch.zeros(20), "mAP": 0.0}
NO_SCORES: Mapping[str, Any] = {**FEWER_SCORES, "mINP": 0.0}
STEPS = "num_batches_tracked"


class Converted(NamedTuple):
    """A checkpoint of released code in our terms."""

    method: str
    options: dict[str, Any]  # complete
    num_ids: int
    state: dict[str, Tensor]
    camids: tuple[int, ...] = ()  # that it was trained on, where it keeps something of each
    size: tuple[int, int] | None = None  # (height, width) of its pictures, where only such fit it


class UntoldError(CheckpointError):
    """A file of the right layout does not tell an option of its network."""


@dataclass(frozen=True)
class OfficialFormat:
    """How one released layout is read and written.

    Attributes:
        layout: its name.
        method: the method's name.
        network: its class.
        architecture: (tensors, place) -> options and facts, among these `num_ids`.
        renaming: of the options.
        recipe: under which its weights were trained: how pictures are prepared is part of what they mean.
        recipes_by_ids: another one where the number of identities tells the data set.
        key: under which its files keep the tensors; empty where they are the file.
        unused: (options, used tensors in this layout) -> what the release carries and never uses, as zeros.
        needs_unused: beginnings of names of these; a file without one of them is refused.
        left_out: prefixes of tensors of ours that such files do not hold.
        released: options of which the layout holds one value only, their default. Each that changes vectors and no
            tensor's name or shape stands here, but for what a test takes (test_...), which is no part of a network.
        released_within: the same of entries of an option that is a mapping: option -> entry -> the one value.
        settle: where released files differ in names: a file's tensors -> the same under the names that are written.
        variant: of the options, what a message about a tensor that does not fit adds.
        files: words in the names of the files that make up a checkpoint, where it is several; in `read` and `write` the
            names of each file's tensors begin with its word and a dot.
        scores: what a file with a `key` keeps beside tensors and epoch; an export knows none, and says so by zeros, and
            of tensors by an empty dictionary.
        prefix: of every name that is written; files are read with and without "module.".
        asked: options, each a text, that a file may not tell (`architecture` then leaves it empty): somebody must.
    """

    layout: str
    method: str
    network: type[nn.Module]
    options: type[Any]
    architecture: Callable[[Tensors, str], tuple[Any, dict[str, Any]]]
    renaming: Callable[[Any], Renaming]
    recipe: str
    recipes_by_ids: Mapping[int, str] = field(default_factory=dict)
    key: str = ""
    unused: Callable[[Any, Tensors], dict[str, Tensor]] = lambda *_: {}
    needs_unused: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    released: tuple[str, ...] = ()
    released_within: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settle: Callable[[Tensors], Tensors] = lambda state: state
    variant: Callable[[Any], str] = lambda _: ""
    files: tuple[str, ...] = ()
    scores: Mapping[str, Any] = field(default_factory=lambda: NO_SCORES)
    prefix: str = ""
    asked: tuple[str, ...] = ()

    def read(self, state: Tensors, told: Mapping[str, str] = MappingProxyType({})) -> Converted:
        """Its tensors, whose names may begin with "module.", in our terms.

        Args:
            told: options that the layout asks for; they count before what the file tells.
        Raises:
            UntoldError: an option is missing.
            CheckpointError: a tensor is unknown, missing, or has another shape.
        """
        place = f"{self.layout} checkpoint"
        state = self.settle({name.removeprefix("module."): tensor for name, tensor in state.items()})
        options, facts = self.architecture(state, place)
        options = replace(options, **told)
        for name in self.asked:
            if not getattr(options, name):
                raise UntoldError(f"{place}: does not tell its {name}; add --set method.{name}=VALUE")
        with torch.device("meta"):  # without numbers: quick enough to be built again
            expected = self.network(options, TrainingFacts(**facts)).state_dict()
        theirs = to_theirs(expected, self.renaming(options))
        if not any(name.endswith(STEPS) for name in state):  # files of PyTorch before 0.4.1 count no steps
            state = {**state, **{name: torch.zeros((), dtype=torch.int64) for name in theirs if name.endswith(STEPS)}}
        unused = self.unused(options, theirs)
        beside = [name for name in unused if name in state or name.startswith(self.needs_unused)]
        try:
            check_tensors(state, theirs, place, beside=beside)
        except CheckpointError as error:
            raise CheckpointError(f"{error}{self.variant(options)}") from None
        ours = {name: state[released].clone() for name, released in zip(expected, theirs, strict=True)}
        own = {name: facts[name] for name in ("camids", "size") if name in facts}
        return Converted(self.method, asdict(options), facts["num_ids"], ours, **own)

    def write(self, options: Mapping[str, Any], state: Tensors) -> dict[str, Tensor]:
        """Our tensors in this layout; what the release never uses is zero.

        Raises:
            CheckpointError: they are not of the released network.
        """
        own = {each.name for each in fields(self.options)}
        known = {name: value for name, value in options.items() if name in own}  # a relative's network may fit, too
        try:
            settings = read_options(self.options, known)
        except RecipeError as error:
            raise CheckpointError(f"{error}; only the released network fits the layout") from None
        held = [(name, getattr(settings, name), getattr(self.options, name)) for name in self.released]
        held += [
            (f"{name}.{entry}", getattr(settings, name).get(entry, released), released)
            for name, entries in self.released_within.items()
            for entry, released in entries.items()
        ]
        for name, value, released in held:
            if value != released:
                raise CheckpointError(
                    f"method.{name}: {value!r} has no place in the released layout; only {released!r} fits it: "
                    "train with that"
                )
        kept = {name: tensor for name, tensor in state.items() if not name.startswith(self.left_out)}
        theirs = to_theirs(kept, self.renaming(settings))
        theirs |= self.unused(settings, theirs)
        self.read(theirs, {name: getattr(settings, name) for name in self.asked})  # the same strict check
        return {self.prefix + name: tensor for name, tensor in theirs.items()}


def read_tensor_size(state: Tensors, name: str, place: str) -> int:
    """First size of a tensor which tells an architecture's width.

    Raises:
        CheckpointError: there is no such tensor.
    """
    if name not in state or state[name].ndim == 0:
        raise CheckpointError(f"{place}: there is no tensor {name!r}; supply a checkpoint in this layout")
    return int(state[name].shape[0])


def to_theirs(state: Tensors, renaming: Renaming) -> dict[str, Tensor]:
    """Our tensors, in order, under their names.

    Raises:
        CheckpointError: a tensor has no place there.
    """
    return {_renamed(name, renaming): tensor.clone() for name, tensor in state.items()}


def _renamed(name: str, renaming: Renaming) -> str:
    for ours, theirs in renaming:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise CheckpointError(f"tensor {name!r} has no place in the released layout; only the released network fits it")
