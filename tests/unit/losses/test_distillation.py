import math

import pytest
import torch

from tapetum.losses.distillation import distillation


@pytest.mark.parametrize(("suffix", "dtype", "tolerance"), [("", torch.float32, 2e-5), ("_f64", torch.float64, 1e-9)])
def test_distillation_equals_the_original_and_the_teacher_has_no_gradient(
    golden, assert_matches, suffix, dtype, tolerance
):
    case = golden("losses_classification", "idf_distillation_kl")
    night, enhanced, fused = case.leaves("v", "e", "f", dtype=dtype)
    terms = {"v": distillation(night, fused), "e": distillation(enhanced, fused)}
    loss = terms["v"] + terms["e"]
    loss.backward()
    assert_matches(loss, case.out[f"loss{suffix}"], tolerance)
    for name, student in (("v", night), ("e", enhanced)):
        assert_matches(terms[name], case.out[f"term_{name}{suffix}"], tolerance)
        assert_matches(student.grad, case.grad[f"{name}{suffix}"], tolerance)
    assert not case.grad[f"f{suffix}"].any()
    assert fused.grad is None


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_distillation_equals_a_slow_loop(rng, reduction, temperature):
    student, teacher = torch.randn(2, 5, 4, generator=rng, dtype=torch.float64)
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p = [math.exp(x / temperature) / sum(math.exp(y / temperature) for y in t) for x in t]
        q = [math.exp(x / temperature) / sum(math.exp(y / temperature) for y in s) for x in s]
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) * temperature**2
    ours = distillation(student, teacher, temperature=temperature, reduction=reduction)
    assert float(ours) == pytest.approx(total / (5 if reduction == "mean" else 1), rel=1e-12)


def test_the_teacher_learns_only_when_it_is_not_detached(rng):
    student, teacher = torch.randn(2, 5, 4, generator=rng)
    teacher.requires_grad_()
    distillation(student, teacher, detach_teacher=False).backward()
    assert teacher.grad.abs().sum() > 0


def test_classes_that_the_student_rules_out_stay_finite():
    loss = distillation(torch.tensor([[0.0, -200.0]]), torch.tensor([[0.0, 0.0]]))
    assert float(loss) == pytest.approx(100 - math.log(2), rel=1e-5)
