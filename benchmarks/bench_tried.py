"""What was tried to make training and extraction faster on a CPU, each way against the one that is in use.

A row is the tried way ("ours") against the plain one ("peer"), in seconds, both in turn and in one run, after both gave
the same numbers: the largest difference of outputs is printed as a share of the largest number. In fp32 outputs and
gradients must be the same but for rounding; in bf16 the tried way must be about as near to fp32 as the plain one.
Networks are the published ones with random weights and norms that have seen a batch; few pictures, so that all of it
takes minutes. int8 stands in `bench_int8`, Winograd's filtering in `bench_winograd`. Why some cannot be had,
docs/benchmarks.md says.
"""

import copy
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import tried_work
from benchmarks.bench_idf import build_training
from benchmarks.measure import alternate, build_row, once
from benchmarks.tried_networks import convolve_backward, fold_norms, join_expansion, multiply_columns, pair_networks
from benchmarks.tried_work import AUTOCAST, PLAIN, SWITCHES
from benchmarks.workers import worker
from tapetum.core.memory import keep_freed_memory
from tapetum.inference.precision import has_fast_bf16
from tapetum.methods import build_method

LONG = True
NUM_IDS = 60
ROUNDS = 3
# Share of the numbers' length. Outputs agree to 3e-5; of gradients the plain way itself changes by 5e-3 where pictures
# change by a millionth, as a rounding opens or closes a ReLU.
OUTPUT_TOLERANCE, FP32_TOLERANCE = 1e-4, 1e-2  # of the first tensor, and of all with their gradients
BF16_TOLERANCE = 2.0  # times as far from the numbers in fp32 as the plain way in bf16 is
IDE_SIZE, DEEN_SIZE, SMALL_SIZE = (256, 128), (384, 144), (128, 64)
WEIGHT_SHAPES = {  # of ResNet-50's 3x3 convolutions at 256 x 128: channels, height, width
    "stage 1": (64, 64, 32),
    "stage 2": (128, 32, 16),
    "stage 3": (256, 16, 8),
    "stage 4": (512, 8, 4),
}

Side = Callable[[], Sequence[Tensor]]


def run() -> Iterator[dict[str, Any]]:
    keep_freed_memory()  # as `tapetum train` does
    precisions = ("fp32", "bf16") if has_fast_bf16("cpu") else ("fp32",)
    for name, size, batch in (("ide", IDE_SIZE, 8), ("deen", DEEN_SIZE, 4)):
        method = settle(build_method(name, {}, NUM_IDS), size)
        for precision in precisions:
            yield measure_folding(name, method, draw(batch, size), bf16=precision == "bf16")
    deen: Any = build_method("deen", {"dropout": 0.0}, NUM_IDS)
    for precision in precisions:
        yield from measure_joining(settle(deen, DEEN_SIZE), draw(4, DEEN_SIZE), bf16=precision == "bf16")
    for precision in precisions:
        yield from measure_pair("resnet50", draw(8, IDE_SIZE), bf16=precision == "bf16")
    if "bf16" in precisions:
        for name, shape in WEIGHT_SHAPES.items():
            yield measure_columns(name, *shape)
    yield from measure_switches("resnet50", IDE_SIZE, batch=4)
    for backbone, size in (("test_resnet", SMALL_SIZE), ("resnet50", IDE_SIZE)):
        yield measure_compile(backbone, draw(8, size))


def draw(count: int, size: tuple[int, int]) -> Tensor:
    """Pictures with something coarse to see, (count, 3, H, W)."""
    coarse = torch.rand(count, 3, 12, 6, generator=torch.Generator().manual_seed(0))
    images = functional.interpolate(coarse, size, mode="bilinear")
    return images.contiguous(memory_format=torch.channels_last)


def kinds_of(images: Tensor) -> Tensor:
    """Both modalities in turn; a method with one stem does not look at them."""
    return torch.arange(len(images)) % 2


def settle(method: nn.Module, size: tuple[int, int]) -> nn.Module:
    """Norms that have seen one batch, none of them silent, as behind a training."""
    torch.manual_seed(0)
    for module in method.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    images = draw(4, size)
    with torch.no_grad():
        method.train()(images, kinds_of(images), kinds_of(images))
    return method.eval().to(memory_format=torch.channels_last)


def compare(name: str, plain: Side, tried: Side, *, exact: Side | None = None, note: str = "") -> dict[str, Any]:
    """A row, after both gave the same tensors, what the network gives first.

    Args:
        exact: the plain way in fp32, where both sides are in bf16.
        note: what a reader must know besides.
    """
    made, expected = tried(), plain()
    check(name, made, expected, None if exact is None else exact())
    difference = largest_difference(made[0], expected[0])
    seconds = alternate({"tried": tried, "plain": plain}, ROUNDS)
    return tell(name, seconds, difference, note)


def tell(name: str, seconds: Mapping[str, float], difference: float, note: str = "") -> dict[str, Any]:
    told = f"largest difference {difference:.1e} of the largest number"
    row = build_row(name, seconds["tried"], seconds["plain"], "s", note=f"{told}; {note}" if note else told)
    return row | {"difference": difference}


