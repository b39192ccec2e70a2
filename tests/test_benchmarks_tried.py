"""What was tried to be faster gives the numbers of what is in use, on small networks."""

import pytest
import torch
from benchmarks import bench_tried
from benchmarks.tried_networks import Joined, fold_norms, join_expansion, pair_networks
from torch import nn

from tapetum.methods import build_method, small_options

SIZE = (64, 32)


@pytest.fixture
def one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_tried, "ROUNDS", 1)


def norms_of(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.usefixtures("one_round")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ide", small_options("ide")),
        ("ide", {"backbone": "tf_efficientnet_lite0"}),
        ("deen", small_options("deen")),
        ("deen", {"backbone": "resnet26"}),  # wide enough for Winograd's filtering, which takes no bias
    ],
)
def test_folding_norms_into_convolutions_changes_no_vector(name: str, options: dict[str, object]) -> None:
    method = bench_tried.settle(build_method(name, options, bench_tried.NUM_IDS), SIZE)
    assert len(norms_of(fold_norms(method))) < len(norms_of(method)) / 10  # test_resnet's deep stem keeps one
    row = bench_tried.measure_folding(name, method, bench_tried.draw(2, SIZE), bf16=False)
    assert 0 < row["difference"] <= 1e-4


@pytest.mark.usefixtures("one_round")
def test_the_1x1_of_an_expansion_can_be_joined_to_the_stage_behind_it_with_all_gradients() -> None:
    options = {"backbone": "resnet26", "dropout": 0.0}
    method = bench_tried.settle(build_method("deen", options, bench_tried.NUM_IDS), SIZE).train()
    maps = torch.randn(2, 1024, 4, 2)
    sides = method, join_expansion(method, fixed=False)
    plain, joined = (bench_tried.learn_expanded(each, maps, bf16=False) for each in sides)
    assert bench_tried.distance(joined, plain) <= 1e-3
    fixed = join_expansion(method, fixed=True)
    stage = method.network.stages[3]  # type: ignore[index, union-attr]
    seen = fixed.network.stages[3](fixed.expansion(maps))
    assert bench_tried.distance([seen], [stage(method.expansion(maps))]) <= 1e-4  # type: ignore[operator]


def test_a_stage_that_begins_with_3x3_convolutions_takes_no_1x1_in() -> None:
    method = build_method("deen", small_options("deen"), bench_tried.NUM_IDS)
    with pytest.raises(ValueError, match="1x1"):
        Joined(method.network.stages[3][0].conv1, method.expansion, fixed=True)  # type: ignore[index, union-attr, arg-type]


@pytest.mark.usefixtures("one_round")
def test_two_extractors_in_one_network_of_two_groups_give_what_each_gives() -> None:
    rows = list(bench_tried.measure_pair("test_resnet", bench_tried.draw(2, SIZE), bf16=False))
    assert [row["difference"] <= 1e-4 for row in rows] == [True, True]


def test_a_pair_keeps_the_statistics_of_both() -> None:
    first, second = (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)) for _ in range(2))
    second(torch.rand(2, 3, 4, 4))
    pair = pair_networks(first, second)
    expected = torch.cat([each[1].running_mean for each in (first, second)])  # type: ignore[misc]
    torch.testing.assert_close(norms_of(pair)[0].running_mean, expected)


@pytest.mark.usefixtures("one_round")
def test_the_weight_gradient_by_columns_is_that_of_the_convolution() -> None:
    maps, gradient = (torch.randn(2, 4, 6, 5) for _ in range(2))
    expected = bench_tried.convolve_backward(maps, gradient, torch.zeros(4, 4, 3, 3))
    torch.testing.assert_close(bench_tried.multiply_columns(maps, gradient), expected)
    assert bench_tried.measure_columns("small", 16, 8, 4, batch=2)["ratio"] > 0


def test_a_way_that_gives_other_numbers_is_refused() -> None:
    ones = [torch.ones(3)]
    with pytest.raises(AssertionError, match=r"half: differs by 5\.0e-01"):
        bench_tried.check("half", [torch.full((3,), 0.5)], ones)
