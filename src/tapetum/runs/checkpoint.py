"""Checkpoints: one safetensors file whose header holds, as JSON, all that is needed to build the method again.

Reading one never executes code. A file is whole or absent; see `tapetum.runs.run_folder`.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.core.method import Method, TrainingFacts
from tapetum.layers.normalisation import Normalise
from tapetum.layers.weights import check_tensors
from tapetum.methods import build_method
from tapetum.runs.header import FEWEST_CLASSES, HEADER, Header, find_checkpoint, read_header


@dataclass(frozen=True)
class Checkpoint:
    """A method with its trained weights, in evaluation mode.

    Attributes:
        network: an ``nn.Module`` that satisfies `tapetum.core.method.Method`.
    """

    path: Path
    network: nn.Module
    header: Header

    @property
    def method(self) -> Method:
        """`network`, seen as a method."""
        return cast(Method, self.network)


def save_checkpoint(
    path: Path, network: nn.Module, header: Header, *, tensors: Mapping[str, Tensor] | None = None
) -> None:
    """Write weights and header as one file, whole or not at all.

    Args:
        tensors: the network's in another type; None takes its own.
    """
    make_folder(path.parent)
    header = dataclasses.replace(header, normalisation=normalisation_of(network))
    write_bytes(path, _pack(tensors or network.state_dict(), header))


def normalisation_of(network: nn.Module) -> str:
    """Its name, or "its own" where a method has none of ours."""
    normalise = getattr(network, "normalise", None)
    return normalise.name if isinstance(normalise, Normalise) else "its own"


def _pack(tensors: Mapping[str, Tensor], header: Header) -> bytes:
    # A copy of each tensor: the format stores no strides and no two names for one storage.
    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    text = json.dumps(dataclasses.asdict(header), ensure_ascii=False, default=list)
    return save(plain, metadata={HEADER: text})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Its weights, without the network."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); use another copy of the file") from None


def is_checkpoint(place: Path) -> bool:
    """Whether this is a checkpoint of ours, or a run folder that holds one."""
    try:
        read_header(find_checkpoint(place))
    except CheckpointError:
        return False
    return True


def load_checkpoint(path: Path, *, method: str | None = None, num_ids: int | None = None) -> Checkpoint:
    """Build the method that a checkpoint names and fill in its weights.

    Args:
        path: a run folder or a checkpoint file.
        method: the method that the caller needs; None takes any.
        num_ids: the class count that the caller needs; None takes any, and a packed model has none to compare.
    Raises:
        CheckpointError: missing, damaged, of another method or class count, or weights that do not fit the method.
    """
    path = find_checkpoint(path)
    header = read_header(path)
    if method is not None and header.method != method:
        raise CheckpointError(
            f"{path}: method is {header.method!r}, expected {method!r}; choose the matching checkpoint"
        )
    if num_ids is not None and header.num_ids != num_ids and not header.is_packed:
        raise CheckpointError(
            f"{path}: trained on {header.num_ids} identities, expected {num_ids}; choose the matching checkpoint"
        )
    try:
        network = _build(header)
    except RecipeError as error:
        raise CheckpointError(f"{path}: its method cannot be built: {error}") from None
    fill(network, read_tensors(path), path)
    header = dataclasses.replace(header, normalisation=normalisation_of(network))
    return Checkpoint(path=path, network=network.eval(), header=header)


def _build(header: Header) -> nn.Module:
    """The method with random weights.

    Raises:
        RecipeError: the method or an option of it is unknown here, or it needs facts that the file does not tell.
    """
    height, width = header.size or header.recipe.get("data", {}).get("size") or TrainingFacts.size
    return build_method(header.method, header.options, header.num_ids, camids=header.camids, size=(height, width))


def start_from(network: nn.Module, start: Checkpoint, absent_at_start: frozenset[str]) -> None:
    """Put a checkpoint's weights into a network that is to be trained on.

    What only a training needs, such as centres of classes, is not in every checkpoint, or for other cameras, and an
    earlier stage has no parts that a later one adds: these begin anew. So does, with a packed model, what has a row for
    each identity.

    Args:
        absent_at_start: words of the names of such tensors.
    """
    own, weights = network.state_dict(), start.network.state_dict()

    def is_needed(name: str) -> bool:
        return absent_at_start.isdisjoint(name.split("."))

    anew = {name: value for name, value in own.items() if not is_needed(name)}
    if start.header.is_packed:
        anew |= {name: value for name, value in own.items() if _is_row_an_identity(value, weights.get(name))}
    known = {name: value for name, value in weights.items() if name in anew and value.shape == anew[name].shape}
    fill(network, {name: value for name, value in weights.items() if is_needed(name)} | anew | known, start.path)


def _is_row_an_identity(tensor: Tensor, packed: Tensor | None) -> bool:
    """Whether a tensor of a packed model has one row where the network has one for each identity."""
    if packed is None or not tensor.ndim == packed.ndim > 0:
        return False
    return len(packed) == FEWEST_CLASSES < len(tensor) and packed.shape[1:] == tensor.shape[1:]


def fill(network: nn.Module, tensors: Mapping[str, Tensor], place: Path) -> None:
    """Put weights into a network; names and shapes must be exactly those of the network.

    Raises:
        CheckpointError: the first missing, unexpected or misshapen tensor is named.
    """
    check_tensors(tensors, network.state_dict(), str(place))
    network.load_state_dict(dict(tensors))
