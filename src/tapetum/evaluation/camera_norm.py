"""Vectors freed of what their camera does to all of them: its mean, or mean and deviation, taken out before the search.

Night cameras differ in tint, noise and exposure, and so do the vectors of whatever they see; among pictures of cameras
that a network was not trained on, this hides who is who. The statistics are of the test pictures, query and gallery
alike, whoever they show: no identity is looked at, yet the pictures of a camera must be there before the first search,
and a camera that meets few people loses part of what tells them apart.

Source: the idea is that of camera-based batch normalisation (Zhuang et al., ECCV 2020), which does so within the
network; here it is done once, to the vectors that are searched with.
"""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from tapetum.core.errors import ProtocolError
from tapetum.core.types import UNKNOWN_CAMERA, EmbeddingSet, Modality
from tapetum.core.vectors import normalise

CameraNorm = Literal["none", "centre", "standard", "modality"]
FEWEST = 8  # pictures of a camera; the mean of fewer says more about who passed than about the camera
ALL_CAMERAS = -2  # in the place of a camera's number
_LEAST_DEVIATION = 1e-6


def normalise_cameras(query: EmbeddingSet, gallery: EmbeddingSet, how: CameraNorm) -> tuple[EmbeddingSet, EmbeddingSet]:
    """Both sides with the statistics of each camera taken out, their vectors again of unit norm.

    Visible and infrared cameras of one number are two cameras. A picture that is on both sides counts twice.

    Args:
        how: "centre" takes out the mean, "standard" also divides by the deviation of each dimension; "modality" takes
            out the mean of all cameras of a modality together; "none" nothing.
    Raises:
        ProtocolError: a camera has fewer than `FEWEST` pictures, or it is not known which camera took a picture.
    """
    if how == "none":
        return query, gallery
    sides = query, gallery
    camids = torch.cat([side.camids.cpu() for side in sides])
    if how == "modality":
        camids = torch.full_like(camids, ALL_CAMERAS)
    if (camids == UNKNOWN_CAMERA).any():
        raise ProtocolError(
            f"camera_norm {how}: of {int((camids == UNKNOWN_CAMERA).sum())} pictures the camera is not known; take none"
        )
    keys = torch.stack([camids, torch.cat([side.modalities.cpu().long() for side in sides])])
    cameras, codes = torch.unique(keys, dim=1, return_inverse=True)
    vectors = torch.cat([side.vectors for side in sides])
    for camera, (camid, modality) in enumerate(cameras.T.tolist()):
        rows = (codes == camera).nonzero().squeeze(1).to(vectors.device)
        if len(rows) < FEWEST:
            kind = Modality(modality).name.lower()
            whose = f"the {kind} cameras have" if camid == ALL_CAMERAS else f"camera {camid} ({kind}) has"
            raise ProtocolError(
                f"camera_norm {how}: {whose} {len(rows)} test pictures; the statistics need {FEWEST} or more: take none"
            )
        vectors[rows] = _standardise(vectors[rows], how)
    count = len(query)
    return replace(query, vectors=vectors[:count]), replace(gallery, vectors=vectors[count:])


def _standardise(vectors: Tensor, how: CameraNorm) -> Tensor:
    """(n, D) vectors of one camera, float32 of unit norm."""
    deviations = vectors.double() - vectors.double().mean(0)
    if how == "standard":
        deviations /= deviations.square().mean(0).sqrt().clamp(min=_LEAST_DEVIATION)
    return normalise(deviations.to(vectors.dtype))
