"""What holds for every loss, whatever the numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tapetum.layers.curve_net import apply_curves
from tapetum.losses.colour import colour_constancy
from tapetum.losses.curve_smoothness import curve_smoothness
from tapetum.losses.distillation import distillation
from tapetum.losses.exposure import exposure
from tapetum.losses.similarity import similarity_distillation
from tapetum.losses.spatial import spatial_consistency
from tapetum.losses.structure import structural_dissimilarity
from tapetum.losses.triplet import batch_hard_triplet
from tapetum.methods.idf import reconstruction

PICTURE_LOSSES = {
    "colour": lambda x, y: colour_constancy(x),
    "colour, paper": lambda x, y: colour_constancy(x, reading="paper"),
    "curve smoothness": lambda x, y: curve_smoothness(x),
    "curve smoothness, paper": lambda x, y: curve_smoothness(x, reading="paper"),
    "exposure": lambda x, y: exposure(x, patch=4),
    "exposure, paper": lambda x, y: exposure(x, patch=4, power=1),
    "spatial": spatial_consistency,
    "spatial, paper": lambda x, y: spatial_consistency(x, y, reading="paper"),
    "structure": structural_dissimilarity,
}
VECTOR_LOSSES = {
    "distillation": distillation,
    "distillation, sum": lambda x, y: distillation(x, y, reduction="sum"),
    "reconstruction": reconstruction,
    "reconstruction, sum": lambda x, y: reconstruction(x, y, reduction="sum"),
    "similarity": similarity_distillation,
}
seeds = st.integers(0, 2**31)
examples = settings(max_examples=15)


def draw(seed, *shape):
    return torch.rand(2, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", PICTURE_LOSSES)
@examples
@given(seed=seeds, size=st.integers(1, 5), height=st.integers(4, 12), width=st.integers(4, 9))
def test_a_picture_loss_is_finite_not_negative_and_blind_to_the_order_of_the_batch(name, seed, size, height, width):
    loss = PICTURE_LOSSES[name]
    x, y = draw(seed, size, 3, height, width)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    value = loss(x, y)
    assert torch.isfinite(value)
    assert value >= 0
    torch.testing.assert_close(loss(x[order], y[order]), value)


@pytest.mark.parametrize("name", VECTOR_LOSSES)
@examples
@given(seed=seeds, size=st.integers(1, 6), width=st.integers(1, 9))
def test_a_vector_loss_is_zero_for_equal_vectors_else_positive_and_blind_to_the_order(name, seed, size, width):
    loss = VECTOR_LOSSES[name]
    x, y = 10 * draw(seed, size, width)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    assert loss(x, y) >= -1e-12
    assert loss(x, x).abs() <= 1e-12
    torch.testing.assert_close(loss(x[order], y[order]), loss(x, y))


@examples
@given(seed=seeds, people=st.integers(2, 5), each=st.integers(1, 4), margin=st.sampled_from([0.0, 0.3, None]))
def test_the_triplet_loss_is_blind_to_the_order_of_the_batch_and_to_renaming_people(seed, people, each, margin):
    features = draw(seed, people * each, 6)[0]
    labels = torch.arange(people).repeat_interleave(each)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    value = batch_hard_triplet(features, labels, margin=margin)
    assert value >= 0
    torch.testing.assert_close(batch_hard_triplet(features[order], 7 - 3 * labels[order], margin=margin), value)


@examples
@given(seed=seeds, shift=st.floats(-20, 20))
def test_distillation_is_blind_to_a_shift_of_all_scores(seed, shift):
    student, teacher = draw(seed, 4, 5)
    torch.testing.assert_close(distillation(student + shift, teacher - shift), distillation(student, teacher))


@examples
@given(seed=seeds)
def test_curves_keep_pictures_in_0_to_1_and_brighten_exactly_where_they_are_negative(seed):
    picture = draw(seed, 1, 3, 5, 4)[0]
    for sign in (-1, 1):
        enhanced = apply_curves(picture, sign * draw(seed + 1, 1, 24, 5, 4)[0])
        assert ((enhanced >= 0) & (enhanced <= 1)).all()
        assert ((enhanced - picture) * sign <= 1e-12).all()


@examples
@given(seed=seeds, level=st.floats(0, 1))
def test_a_constant_picture_has_no_colour_no_structure_change_and_no_curve_steps(seed, level):
    picture = torch.full((2, 3, 8, 8), level, dtype=torch.float64)
    assert colour_constancy(picture) <= 1e-12
    assert curve_smoothness(picture) <= 1e-12
    assert structural_dissimilarity(picture, picture) <= 1e-9
    assert spatial_consistency(picture, picture) == 0
