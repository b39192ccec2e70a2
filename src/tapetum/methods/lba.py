"""LbA: the two-stream network, which in training builds each picture's maps again out of the other modality's.

Source: "Learning by Aligning: Visible-Infrared Person Re-identification using Cross-Modal Correspondences" (Park et
al., ICCV 2021) and its release, in which the part that is new is called CMAlign.
Differs: pictures of both modalities come in one batch in any order, and partners are drawn by label and modality; the
two ResNets of which the release uses the stem alone are not kept, and
- the dense triplets follow the paper: a picture's own mask weighs its own places. In the release every mask weighs
  every picture's places; `dense_form` "released" does so, without forming the products of all pairs of pictures;
- their distance is over channels, as it was when the release was written. On present PyTorch its training does not run,
  because the criterion that it takes reduces another axis;
- partners follow from the rows of the pictures and the step, so that the losses depend on nothing else, and one draw
  serves both modalities; people may have unequal numbers of pictures;
- the neck sees a batch's features before its reconstructions, which in the release come first.
Mirrored pictures are not part of its test; where a recipe asks for them, raw vectors are summed.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from tapetum.core.errors import TrainingError
from tapetum.core.options import option
from tapetum.core.types import Batch, Modality
from tapetum.layers.branch import HeadOutput
from tapetum.methods import two_stream
from tapetum.methods._two_stream import Pooling, TestFeature

SMALL = two_stream.SMALL
LAYERS = ("layer3", "layer4")  # whose maps are aligned: the last two stages'
SMALLEST = 1e-12  # length that is divided by, and what a range of values has more
SHIFT = 1e-6  # of every number before a distance, as in PyTorch's pairwise distances, which the release takes


@dataclass(frozen=True)
class Options(two_stream.Options):
    """What a recipe may set under ``method:``: the two-stream network's options and these."""

    pooling: Pooling = option("gem", "generalised mean of power 3; or 'average'")
    test_feature: TestFeature = option(
        "backbone", "'backbone': before the neck; 'head': behind it; 'both': one beside the other"
    )
    temperature: float = option(50.0, "factor on the cosines of places inside the softmax", above=0)
    rebuilt_weight: float = option(1.0, "of cross-entropy of rebuilt maps; 0 switches the term off", least=0)
    dense_weight: float = option(0.5, "of the dense triplets; 0 switches the term off", least=0)
    dense_margin: float = option(0.3, "of the dense triplets", least=0)
    dense_form: Literal["paper", "released"] = option(
        "paper", "a mask weighs its own picture's places; 'released': those of all pictures"
    )


@dataclass(frozen=True)
class Output(HeadOutput):
    """What the network gives.

    Attributes:
        maps: of the last two stages, by the names in `LAYERS`.
        computed_in: what autocast computed it in; None: without autocast.
    """

    computed_in: torch.dtype | None = None


@dataclass(frozen=True)
class Alignment:
    """Maps of B pictures of h w = N places against those of a positive and a negative partner each.

    Attributes:
        rebuilt: (B, C, h, w): where the picture's mask is one, what the positive partner has at the matching places;
            where it is zero, the picture itself.
        distances: (2, B, N) of each place to what was rebuilt there from the positive and from the negative partner.
        masks: (B, N) in 0..1: how much a place shows the person in the picture and in the positive partner; without
            gradient.
    """

    rebuilt: Tensor
    distances: Tensor
    masks: Tensor


def stretch(values: Tensor) -> Tensor:
    """Each row of (B, N) values moved to 0..1; a row of equal ones is zero."""
    low, high = values.aminmax(dim=1, keepdim=True)
    return (values - low) / (high - low + SMALLEST)


