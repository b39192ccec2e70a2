import math

import pytest
import torch

from tapetum.losses.similarity import similarity_distillation


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def test_similarity_distillation_equals_a_slow_loop_over_pairs_of_different_pictures(rng):
    student = torch.randn(5, 4, generator=rng, dtype=torch.float64)
    teacher = 3 * torch.randn(5, 7, generator=rng, dtype=torch.float64)
    s, t = student.tolist(), teacher.tolist()
    errors = [(cosine(s[i], s[j]) - cosine(t[i], t[j])) ** 2 for i in range(5) for j in range(5) if i != j]
    assert float(similarity_distillation(student, teacher)) == pytest.approx(sum(errors) / 20, rel=1e-12)


def test_vectors_that_are_turned_and_stretched_keep_their_similarities(rng):
    teacher = torch.randn(6, 4, generator=rng, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=rng, dtype=torch.float64)).Q
    student = teacher @ turn * torch.arange(1, 7, dtype=torch.float64)[:, None]
    assert float(similarity_distillation(student, teacher)) == pytest.approx(0, abs=1e-24)
    assert float(similarity_distillation(student.flip(1), teacher.roll(1, 0))) > 1e-3


def test_the_teacher_learns_only_when_it_is_not_detached(rng):
    for detach in (True, False):
        student, teacher = torch.randn(2, 5, 4, generator=rng).unbind()
        student.requires_grad_()
        teacher.requires_grad_()
        similarity_distillation(student, teacher, detach_teacher=detach).backward()
        assert student.grad.abs().sum() > 0
        assert (teacher.grad is None) is detach


def test_one_picture_and_equal_or_black_ones_give_a_finite_loss_and_gradient():
    one = torch.ones(1, 3, requires_grad=True)
    loss = similarity_distillation(one, torch.ones(1, 2))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(one.grad, torch.zeros(1, 3))
    nothing = torch.zeros(3, 4, requires_grad=True)
    loss = similarity_distillation(nothing, torch.ones(3, 2))
    loss.backward()
    assert loss.item() == pytest.approx(1)
    assert torch.isfinite(nothing.grad).all()
