"""Where in a picture a network looks: Grad-CAM of feature maps, attention rollout of tokens.

Which modules give maps is found by watching one forward pass, so a method's file says nothing about it.

Sources: Selvaraju et al., GRAD_CAM, ICCV 2017; Abnar and Zuidema, "Quantifying Attention Flow in Transformers",
ACL 2020.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tapetum.core.errors import RecipeError, nearest_name
from tapetum.core.method import Method, part_for_search
from tapetum.layers.backbones import Tokens
from tapetum.layers.tokens import TokenBackbone

BATCH = 16  # pictures whose gradients are computed together
GRAD_CAM, ROLLOUT = "Grad-CAM", "attention rollout"
LISTED = 12  # layers that a message names

Forward = Callable[[Tensor, Tensor, Tensor], Any]


@dataclass(frozen=True)
class Targets:
    """What each of N pictures is asked for.

    Attributes:
        labels: (N,) int64 class index of the picture's person; -1 where the network was not trained on them.
        vectors: (N, D) float32 embeddings of another picture of the person; looked at where the label is -1.
    """

    labels: Tensor
    vectors: Tensor


@dataclass(frozen=True)
class HeatMaps:
    """One layer's answer.

    Attributes:
        name: of the branch that the layer is part of; "" where the network has one only.
        layer: the module's name.
        rule: GRAD_CAM or ROLLOUT.
        values: (N, H, W) float32 in 0..1 at the size of the pictures, the largest of each picture 1; all 0 where
            nothing in it speaks for the person.
    """

    name: str
    layer: str
    rule: str
    values: Tensor


@dataclass(frozen=True)
class Explanation:
    """Heat maps of N pictures, and the scores they explain.

    Attributes:
        scores: (N,) float32 class score where the label is known, else cosine to the other picture.
    """

    maps: tuple[HeatMaps, ...]
    scores: Tensor


@dataclass(frozen=True)
class _Branch:
    """A module whose `backbone` describes pictures; the whole network where none has one."""

    prefix: str
    module: nn.Module

    def holds(self, name: str) -> bool:
        return not self.prefix or name.startswith(f"{self.prefix}.backbone")

    @property
    def tokens(self) -> TokenBackbone | None:
        backbone = getattr(self.module, "backbone", None)
        return backbone if isinstance(backbone, TokenBackbone) else None


@dataclass
class _Chain:
    """Blocks of a transformer that ran one behind the other, and what their tokens attended to."""

    blocks: list[str]
    weights: list[Tensor]  # (B, T, T) each, the mean of the heads
    end: Any = None


@dataclass
class _Seen:
    """What a forward pass showed."""

    maps: dict[str, list[Tensor]] = field(default_factory=dict)  # module -> its (B, C, h, w), one a call, in order
    chains: list[_Chain] = field(default_factory=list)


def explain(
    network: nn.Module,
    images: Tensor,
    modalities: Tensor,
    camids: Tensor,
    targets: Targets,
    *,
    layers: Sequence[str] = (),
) -> Explanation:
    """Heat maps of pictures under a trained method.

    A convolutional layer is explained by `grad_cam` of the picture's score, a transformer's block by `roll_out` of the
    attention up to it, which knows no score.

    Args:
        network: a method in evaluation mode, of which the part that searches is asked; its parameters get no gradients.
        images: (N, 3, H, W) float32 in 0..1.
        layers: names of modules, or of branches; empty takes the last maps of each backbone, or its last block.
    Returns:
        One `HeatMaps` a layer, in their order; a layer that runs twice in a pass has two.
    Raises:
        RecipeError: there is no such layer, it gives no maps, or the score does not depend on it.
    """
    network = part_for_search(network)
    with _watching(network, len(images[:2])) as seen, torch.no_grad():
        _embed(network)(images[:2], modalities[:1].expand(len(images[:2])), camids[:2])
    wanted = _choose_layers(network, seen, layers)
    parts = [
        (rows, _explain_alike(network, images[rows], modalities[rows], camids[rows], targets, rows, wanted))
        for rows in _alike(modalities, targets.labels)
    ]
    order = torch.cat([rows for rows, _ in parts]).argsort()
    scores = torch.cat([scores for _, (_, scores) in parts])[order]
    size = (int(images.shape[2]), int(images.shape[3]))
    names = stream_names(network)
    maps = []
    for number, (branch, layer, rule, call) in enumerate(wanted):
        values = [_to_size(found[number], size) for _, (found, _) in parts]
        again = f", run {call + 1}" if call else ""
        maps.append(HeatMaps(names.get(branch, branch) + again, layer, rule, torch.cat(values)[order]))
    return Explanation(tuple(maps), scores)


def grad_cam(maps: Tensor, gradients: Tensor) -> Tensor:
    """(B, h, w): L = ReLU(sum over channels of alpha_c A_c), alpha_c = mean over places of dS / dA_c.

    Args:
        maps: A, (B, C, h, w).
        gradients: of each picture's score S with respect to A, of the same shape.
    Source: Selvaraju et al. 2017, equations 1 and 2.
    """
    return torch.einsum("bc,bchw->bhw", gradients.mean((2, 3)), maps).relu()


def roll_out(weights: Iterable[Tensor], start: Tensor) -> Tensor:
    """How much of each token before the first block has flowed into some tokens behind the last.

    R = start A_L ... A_1 with A = (W + I) / 2: half of a token is what its residual connection kept. Each row of W sums
    to one, so each of A does, and R as `start` does.

    Args:
        weights: W of each block from the first to the last, (B, T, T), the mean of its heads; row i says what token i
            attended to.
        start: (T,) how much each token counts behind the last block.
    Returns:
        (B, T).
    Source: Abnar and Zuidema 2020, equation 1.
    """
    blocks = list(weights)
    flow = start.to(blocks[0]).expand(blocks[0].shape[0], -1)
    for block in reversed(blocks):  # a row at a time: no product of two (T, T) matrices is needed
        flow = (torch.einsum("bt,bts->bs", flow, block) + flow) / 2
    return flow


def stream_names(network: nn.Module) -> dict[str, str]:
    """What a method calls its branches, in the order in which they are shown: attribute -> name."""
    return getattr(network, "stream_names", {"branch": ""})


# Pictures of one kind at a time: of one modality, whose stem then sees all of them, and asked for one kind of score.


def _alike(modalities: Tensor, labels: Tensor) -> list[Tensor]:
    kinds = 2 * modalities + (labels >= 0)
    alike = [(kinds == kind).nonzero().squeeze(1) for kind in sorted(set(kinds.tolist()))]
    return [rows for group in alike for rows in torch.split(group, BATCH)]


def _explain_alike(
    network: nn.Module,
    images: Tensor,
    modalities: Tensor,
    camids: Tensor,
    targets: Targets,
    rows: Tensor,
    wanted: "Sequence[_Wanted]",
) -> tuple[list[Tensor], Tensor]:
    """What each wanted layer says of some pictures, (b, h, w), and their scores."""
    convolutional = [layer for _, layer, rule, _ in wanted if rule == GRAD_CAM]
    pixels = images.detach().requires_grad_(bool(convolutional))  # also a frozen network then has gradients of its maps
    with (
        _watching(network, len(rows), [layer for _, layer, _, _ in wanted]) as seen,
        torch.set_grad_enabled(bool(convolutional)),
    ):
        scores = _score(network, pixels, modalities, camids, targets.labels[rows], targets.vectors[rows])
    maps = [seen.maps[layer][call] for _, layer, rule, call in wanted if rule == GRAD_CAM]
    # The score of a picture depends on this picture alone, so the gradient of the sum holds that of each.
    gradients = torch.autograd.grad(scores.sum(), maps, allow_unused=True) if maps else ()
    found, left = [], iter(zip(maps, gradients, strict=True))
    branches = {branch.prefix: branch for branch in _find_branches(network)}
    for prefix, layer, rule, call in wanted:
        if rule == GRAD_CAM:
            values, gradient = next(left)
            if gradient is None:
                score = "class score" if targets.labels[rows[0]] >= 0 else "similarity"
                raise RecipeError(f"layer {layer}: the {score} does not depend on it; {_list_layers(seen)}")
            found.append(grad_cam(values.detach().float(), gradient.float()))
            continue
        chain = [each for each in _chains_of(branches[prefix], seen) if layer in each.blocks][call]
        found.append(_map_of(branches[prefix], chain.weights[: chain.blocks.index(layer) + 1]))
    return found, scores.detach().float()


def _score(
    network: nn.Module, images: Tensor, modalities: Tensor, camids: Tensor, labels: Tensor, vectors: Tensor
) -> Tensor:
    """(b,) class scores of pictures that all have a label, or cosines to other pictures' embeddings."""
    if labels[0] < 0:
        cosines: Tensor = (_embed(network)(images, modalities, camids) * vectors).sum(1)
        return cosines
    output = network(images, modalities, camids)
    logits: Tensor = output.first_logits if hasattr(output, "first_logits") else output.logits
    return logits.gather(1, labels[:, None]).squeeze(1)