def check(name: str, made: Sequence[Tensor], plain: Sequence[Tensor], exact: Sequence[Tensor] | None = None) -> None:
    """Both ways give the same but for rounding; `exact` where they are in bf16."""
    if exact is None:
        found = [(distance(made[:1], plain[:1]), OUTPUT_TOLERANCE), (distance(made, plain), FP32_TOLERANCE)]
    else:
        found = [(distance(made, exact), BF16_TOLERANCE * distance(plain, exact))]
    for difference, allowed in found:
        if not difference <= allowed:
            raise AssertionError(f"{name}: differs by {difference:.1e} of the numbers' length, allowed {allowed:.1e}")


def distance(ones: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """Length of the difference of tensors in turn as a share of the other's length; the largest of them."""
    pairs = [(one.detach().float(), other.detach().float()) for one, other in zip(ones, others, strict=True)]
    return max(float((one - other).norm() / other.norm()) for one, other in pairs)


def largest_difference(one: Tensor, other: Tensor) -> float:
    """As a share of the largest number."""
    one, other = one.detach().float(), other.detach().float()
    return float((one - other).abs().max() / other.abs().max())


def autocast(*, bf16: bool) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=bf16)


def embed(method: Any, images: Tensor, *, bf16: bool) -> list[Tensor]:
    with torch.inference_mode(), autocast(bf16=bf16):
        return [method.embed(images, kinds_of(images), kinds_of(images))]


def measure_folding(name: str, method: nn.Module, images: Tensor, *, bf16: bool) -> dict[str, Any]:
    sides = [partial(embed, each, images, bf16=bf16) for each in (method, fold_norms(method))]
    exact = partial(embed, method, images, bf16=False) if bf16 else None
    return compare(f"norms folded: extraction, {title(name, images, bf16=bf16)}", *sides, exact=exact)


def title(name: str, images: Tensor, *, bf16: bool) -> str:
    count, _, height, width = images.shape
    return f"{name}, {count} of {height} x {width}, {'bf16' if bf16 else 'fp32'}"


def measure_joining(method: Any, images: Tensor, *, bf16: bool) -> Iterator[dict[str, Any]]:
    """Extraction by the whole network; with gradients the expansion and the stage behind it, without dropout."""
    joined = join_expansion(method, fixed=True)
    sides = [partial(embed, each, images, bf16=bf16) for each in (method, joined)]
    exact = partial(embed, method, images, bf16=False) if bf16 else None
    yield compare(f"1x1 joined: extraction, {title('deen', images, bf16=bf16)}", *sides, exact=exact)

    with torch.no_grad():
        maps = method.network.stem(method.normalise(images), kinds_of(images))
        for stage in method.network.stages[: method.options.expand_after]:
            maps = stage(maps)
    method.train()
    steps = [partial(learn_expanded, each, maps, bf16=bf16) for each in (method, join_expansion(method, fixed=False))]
    exact = partial(learn_expanded, method, maps, bf16=False) if bf16 else None
    name = title("expansion and last stage, with gradients", images, bf16=bf16)
    yield compare(f"1x1 joined: {name}", *steps, exact=exact, note="without the dropout of 0.01 that stands between")


def learn_expanded(method: Any, maps: Tensor, *, bf16: bool) -> list[Tensor]:
    """What the expansion and the stage behind it give, and gradients of weights before and behind the 1x1."""
    stage = method.network.stages[method.options.expand_after]
    maps = maps.detach().requires_grad_()
    outer = [weight for branch in method.expansion.branches for weight in (branch.dilated[0].weight, branch.out.weight)]
    weights = [*outer, stage[0].conv2.weight, stage[-1].conv3.weight]
    with autocast(bf16=bf16):
        seen = stage(method.expansion(maps))
    everything = {id(each): each for part in (method.expansion, stage) for each in part.parameters()}
    gradients = torch.autograd.grad(weigh(seen), [maps, *everything.values()])
    found = dict(zip(everything, gradients[1:], strict=True))
    return [seen, gradients[0], *(found[id(weight)] for weight in weights)]


def weigh(maps: Tensor) -> Tensor:
    """A loss with a gradient of its own for each number; of squares behind a norm nearly all cancels."""
    weights = torch.randn(maps.shape, generator=torch.Generator().manual_seed(1))
    return (maps.float() * weights).mean()


