import pytest
import torch

from tapetum.losses.reconstruction import reconstruction


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