def _map_of(branch: _Branch, weights: Sequence[Tensor]) -> Tensor:
    """The rollout from what the branch pools, its class token or the mean of its patches, to the patches: (b, h, w)."""
    tokens, gives = cast(TokenBackbone, branch.tokens), getattr(branch.module, "gives", None)
    start = torch.zeros(tokens.num_prefix + tokens.num_patches)
    if isinstance(gives, Tokens) and gives.pooling == "average":
        start[tokens.num_prefix :] = 1 / tokens.num_patches
    else:
        start[0] = 1
    return roll_out(weights, start)[:, tokens.num_prefix :].view(-1, *tokens.grid)


def _to_size(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(b, H, W), the largest value of each picture 1."""
    large = functional.interpolate(values[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    return large / large.amax((1, 2), keepdim=True).clamp(min=torch.finfo(large.dtype).tiny)


def _embed(network: nn.Module) -> Forward:
    return cast(Method, network).embed


# Which layers there are.


_Wanted = tuple[str, str, str, int]  # branch, layer, rule, number of the call


def _choose_layers(network: nn.Module, seen: _Seen, layers: Sequence[str]) -> list[_Wanted]:
    branches = _find_branches(network)
    if not layers:
        order = {name: place for place, name in enumerate(stream_names(network))}
        branches = sorted(branches, key=lambda branch: order.get(branch.prefix, len(order)))
        return [each for branch in branches for each in _default_of(branch, seen)]
    return [each for name in layers for each in _find_layer(network, branches, seen, name)]


def _find_branches(network: nn.Module) -> list[_Branch]:
    found = [
        _Branch(name, module)
        for name, module in network.named_modules()
        if isinstance(getattr(module, "backbone", None), nn.Module)
    ]
    return found or [_Branch("", network)]


def _default_of(branch: _Branch, seen: _Seen) -> list[_Wanted]:
    """The last block of a transformer, or the last maps before they are pooled."""
    if branch.tokens is not None:
        chains = _chains_of(branch, seen)
        return [(branch.prefix, chain.blocks[-1], ROLLOUT, call) for call, chain in enumerate(chains)]
    inside = [name for name in seen.maps if branch.holds(name)]
    if not inside:
        raise RecipeError(f"layer: {branch.prefix or 'the network'} gives no maps; {_list_layers(seen)}")
    last = inside[-1]
    return [(branch.prefix, last, GRAD_CAM, call) for call in range(len(seen.maps[last]))]


def _find_layer(network: nn.Module, branches: Sequence[_Branch], seen: _Seen, name: str) -> list[_Wanted]:
    streams = {shown: prefix for prefix, shown in stream_names(network).items() if shown}
    for branch in branches:
        if branch.prefix and streams.get(name, name) in (branch.prefix, f"{branch.prefix}.backbone"):
            return _default_of(branch, seen)
    own = next((branch.prefix for branch in branches if branch.prefix and name.startswith(f"{branch.prefix}.")), "")
    if name in seen.maps:
        return [(own, name, GRAD_CAM, call) for call in range(len(seen.maps[name]))]
    chains = [chain for branch in branches for chain in _chains_of(branch, seen) if name in chain.blocks]
    if chains:
        return [(own, name, ROLLOUT, call) for call in range(len(chains))]
    modules = [each for each, _ in network.named_modules() if each]
    if name in modules:
        raise RecipeError(f"layer {name}: gives no maps of (pictures, channels, rows, columns); {_list_layers(seen)}")
    close = nearest_name(name, modules)
    hint = f"{close.rstrip('?')}? " if close.startswith("did") else ""
    raise RecipeError(f"layer {name}: the network has none of this name; {hint}{_list_layers(seen)}")


def _list_layers(seen: _Seen) -> str:
    """The outermost layers that fit, in the order in which they run."""
    blocks = [name for chain in seen.chains if len(chain.blocks) > 1 for name in chain.blocks]
    names = list(dict.fromkeys([*seen.maps, *blocks]))
    if not names:
        return "no layer of it gives any"
    outermost = set(sorted(names, key=lambda name: name.count("."))[:LISTED])
    rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"those that fit: {', '.join(name for name in names if name in outermost)}{rest}"


def _chains_of(branch: _Branch, seen: _Seen) -> list[_Chain]:
    """Of all its tokens: a method may also run a block on some of them."""
    tokens = branch.tokens
    if tokens is None:
        return []
    count = tokens.num_prefix + tokens.num_patches
    return [chain for chain in seen.chains if branch.holds(chain.blocks[0]) and chain.weights[0].shape[1] == count]


# What a pass shows.


class _SeesAttention(TorchFunctionMode):
    """Computes the weights of each fused attention beside it: the fused kernel gives none."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: Tensor | None = None  # of the last one

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            query, key = args[0].float(), args[1].float()  # (B, heads, T, channels)
            self.weights = (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1).mean(1)
        return func(*args, **(kwargs or {}))


@contextmanager
def _watching(network: nn.Module, batch: int, only: Sequence[str] = ()) -> Iterator[_Seen]:
    """Keep what modules give in the passes inside.

    Args:
        batch: pictures of a pass; modules that look at more or fewer give no map a picture.
        only: modules whose maps are kept; empty keeps all.
    """
    seen, attention = _Seen(), _SeesAttention()

    def keep_maps(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and len(output) == batch and output[0, 0].numel() > 1:
            seen.maps[name] = [*seen.maps.pop(name, []), output]  # the last to end stands last

    def keep_weights(name: str, _module: nn.Module, inputs: Any, output: Any) -> None:
        if attention.weights is None or len(attention.weights) != batch:
            return
        behind = next((chain for chain in seen.chains if chain.end is inputs[0]), None)
        if behind is None:
            behind = _Chain([], [])
            seen.chains.append(behind)
        behind.blocks.append(name)
        behind.weights.append(attention.weights)
        behind.end, attention.weights = output, None

    with ExitStack() as stack:
        for name, module in network.named_modules():
            if name and (not only or name in only):
                hook = module.register_forward_hook(partial(keep_maps, name))
                stack.callback(hook.remove)
            if isinstance(getattr(module, "attn", None), nn.Module):
                hook = module.register_forward_hook(partial(keep_weights, name))
                stack.callback(hook.remove)
            if hasattr(module, "fused_attn"):
                stack.callback(setattr, module, "fused_attn", module.fused_attn)
                module.fused_attn = cast(Any, True)
        stack.enter_context(attention)
        yield seen
