import pytest
import torch

from tapetum.methods.ide import ClassBlock

RENAMED = {"add_block.0": "reduce", "add_block.1": "norm", "classifier.0": "classifier"}


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_classifier_head_equals_the_original(golden, assert_matches, mode):
    case = golden("modules_idf", f"classifier_head_{mode}_no_dropout")
    head = ClassBlock(24, 5, embedding_width=16, dropout=0.0).train(mode == "train")
    names = {f"{theirs}.{leaf}": f"{ours}.{leaf}" for theirs, ours in RENAMED.items() for leaf in LEAVES[ours]}
    head.load_state_dict({ours: case.param[theirs] for theirs, ours in names.items()})
    (x,) = case.leaves("x")
    output = head(x)
    probed = {"logits": output.logits, "feature": output.embedding}  # their feature is our embedding
    sum((value * case.inputs[f"probe_{name}"]).sum() for name, value in probed.items()).backward()
    for name, value in probed.items():
        assert_matches(value, case.out[name], 2e-4)
    assert_matches(x.grad, case.grad["x"], 1e-3)
    parameters = dict(head.named_parameters())
    largest = max(gradient.abs().max() for gradient in case.grad.values())
    for theirs, ours in names.items():
        if f"param.{theirs}" in case.grad:
            expected = case.grad[f"param.{theirs}"]
            torch.testing.assert_close(parameters[ours].grad, expected, rtol=1e-3, atol=1e-6 * float(largest))
        if f"after.{theirs}" in case.out:
            assert_matches(head.state_dict()[ours], case.out[f"after.{theirs}"], 2e-4)


LEAVES = {
    "reduce": ("weight", "bias"),
    "norm": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
    "classifier": ("weight", "bias"),
}


def test_a_fresh_head_has_the_originals_initial_distribution():
    torch.manual_seed(0)
    head = ClassBlock(2048, 300)
    assert head.reduce.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.01)  # kaiming, fan out, ReLU gain
    assert head.classifier.weight.std().item() == pytest.approx(0.001, rel=0.01)
    assert head.norm.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert not any(layer.bias.any() for layer in (head.reduce, head.norm, head.classifier))


def test_dropout_touches_the_class_scores_but_never_the_embedding(rng):
    head = ClassBlock(6, 3, embedding_width=64, dropout=0.9)
    x = torch.randn(8, 6, generator=rng)
    first, second = head(x), head(x)
    assert torch.equal(first.embedding, second.embedding)
    assert not torch.equal(first.logits, second.logits)


def test_under_autocast_the_head_computes_in_float32(rng):
    head = ClassBlock(6, 3, embedding_width=4).eval()
    x = torch.randn(8, 6, generator=rng)
    with torch.autocast("cpu", torch.bfloat16):
        output = head(x)
    assert torch.equal(output.logits, head(x).logits)
