import pytest
import safetensors.torch
import torch

from tapetum.core.errors import CheckpointError
from tapetum.layers.curve_net import CurveNet, apply_curves


def fill_by_formula(network):
    """The weights of the golden cases: scale * sin(phase + 0.61 i + 0.0137 i^2), see tests/golden/methods.md."""
    for n in range(1, 8):
        convolution = getattr(network, f"e_conv{n}")
        for tensor, scale, phase in ((convolution.weight, 0.10, n), (convolution.bias, 0.05, n + 0.5)):
            i = torch.arange(tensor.numel(), dtype=torch.float64)
            values = scale * torch.sin(phase + 0.61 * i + 0.0137 * i * i)
            tensor.data = values.float().view_as(tensor)
    return network


def test_the_fill_by_formula_is_the_one_of_the_golden_cases(golden):
    case = golden("modules_enhancement", "curve_net_fill")
    for name, tensor in fill_by_formula(CurveNet()).state_dict().items():
        key = name.replace(".", "_")
        assert tensor.double().sum().item() == pytest.approx(case.param[f"{key}_sum"].item(), abs=1e-6)
        torch.testing.assert_close(tensor.flatten()[:4], case.param[f"{key}_first4"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ["curve_net_unit_range", "curve_net_dark", "curve_net_divided_by_255"])
def test_the_curve_network_equals_the_original(golden, assert_matches, name, channels_last):
    case = golden("modules_enhancement", name)
    network = fill_by_formula(CurveNet())
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    (x,) = case.leaves("x")
    enhanced, curves = network(x)
    ((enhanced * case.inputs["probe_enhanced"]).sum() + (curves * case.inputs["probe_curves"]).sum()).backward()
    assert_matches(enhanced, case.out["enhanced"], 2e-4)
    assert_matches(curves, case.out["curves"], 2e-4)
    assert_matches(x.grad, case.grad["x"], 1e-3)


def test_the_fourth_iterate_equals_the_first_output_of_the_original(golden, assert_matches):
    case = golden("modules_enhancement", "curve_net_intermediate")
    (x,) = case.leaves("x")
    enhanced, curves = fill_by_formula(CurveNet())(x)
    halfway = apply_curves(x, curves[:, :12])
    probes = {"after_4": halfway, "enhanced": enhanced, "curves": curves}
    sum((output * case.inputs[f"probe_{name}"]).sum() for name, output in probes.items()).backward()
    for name, output in probes.items():
        assert_matches(output, case.out[name], 2e-4)
    assert_matches(x.grad, case.grad["x"], 1e-3)


def test_the_curve_iteration_equals_the_original_in_float64(golden):
    case = golden("modules_enhancement", "curve_iteration")
    for requires_grad in (False, True):  # two code paths
        enhanced = apply_curves(case.inputs["x"], case.inputs["curves"].requires_grad_(requires_grad))
        torch.testing.assert_close(enhanced.detach(), case.out["enhanced"], rtol=0, atol=1e-12)


def test_the_written_out_gradient_of_the_curves_is_the_numerical_one(rng):
    images = torch.rand(2, 3, 3, 2, generator=rng, dtype=torch.float64, requires_grad=True)
    curves = (2 * torch.rand(2, 9, 3, 2, generator=rng, dtype=torch.float64) - 1).requires_grad_()
    assert torch.autograd.gradcheck(apply_curves, (images, curves))


def test_the_papers_curve_is_the_codes_with_the_sign_turned(rng):
    images = torch.rand(1, 3, 2, 2, generator=rng)
    a = 2 * torch.rand(1, 3, 2, 2, generator=rng) - 1
    torch.testing.assert_close(apply_curves(images, -a), images + a * images * (1 - images))


def test_saturated_curves_brighten_as_one_minus_the_256th_power(rng):
    images = torch.rand(1, 3, 2, 2, generator=rng, dtype=torch.float64)
    enhanced = apply_curves(images, -torch.ones(1, 24, 2, 2, dtype=torch.float64))
    torch.testing.assert_close(enhanced, 1 - (1 - images) ** 256)


def test_the_original_width_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in CurveNet().parameters()) == 79_416


def test_curves_at_half_resolution_still_enhance_at_full_resolution(rng):
    network = CurveNet(4, curve_scale=0.5)
    images = torch.rand(2, 3, 16, 8, generator=rng)
    enhanced, curves = network(images)
    assert enhanced.shape == images.shape
    assert curves.shape == (2, 24, 8, 4)


def test_under_autocast_the_enhanced_picture_is_float32(rng):
    network = CurveNet(8).to(memory_format=torch.channels_last)
    images = torch.rand(2, 3, 16, 8, generator=rng)
    with torch.autocast("cpu", torch.bfloat16):
        enhanced, curves = network(images)
    assert enhanced.dtype == curves.dtype == torch.float32
    torch.testing.assert_close(enhanced, network(images)[0], rtol=0, atol=0.05)


@pytest.mark.parametrize("prefix", ["", "E_Net.", "enhancer.", "module."])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_weights_are_read_from_each_published_layout(tmp_path, prefix, ending):
    source, target = CurveNet(8), CurveNet(8)
    state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    if prefix:
        state["model_v.conv1.weight"] = torch.zeros(1)
    path = tmp_path / f"weights{ending}"
    if ending == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    target.load_weights(path)
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor)


def test_weights_of_another_width_or_network_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(CurveNet(8).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"e_conv1.weight' is \(8, 3, 3, 3\) where .* needs \(4, 3, 3, 3\)"):
        CurveNet(4).load_weights(path)
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"14 missing tensor\(s\), first 'e_conv1.bias'"):
        CurveNet(8).load_weights(path)
