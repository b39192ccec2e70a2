import pytest
import torch

from tapetum.losses.least_squares import least_squares, relativistic_least_squares, summed_least_squares


def slow_relativistic(upper: list[float], lower: list[float]) -> float:
    mean_upper, mean_lower = sum(upper) / len(upper), sum(lower) / len(lower)
    first = sum((score - mean_lower - 1) ** 2 for score in upper) / len(upper)
    second = sum((score - mean_upper) ** 2 for score in lower) / len(lower)
    return (first + second) / 2


def test_the_relativistic_loss_is_what_the_formula_says_for_sides_of_unlike_size(rng: torch.Generator) -> None:
    upper, lower = torch.randn(3, 1, 4, 2, generator=rng), torch.randn(2, 1, 4, 2, generator=rng)
    expected = slow_relativistic(upper.flatten().tolist(), lower.flatten().tolist())
    assert relativistic_least_squares(upper, lower).item() == pytest.approx(expected, rel=1e-5)
    order = torch.randperm(3, generator=rng)
    torch.testing.assert_close(
        relativistic_least_squares(upper[order], lower), relativistic_least_squares(upper, lower)
    )


def test_the_plain_loss_is_the_mean_squared_distance_from_the_target(rng: torch.Generator) -> None:
    scores = torch.randn(2, 1, 3, 3, generator=rng)
    expected = sum((score - 1) ** 2 for score in scores.flatten().tolist()) / 18
    assert least_squares(scores, 1).item() == pytest.approx(expected, rel=1e-5)


def test_scores_of_several_sizes_count_alike_however_many_they_are() -> None:
    scores = (torch.tensor([[1.0, 3.0]]), torch.tensor([2.0, 2.0, 5.0, 1.0]))
    assert summed_least_squares(scores, 1).item() == (0 + 4) / 2 + (1 + 1 + 16 + 0) / 4


def test_sides_that_are_one_apart_lose_half_and_swapped_ones_more() -> None:
    upper, lower = torch.ones(2), torch.zeros(2)
    assert relativistic_least_squares(upper, lower).item() == 0.5
    assert relativistic_least_squares(lower, upper).item() == 2.5