def measure_pair(backbone: str, images: Tensor, *, bf16: bool) -> Iterator[dict[str, Any]]:
    """IDF's two extractors, which look at two pictures with weights of their own."""
    options = {"extractor_options": {"backbone": backbone}}
    method: Any = settle(build_method("idf", options, NUM_IDS), (images.shape[2], images.shape[3]))
    first, second = method.second.backbone, method.night.backbone
    pair = pair_networks(first, second).to(memory_format=torch.channels_last)
    inputs = images, images.flip(3)
    both = torch.cat(inputs, 1).contiguous(memory_format=torch.channels_last)

    def apart(*, train: bool, bf16: bool = bf16) -> list[Tensor]:
        with torch.set_grad_enabled(train), autocast(bf16=bf16):
            seen = [network.train(train)(each) for network, each in zip((first, second), inputs, strict=True)]
        return seen if not train else [*seen, *learn(seen, [first, second])]

    def together(*, train: bool) -> list[Tensor]:
        with torch.set_grad_enabled(train), autocast(bf16=bf16):
            seen = list(pair.train(train)(both).chunk(2, 1))
        return seen if not train else [*seen, *learn(seen, [pair])]

    for what, train in (("forward", False), ("with gradients", True)):
        sides = partial(apart, train=train), partial(together, train=train)
        name = title(f"both extractors of IDF, {what}", images, bf16=bf16)
        exact = partial(apart, train=train, bf16=False) if bf16 else None
        yield compare(f"in one pass, by groups: {name}", *sides, exact=exact)


def learn(seen: list[Tensor], networks: list[Any]) -> list[Tensor]:
    """Gradients of all weights; those of a late convolution one below the other."""
    torch.stack([weigh(each) for each in seen]).sum().backward()
    last = torch.cat([network.layer4[-1].conv1.weight.grad for network in networks])
    for network in networks:
        network.zero_grad()
    return [last]


def measure_columns(name: str, channels: int, height: int, width: int, batch: int = 16) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    maps, gradient = (
        torch.randn(batch, channels, height, width, generator=generator)
        .to(torch.bfloat16)
        .contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    weight = torch.randn(channels, channels, 3, 3, generator=generator).to(torch.bfloat16)
    weight = weight.contiguous(memory_format=torch.channels_last)
    plain = partial(convolve_backward, maps, gradient, weight)
    forward = partial(functional.conv2d, maps, weight, padding=1)
    with torch.no_grad():
        times = alternate({"forward": forward, "gradient": plain}, ROUNDS)
        return compare(
            f"im2col: weight gradient, {name}, {batch} x {channels} x {height} x {width}, bf16",
            lambda: [plain()],
            lambda: [multiply_columns(maps, gradient)],
            exact=lambda: [convolve_backward(maps.float(), gradient.float(), weight.float())],
            note=f"oneDNN's gradient takes {times['gradient'] / times['forward']:.1f} times its forward",
        )


def measure_switches(backbone: str, size: tuple[int, int], *, batch: int) -> Iterator[dict[str, Any]]:
    """One process a switch, all waiting for their turn; pooled features first, which must be those without a switch."""
    words = (backbone, *map(str, size), str(batch))
    with ExitStack() as stack:
        asked = {
            name: stack.enter_context(worker(tried_work.__name__, name, *words, environment=switch.environment))
            for name, switch in SWITCHES.items()
        }
        found = {name: torch.tensor(ask("features")) for name, ask in asked.items()}
        seconds = alternate({name: partial(ask, "step") for name, ask in asked.items()}, ROUNDS)
    for name, switch in SWITCHES.items():
        if name == PLAIN:
            continue
        made = [found[name]]
        if switch.bf16:
            check(name, made, [found[AUTOCAST]], [found[PLAIN]])
        else:
            check(name, made, [found[PLAIN]])
        row = f"{name}: training step, IDE+ {backbone}, {batch} of {size[0]} x {size[1]}, against fp32"
        times = {"tried": seconds[name], "plain": seconds[PLAIN]}
        yield tell(row, times, largest_difference(found[name], found[PLAIN]))


def measure_compile(backbone: str, images: Tensor) -> dict[str, Any]:
    """The method compiled by inductor, from an empty cache; its losses and its step as they are."""
    torch.manual_seed(0)
    plain: Any = build_method("ide", {"backbone": backbone, "dropout": 0.0}, NUM_IDS)
    plain = plain.to(memory_format=torch.channels_last)
    name = f"torch.compile: training step, {title(f'IDE+ {backbone}', images, bf16=False)}"
    tried = copy.deepcopy(plain)
    compiled = torch.compile(tried)
    sides = {"plain": (plain, plain), "tried": (tried, compiled)}
    labels = torch.arange(len(images)) % NUM_IDS

    def loss(called: Any) -> Tensor:
        return functional.cross_entropy(called(images, kinds_of(images), kinds_of(images)).logits, labels)

    def gradients(method: Any, called: Any) -> list[Tensor]:
        value = loss(called)
        method.zero_grad()
        value.backward()
        first = next(method.branch.parameters()).grad.clone()
        return [value[None], first, method.head.classifier.weight.grad.clone()]

    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=cache):
        warm, found = once(partial(gradients, *sides["tried"]))
        expected = gradients(*sides["plain"])
        check(name, found, expected)
        steps = {side: build_training(method, partial(loss, called)) for side, (method, called) in sides.items()}
        seconds = alternate(steps, ROUNDS)
    return tell(
        name, seconds, largest_difference(found[0], expected[0]), f"the first step took {warm:.0f} s, to compile"
    )
