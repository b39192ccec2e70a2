import pytest
import torch

from tapetum.losses.structure import structural_dissimilarity, structural_dissimilarity_map


@pytest.mark.parametrize(("suffix", "dtype", "tolerance"), [("", torch.float32, 2e-5), ("_f64", torch.float64, 1e-9)])
def test_structural_dissimilarity_equals_the_original(golden, assert_matches, suffix, dtype, tolerance):
    case = golden("losses_enhancement", "ssim_dissimilarity")
    original, enhanced = case.leaves("original", "enhanced", dtype=dtype)
    loss = structural_dissimilarity(original, enhanced)
    loss.backward()
    assert_matches(loss, case.out[f"loss{suffix}"], tolerance)
    assert_matches(structural_dissimilarity_map(original, enhanced), case.out[f"map{suffix}"], tolerance)
    assert_matches(original.grad, case.grad[f"original{suffix}"], tolerance)
    assert_matches(enhanced.grad, case.grad[f"enhanced{suffix}"], tolerance)


def test_structural_dissimilarity_equals_a_slow_loop_over_windows(rng):
    original, enhanced = torch.rand(2, 1, 3, 4, 5, generator=rng, dtype=torch.float64)
    total = 0.0
    for x, y in zip(original[0], enhanced[0], strict=True):
        for row in range(4):
            for column in range(5):
                # reflection: index -1 is 1, index n is n - 2
                rows = [abs(r) if r < 4 else 6 - r for r in (row - 1, row, row + 1)]
                columns = [abs(c) if c < 5 else 8 - c for c in (column - 1, column, column + 1)]
                a = torch.stack([x[r, c] for r in rows for c in columns])
                b = torch.stack([y[r, c] for r in rows for c in columns])
                covariance = float(((a - a.mean()) * (b - b.mean())).mean())
                ssim = (
                    float((2 * a.mean() * b.mean() + 0.01**2) / (a.mean() ** 2 + b.mean() ** 2 + 0.01**2))
                    * (2 * covariance + 0.03**2)
                    / float(a.var(correction=0) + b.var(correction=0) + 0.03**2)
                )
                total += min(max((1 - ssim) / 2, 0.0), 1.0)
    assert float(structural_dissimilarity(original, enhanced)) == pytest.approx(total / 60, rel=1e-9)


def test_a_picture_has_no_dissimilarity_to_itself(rng):
    picture = torch.rand(1, 3, 6, 6, generator=rng)
    assert float(structural_dissimilarity(picture, picture)) == pytest.approx(0, abs=1e-6)
