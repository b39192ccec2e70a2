"""Centre clustering: pictures near their person's centre in the batch, and the centres of two people apart."""

import torch
from torch import Tensor
from torch.nn import functional

from tapetum.core.errors import TrainingError
from tapetum.core.vectors import euclidean

NEAREST = 1e-12  # squared distance below which a root has no gradient


def cluster_around_centres(features: Tensor, labels: Tensor, *, margin: float) -> Tensor:
    """Distance of pictures to their person's centre in the batch, and what other people's centres lack of the margin.

    Mean over pictures of |x - c| plus mean over ordered pairs of people of max(0, margin - |c - c'|), Euclidean.

    Args:
        features: (B, D), not normalised; rows in any order, of both modalities.
        labels: (B,) int64.
    Raises:
        TrainingError: the batch shows one identity only.
    Source: Wu et al., "Discover Cross-Modality Nuances for Visible-Infrared Person Re-Identification", CVPR 2021.
    """
    known, classes = torch.unique(labels, return_inverse=True)
    count = len(known)
    if count < 2:
        raise TrainingError("centre loss: the batch shows one identity only; set sampler.ids to 2 or more")
    members = functional.one_hot(classes, count).to(features.dtype)
    centres = (members / members.sum(0)).T @ features
    own = (features - centres[classes]).square().sum(1).clamp(min=NEAREST).sqrt()
    lacking = functional.relu(margin - euclidean(centres, centres))
    others = ~torch.eye(count, dtype=torch.bool, device=labels.device)
    return own.mean() + lacking[others].mean()
