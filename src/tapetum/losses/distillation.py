"""Distillation: a student's class probabilities follow a teacher's."""

from typing import Literal

from torch import Tensor
from torch.nn import functional


def distillation(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    detach_teacher: bool = True,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """KL(teacher || student) over the classes.

    Args:
        student_logits: (B, num_ids).
        teacher_logits: (B, num_ids).
        temperature: divides both logits; the loss is multiplied by its square.
        detach_teacher: the gradient stops here, at the teacher's logits (as in the released code, whose wrapping of
            the teacher's probabilities has this effect).
        reduction: over the batch.
    Source: IDF paper, illumination feature distillation; Hinton et al., 2015, for the temperature.
    """
    teacher_logits = teacher_logits.detach() if detach_teacher else teacher_logits
    student = functional.log_softmax(student_logits / temperature, dim=1)
    teacher = functional.log_softmax(teacher_logits / temperature, dim=1)
    divergence = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
    return (divergence.mean() if reduction == "mean" else divergence.sum()) * temperature**2