def align(
    maps: Tensor, positive: Tensor, negative: Tensor, *, temperature: float, warp_in: torch.dtype | None = None
) -> Alignment:
    """Dense correspondences of each picture with its two partners, and what they make of its map.

    A place matches all places of a partner, by a softmax of the cosines. Two pictures that are partners of each other
    share their products. Maps are not copied to be normalised, and of what a partner makes of one, no more is formed
    than is rebuilt: with r = q - sum_j P_ij k_j, the distance |M r| follows from
    |r|^2 = |q|^2 - 2 sum_j P_ij (q . k_j) + sum_jl P_ij P_il (k_j . k_l), whose products are those of the cosines, and
    those of each picture with itself.

    Args:
        maps: (B, C, h, w) float32 or better.
        positive: (B,) int64, the place in the batch of each picture's positive partner.
        negative: (B,) int64.
        temperature: factor on the cosines inside the softmax.
        warp_in: what the positive partners' maps are averaged in; None: as they are.
    """
    places = maps.permute(0, 2, 3, 1).flatten(1, 2).contiguous()  # (B, N, C); of channels-last maps a view
    own = _multiply_by_itself(places)  # (B, N, N)
    squares, sums = own.diagonal(dim1=1, dim2=2), places.sum(2)  # (B, N)
    lengths = squares.clamp(min=SMALLEST**2).sqrt()
    pair = torch.stack([positive, negative])
    products = _multiply_partners(places, pair)  # (2, B, N, N)
    match = (products * ((temperature / lengths)[:, :, None] / lengths[pair][:, :, None])).softmax(3)
    shown = stretch(lengths.detach())
    with torch.autocast(maps.device.type, dtype=warp_in, enabled=warp_in is not None):
        warped = torch.bmm(match[0], places[positive])
    rebuilt = torch.lerp(places, warped.to(places.dtype), shown[:, :, None]).mT.reshape(maps.shape)
    heard = (match * (match @ own[pair] - 2 * products)).sum(3)  # (2, B, N)
    missing = sums - (match @ sums[pair][..., None])[..., 0]
    distances = shown.square() * (squares + heard).clamp(min=0) + 2 * SHIFT * shown * missing
    distances = (distances + SHIFT**2 * places.shape[2]).clamp(min=SHIFT**2).sqrt()
    masks = stretch(shown * torch.bmm(match[0].detach(), shown[positive][:, :, None])[:, :, 0])
    return Alignment(rebuilt, distances, masks)


def _multiply_by_itself(places: Tensor) -> Tensor:
    """(B, N, N) products of the places of each picture, whose gradient must be symmetric: half of it is computed."""
    products = torch.bmm(places, places.detach().mT)
    return 2 * products - products.detach()


