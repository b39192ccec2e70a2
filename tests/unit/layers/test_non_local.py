import pytest
import torch

from tapetum.layers.non_local import NonLocal, NonLocalStages

THEIRS = {"g.0.": "g.", "W.0.": "out.", "W.1.": "norm."}


def ours(name):
    for theirs, mine in THEIRS.items():
        if name.startswith(theirs):
            return mine + name.removeprefix(theirs)
    return name


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize(("file", "release"), [("modules_other", "vi"), ("strong_baselines", "single")])
def test_the_block_equals_the_originals(golden, assert_matches, file, release, mode):
    case = golden(file, f"non_local_{release}_{mode}")
    block = NonLocal(12).train(mode == "train")
    block.load_state_dict({ours(name): value for name, value in case.param.items()})
    (x,) = case.leaves("x")
    y = block(x)
    (y * case.inputs["probe_y"]).sum().backward()
    assert_matches(y, case.out["y"], 2e-4)
    assert_matches(x.grad, case.grad["x"], 1e-3)
    parameters = dict(block.named_parameters())
    compared = 0
    for name, expected in case.grad.items():
        if not name.startswith("param."):
            continue
        gradient = parameters[ours(name.removeprefix("param."))].grad
        if name == "param.W.0.bias" and mode == "train":  # zero but for rounding: the norm takes it away
            assert gradient.abs().max() < 1e-4 * block.out.weight.grad.abs().max()
        else:
            assert_matches(gradient, expected, 1e-3)
        compared += 1
    assert compared == 10
    for statistic in ("running_mean", "running_var"):
        if mode == "train":
            assert_matches(getattr(block.norm, statistic), case.out[f"after.W.1.{statistic}"], 2e-4)


@pytest.mark.parametrize(("inner", "channels"), [("one", 1), ("half", 3)])
def test_the_block_equals_a_slow_loop_over_pairs_of_places(rng, inner, channels):
    block = NonLocal(6, inner).double().eval()
    torch.nn.init.normal_(block.norm.weight, generator=rng)
    maps = torch.randn(2, 6, 3, 2, generator=rng, dtype=torch.float64)
    assert block.g.out_channels == channels
    with torch.no_grad():
        found = block(maps)
        theta, phi, g = (part(maps).flatten(2) for part in (block.theta, block.phi, block.g))
        heard = torch.zeros(2, channels, 6, dtype=torch.float64)
        for picture in range(2):
            for i in range(6):
                for j in range(6):
                    affinity = float(theta[picture, :, i] @ phi[picture, :, j]) / 6
                    heard[picture, :, i] += affinity * g[picture, :, j]
        expected = block.norm(block.out(heard.view(2, channels, 3, 2))) + maps
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("inner", ["one", "half"])
def test_at_the_start_the_block_passes_its_input_on(rng, inner):
    maps = torch.randn(2, 8, 4, 2, generator=rng)
    assert torch.equal(NonLocal(8, inner)(maps), maps)


def test_no_tensor_has_a_number_for_each_pair_of_places(rng):
    places = 64 * 32
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            sizes.extend(value.numel() for value in torch.utils._pytree.tree_leaves(result) if hasattr(value, "numel"))
            return result

    block, maps = NonLocal(4), torch.randn(1, 4, 64, 32, generator=rng, requires_grad=True)
    with Watch():
        block(maps).sum().backward()
    assert max(sizes) <= 4 * places


def test_under_autocast_the_output_stays_near_the_exact_one(rng):
    block = NonLocal(16).eval()
    torch.nn.init.ones_(block.norm.weight)
    maps = torch.randn(2, 16, 12, 6, generator=rng)
    with torch.no_grad():
        exact = block(maps)
        with torch.autocast("cpu", torch.bfloat16):
            inside = block(maps)
    torch.testing.assert_close(inside.float(), exact, rtol=0.02, atol=0.02)


def test_non_local_blocks_follow_the_last_residual_blocks_of_their_stage():
    """Residual blocks and non-local ones in turn write their names down."""
    names = []

    class Named(torch.nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name, self.norm = name, torch.nn.BatchNorm2d(6)

        def forward(self, maps):
            names.append(self.name)
            return maps

    stages = [torch.nn.Sequential(*(Named(f"{stage}{number}") for number in range(3))) for stage in "ab"]
    blocks = NonLocalStages(stages, [2, 0]).eval()
    for number, block in enumerate(blocks[0]):
        block.register_forward_hook(lambda *_, number=number: names.append(f"non-local {number}"))
    maps = torch.randn(1, 6, 3, 2)
    assert torch.equal(blocks(maps, stages), maps)  # the norms of fresh blocks are zero
    assert names == ["a0", "a1", "non-local 0", "a2", "non-local 1", "b0", "b1", "b2"]
    assert [len(each) for each in NonLocalStages(stages, [4, 1])] == [3, 1]
