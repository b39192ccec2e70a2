import pytest
import torch

from tapetum.methods.idf import BottleneckFusion, reconstruction


def test_the_fusion_equals_the_original(golden, assert_matches):
    case = golden("modules_idf", "fusion_64")
    fusion = BottleneckFusion(64, 2048)
    renamed = {"fuse_in": fusion.encoder, "fuse_out": fusion.decoder}
    for theirs, module in renamed.items():
        for name, tensor in module.named_parameters():
            scale, phase = case.cfg[f"scale_{theirs}.{name}"].item(), case.cfg[f"phase_{theirs}.{name}"].item()
            i = torch.arange(tensor.numel(), dtype=torch.float64)
            values = scale * torch.sin(phase + 0.61 * i + 0.0137 * i * i)
            assert abs(values.float().double().sum().item() - case.cfg[f"sum_{theirs}.{name}"].item()) < 1e-4
            tensor.data = values.float().view_as(tensor)
    (z,) = case.leaves("z")
    latent, decoded = fusion(z)
    loss = reconstruction(decoded, z)
    ((latent * case.inputs["probe_latent"]).sum() + loss * case.inputs["probe_loss"]).backward()
    assert_matches(latent, case.out["latent"], 2e-4)
    assert_matches(loss, case.out["loss"], 2e-4)
    assert_matches(z.grad, case.grad["z"], 1e-3)


def test_the_papers_encoder_has_relu_after_both_layers(rng):
    fusion = BottleneckFusion(8, 4, "relu")
    joined = torch.randn(3, 8, generator=rng)
    first, _, second, _ = fusion.encoder
    expected = second(first(joined).clamp(min=0)).clamp(min=0)
    torch.testing.assert_close(fusion(joined)[0], expected)


def test_the_decoder_mirrors_the_encoders_widths():
    fusion = BottleneckFusion(12, 5)
    assert [layer.weight.shape for layer in fusion.encoder[::2]] == [(6, 12), (5, 6)]
    assert [layer.weight.shape for layer in fusion.decoder[::2]] == [(6, 5), (12, 6)]


def test_under_autocast_latent_and_reconstruction_are_float32(rng):
    with torch.autocast("cpu", torch.bfloat16):
        latent, decoded = BottleneckFusion(8, 4)(torch.randn(3, 8, generator=rng))
    assert latent.dtype == decoded.dtype == torch.float32


@pytest.mark.parametrize(("suffix", "dtype", "tolerance"), [("", torch.float32, 2e-5), ("_f64", torch.float64, 1e-9)])
def test_reconstruction_equals_the_original_with_a_gradient_for_the_target_too(
    golden, assert_matches, suffix, dtype, tolerance
):
    case = golden("modules_idf", "reconstruction_mse")
    decoded, target = case.leaves("decoded", "target", dtype=dtype)
    loss = reconstruction(decoded, target)
    loss.backward()
    assert_matches(loss, case.out[f"loss{suffix}"], tolerance)
    assert_matches(decoded.grad, case.grad[f"decoded{suffix}"], tolerance)
    assert_matches(target.grad, case.grad[f"target{suffix}"], tolerance)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reconstruction_equals_a_slow_loop(rng, reduction):
    decoded, target = torch.rand(2, 4, 6, generator=rng, dtype=torch.float64)
    total = sum((float(a) - float(b)) ** 2 for a, b in zip(decoded.flatten(), target.flatten(), strict=True))
    expected = total / 24 if reduction == "mean" else total / 4
    assert float(reconstruction(decoded, target, reduction=reduction)) == pytest.approx(expected, rel=1e-12)
