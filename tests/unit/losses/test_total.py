"""Losses that the methods take from torch, and the weighted sum of the four enhancement losses."""

import pytest
import torch
from torch.nn import functional

from tapetum.losses.colour import colour_constancy
from tapetum.losses.curve_smoothness import curve_smoothness
from tapetum.losses.exposure import exposure
from tapetum.losses.spatial import spatial_consistency


def test_the_weighted_enhancement_losses_add_up_to_the_original_total(golden, assert_matches):
    case = golden("losses_enhancement", "enhancement_total")
    original, enhanced, curves = case.leaves("original", "enhanced", "curves")
    total = (
        int(case.cfg["w_tv"]) * curve_smoothness(curves)
        + int(case.cfg["w_exposure"]) * exposure(enhanced)
        + int(case.cfg["w_colour"]) * colour_constancy(enhanced)
        + int(case.cfg["w_spatial"]) * spatial_consistency(original, enhanced)
    )
    total.backward()
    assert_matches(total, case.out["loss"], 2e-5)
    assert_matches(original.grad, case.grad["original"], 2e-5)
    assert_matches(enhanced.grad, case.grad["enhanced"], 2e-5)


@pytest.mark.parametrize(
    ("name", "suffix", "dtype", "tolerance"),
    [
        ("cross_entropy_plain", "", torch.float32, 2e-5),
        ("cross_entropy_plain", "_f64", torch.float64, 1e-9),
        ("cross_entropy_label_smoothing_01", "", torch.float32, 2e-5),
        # The original rounds the smoothed targets to float32 (with such targets the difference is 0).
        ("cross_entropy_label_smoothing_01", "_f64", torch.float64, 5e-8),
    ],
)
def test_cross_entropy_with_torchs_label_smoothing_equals_the_original(
    golden, assert_matches, name, suffix, dtype, tolerance
):
    case = golden("losses_classification", name)
    (logits,) = case.leaves("logits", dtype=dtype)
    smoothing = float(case.cfg.get("epsilon", 0.0))
    loss = functional.cross_entropy(logits, case.inputs["labels"], label_smoothing=smoothing)
    loss.backward()
    assert_matches(loss, case.out[f"loss{suffix}"], tolerance)
    assert_matches(logits.grad, case.grad[f"logits{suffix}"], tolerance)
