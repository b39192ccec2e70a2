import pytest
import torch

from tapetum.layers.unit_sums import join_unit_sums


@pytest.mark.parametrize("count", [1, 2, 4])
def test_across_modalities_the_inner_product_is_the_mean_over_all_pairs_of_parts(rng, count):
    parts = torch.nn.functional.normalize(torch.randn(count, 6, 5, generator=rng), dim=2)
    modalities = torch.arange(6) % 2
    joined = join_unit_sums(parts, modalities)
    assert joined.shape == (6, 7)
    torch.testing.assert_close(joined.norm(dim=1), torch.ones(6))
    visible, infrared = joined[modalities == 0], joined[modalities == 1]
    expected = torch.zeros(3, 3)
    for one in parts[:, modalities == 0]:
        for other in parts[:, modalities == 1]:
            expected += one @ other.T / count**2
    torch.testing.assert_close(visible @ infrared.T, expected)


def test_parts_that_are_alike_and_parts_of_zeros_keep_the_length(rng):
    part = torch.nn.functional.normalize(torch.randn(1, 3, 64, generator=rng), dim=2)
    modalities = torch.tensor([0, 1, 1])
    alike = join_unit_sums(torch.cat([part, part]), modalities)
    torch.testing.assert_close(alike[:, :64], part[0])
    assert not alike[:, 64:].any()
    torch.testing.assert_close(join_unit_sums(0 * part, modalities).norm(dim=1), torch.ones(3))
    half = join_unit_sums(torch.cat([part, 0 * part]), modalities)
    torch.testing.assert_close(half.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(half[:1, :64] @ half[1:, :64].T, part[0, :1] @ part[0, 1:].T / 4)