def _multiply_partners(places: Tensor, pair: Tensor) -> Tensor:
    """(S, B, N, N) products of each picture's places with its S partners', (S, B); those of two pictures once."""
    anchor = torch.arange(len(places), device=pair.device).expand_as(pair)
    low, high = torch.minimum(anchor, pair), torch.maximum(anchor, pair)
    codes, which = torch.unique(low * len(places) + high, return_inverse=True)
    products = torch.bmm(places[codes // len(places)], places[codes % len(places)].mT)
    return torch.where((anchor == low)[:, :, None, None], products[which], products.mT[which])


def dense_triplet(alignment: Alignment, *, margin: float = 0.3, form: Literal["paper", "released"] = "paper") -> Tensor:
    """Places shown in picture and positive partner are nearer to what that one, and not a stranger, makes of them.

    Args:
        margin: by how much nearer.
        form: "paper": mean over pictures n and places of mask_n hinge_n; "released": of mask_n hinge_m over all pairs
            of pictures n and m.
    """
    nearer, farther = alignment.distances
    hinges = functional.relu(nearer - farther + margin)
    if form == "released":
        return (alignment.masks.mean(0) * hinges.mean(0)).mean()
    return (alignment.masks * hinges).mean()


def draw_partners(labels: Tensor, modalities: Tensor, pictures: Tensor, draw: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """For each picture one of the same person and one of another person, both of the other modality.

    A person's pictures of a modality have different positive partners, and negative ones of different people, as far
    as there are as many. Where all people have as many pictures of both modalities, a picture is the partner of its
    partners. Each choice is a hash of what is given: the same in whatever order the pictures come.

    Args:
        labels: (B,) int64.
        modalities: (B,) values of `Modality`.
        pictures: (B,) int64, what tells pictures apart; of two that are alike the first in the batch counts first.
        draw: numbers of which each gives another draw.
    Returns:
        (B,) and (B,) int64, places in the batch.
    Raises:
        TrainingError: the batch shows one identity only, or one of them in one modality only.
    """
    people, places = torch.unique(labels, return_inverse=True)
    count = len(people)
    apart = modalities[:, None] != modalities[None, :]
    same = labels[:, None] == labels[None, :]
    if count < 2:
        raise TrainingError(
            "lba: the batch shows one identity only, so that no picture has a negative partner; use a sampler of at "
            "least 2 identities, or set method.rebuilt_weight and method.dense_weight to 0"
        )
    if lonely := len(torch.unique(labels[~(same & apart).any(1)])):
        raise TrainingError(
            f"lba: {lonely} of {count} people of the batch are there in one modality only, so that their "
            "pictures have no positive partner; set sampler.name to cross_modality, or method.rebuilt_weight and "
            "method.dense_weight to 0"
        )
    keys = _hash(pictures, *draw)
    number = torch.arange(len(keys), device=keys.device)
    before = (keys[None, :] < keys[:, None]) | ((keys[None, :] == keys[:, None]) & (number[None, :] < number[:, None]))
    rank = (before & same & ~apart).sum(1)  # of each picture among its person's of its modality
    # People stand in a circle. Pictures of one rank look for strangers so many steps ahead, infrared ones back.
    circle = _hash(people, *draw).argsort()
    steps = 1 + _hash(people[:-1], *draw, 1).argsort()
    ahead = torch.where(modalities == Modality.VISIBLE, 1, -1) * steps[rank % (count - 1)]
    strangers = circle[(circle.argsort()[places] + ahead) % count]

    def find(person: Tensor) -> Tensor:
        offered = (places[None, :] == person[:, None]) & apart
        chosen: Tensor = (offered & (rank == (rank % offered.sum(1))[:, None])).int().argmax(1)
        return chosen

    return find(places), find(strangers)


def partners_in(batch: Batch, layer: int) -> tuple[Tensor, Tensor]:
    """Partners of a batch's pictures for the map of a layer, in the step that it belongs to; see `draw_partners`."""
    pictures = _hash(batch.rows).bitwise_xor(_hash(batch.views, 1))
    return draw_partners(batch.labels, batch.modalities, pictures, (batch.epoch, batch.step, layer))


def _hash(numbers: Tensor, *others: int) -> Tensor:
    """Numbers in 0..2^40 that show nothing of those they are made from."""
    state = numbers.long()
    for other in (*others, 0):
        state = (state + other) * -7046029254386353131  # an odd number without a pattern; products wrap around
        state = state ^ ((state >> 32) & 0xFFFFFFFF)
        state = state * -4658895280553007687
        state = state ^ ((state >> 29) & 0x7FFFFFFFF)
    return state & (2**40 - 1)


class Method(two_stream.Method):
    """Two stems, one trunk, BNNeck; alignment of its last two maps across modalities while it trains."""

    options: Options

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Output:  # noqa: ARG002
        """Pooled feature, embedding, class scores and the last two maps of pictures in any order."""
        maps = self.network.stem(self.normalise(images), modalities)
        *first, last = self.network.stages
        for stage in first:
            maps = stage(maps)
        higher = last(maps)
        made: HeadOutput = self.head(self.pool(higher))
        kind = maps.device.type
        computed_in = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        both = dict(zip(LAYERS, (maps, higher), strict=True))
        return Output(made.feature, made.embedding, made.logits, maps=both, computed_in=computed_in)

    def losses(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """The two-stream network's; cross-entropy of both rebuilt maps; dense triplets.

        Raises:
            TrainingError: the batch shows one identity only, or one of them in one modality only.
        """
        options = self.options
        losses = super().losses(output, batch)
        if not (options.rebuilt_weight or options.dense_weight):
            return losses
        dense = []
        computed_in = getattr(output, "computed_in", None)
        for number, name in enumerate(LAYERS):
            positive, negative = partners_in(batch, number)
            maps = output.maps[name]
            alignment = align(maps, positive, negative, temperature=options.temperature, warp_in=computed_in)
            dense.append(dense_triplet(alignment, margin=options.dense_margin, form=options.dense_form))
            if options.rebuilt_weight:
                rebuilt = alignment.rebuilt
                if name != LAYERS[-1]:  # a part of the network, in the precision of all of it
                    with torch.autocast(rebuilt.device.type, dtype=computed_in, enabled=computed_in is not None):
                        rebuilt = self.network.stages[-1](rebuilt)
                scores = self.head(self.pool(rebuilt)).logits
                loss = functional.cross_entropy(scores, batch.labels, label_smoothing=options.label_smoothing)
                losses[f"id_{name}"] = options.rebuilt_weight * loss
        if options.dense_weight:
            losses["dense"] = options.dense_weight * torch.stack(dense).sum()
        return losses


# Checkpoints of the release: the two-stream network's tensors.
OFFICIAL_FORMATS = {"lba-official": two_stream.released_format("lba", Method, Options)}
