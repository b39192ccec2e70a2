import pytest
import torch
from torch.nn import functional

from tapetum.core.errors import RecipeError
from tapetum.layers.expansion import Expansion

THEIRS = {
    f"branches.{branch}.{ours}": f"FC{branch + 1}{theirs}"
    for branch in (0, 1)
    for ours, theirs in (
        ("dilated.0.weight", "1.weight"),
        ("dilated.1.weight", "2.weight"),
        ("dilated.2.weight", "3.weight"),
        ("out.weight", ".weight"),
        ("out.bias", ".bias"),
    )
}


def expand_slowly(weights, x):
    """The three groups, one convolution after the other, from the equations."""
    groups = [x]
    for branch in (1, 2):
        seen = torch.zeros(())
        for place, dilation in enumerate((1, 2, 3), start=1):
            seen = seen + functional.conv2d(
                x, weights[f"FC{branch}{place}.weight"], padding=dilation, dilation=dilation
            )
        hidden = (seen / 3).relu()
        groups.append(functional.conv2d(hidden, weights[f"FC{branch}.weight"], weights[f"FC{branch}.bias"]))
    return torch.cat(groups)


@pytest.mark.parametrize(("name", "training"), [("dee_64_eval", False), ("dee_64_train_no_dropout", True)])
def test_the_expansion_equals_the_original(golden, assert_matches, name, training):
    case, weights = golden("modules_deen", name), golden("modules_deen", "dee_64_eval").param
    expansion = Expansion(64, dropout=0.0 if training else 0.5).train(training)
    expansion.load_state_dict({ours: weights[theirs] for ours, theirs in THEIRS.items()})
    (x,) = case.leaves("x")
    y = expansion(x)
    (y * case.inputs["probe_y"]).sum().backward()
    assert_matches(y, case.out["y"], 2e-4)
    assert_matches(x.grad, case.grad["x"], 1e-3)
    for ours, tensor in expansion.named_parameters():
        if f"param.{THEIRS[ours]}" in case.grad:
            assert_matches(tensor.grad, case.grad[f"param.{THEIRS[ours]}"], 1e-3)


def test_the_expansion_equals_a_slow_transcription_on_other_sizes(rng):
    expansion = Expansion(8).double().eval()
    weights = {theirs: expansion.get_parameter(ours) for ours, theirs in THEIRS.items()}
    x = torch.randn(3, 8, 5, 7, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(expansion(x), expand_slowly(weights, x))


def test_the_originals_come_first_and_are_not_changed_in_evaluation(rng):
    x = torch.randn(2, 8, 4, 4, generator=rng)
    with torch.no_grad():
        expanded = Expansion(8).eval()(x)
    assert expanded.shape == (6, 8, 4, 4)
    assert torch.equal(expanded[:2], x)


def test_dropout_in_training_also_meets_the_originals(rng):
    x = 1 + torch.rand(2, 8, 16, 16, generator=rng)
    torch.manual_seed(0)
    with torch.no_grad():
        expanded = Expansion(8, dropout=0.5)(x)
    dropped = expanded[:2] == 0
    assert 0.3 < dropped.float().mean() < 0.7
    torch.testing.assert_close(expanded[:2][~dropped], 2 * x[~dropped])


def test_the_expansion_has_the_published_number_of_parameters():
    with torch.device("meta"):
        counts = [sum(p.numel() for p in Expansion(width).parameters()) for width in (1024, 512)]
    assert counts == [14_682_112, 3_671_040]


def test_branches_start_with_kaiming_weights_by_inputs():
    torch.manual_seed(1)
    branch = Expansion(64).branches[0]
    for convolution in (*branch.dilated, branch.out):
        fan_in = convolution.weight[0].numel()
        assert convolution.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)


def test_channels_that_cannot_be_divided_by_four_are_refused():
    with pytest.raises(RecipeError, match="expansion of 6 channels"):
        Expansion(6)


def test_under_autocast_the_expansion_stays_close_and_in_one_type(rng):
    x = torch.randn(2, 16, 6, 6, generator=rng)
    expansion = Expansion(16).eval()
    with torch.no_grad():
        expected = expansion(x)
        with torch.autocast("cpu", torch.bfloat16):
            inside = expansion(x.contiguous(memory_format=torch.channels_last))
    assert inside.dtype == torch.bfloat16
    torch.testing.assert_close(inside.float(), expected, rtol=0.05, atol=0.05)


def test_with_a_shortcut_branches_begin_as_the_original_and_learn_apart(rng):
    expansion = Expansion(8, dropout=0.0, shortcut=True)
    x = torch.randn(2, 8, 4, 4, generator=rng)
    assert torch.equal(expansion(x), x.repeat(3, 1, 1, 1))
    (expansion(x) * torch.randn(6, 8, 4, 4, generator=rng)).sum().backward()
    first, second = (branch.get_parameter("out.weight").grad for branch in expansion.branches)
    assert first.abs().sum() > 0
    assert not torch.allclose(first, second)


def test_with_a_shortcut_a_branch_is_added_to_the_original(rng):
    plain, with_shortcut = Expansion(8).eval(), Expansion(8, shortcut=True).eval()
    with_shortcut.load_state_dict(plain.state_dict())
    x = torch.randn(2, 8, 4, 4, generator=rng)
    expected = plain(x) + torch.cat([torch.zeros_like(x), x, x])
    torch.testing.assert_close(with_shortcut(x), expected)
