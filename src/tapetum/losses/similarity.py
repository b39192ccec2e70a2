"""Distillation of similarities: pictures lie to each other as they do for a teacher."""

import torch
from torch import Tensor

from tapetum.core.vectors import normalise


def similarity_distillation(student: Tensor, teacher: Tensor, *, detach_teacher: bool = True) -> Tensor:
    """Mean squared difference of the cosines between different pictures; 0 where there is only one picture.

    Student and teacher may be of different widths.

    Args:
        student: (B, D), of any length.
        teacher: (B, E), of any length.
        detach_teacher: the gradient stops here, at the teacher's vectors.
    Source: Tung and Mori, ICCV 2019 (similarity-preserving distillation), with cosines, by which a search ranks, in
        place of inner products scaled row by row, and without a picture's similarity to itself, which is always 1.
    """
    teacher = teacher.detach() if detach_teacher else teacher
    own, taught = normalise(student), normalise(teacher)
    errors = (own @ own.T - taught @ taught.T).square()
    count = len(errors)
    others = ~torch.eye(count, dtype=torch.bool, device=errors.device)
    return errors.where(others, 0.0).sum() / max(count * (count - 1), 1)
