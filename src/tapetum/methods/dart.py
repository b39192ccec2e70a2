"""DART: two AGW networks, each of which tells the other which of its training pictures carry a wrong name.

Source: "Learning with Twin Noisy Labels for Visible-Infrared Person Re-Identification" (Yang et al., CVPR 2022) and its
release, XLearning-SCU/2022-CVPR-DART.
Differs: what `agw_vi` says of the network, and
- the sampler decides whether each network has batches of its own, as in the release, and whether the first epoch is of
  all pictures, shuffled: `cross_modality_lots` does both, `cross_modality` neither. A step is one of both networks,
  where the release trains one for an epoch and then the other;
- losses of all pictures are compared with batch norms at rest; the release leaves its networks in training mode there,
  which ``look`` "training" does too. The networks' statistics then depend on how pictures are divided; here each is
  looked at once, in batches that mix the modalities by their numbers, where the release pairs them, the smaller
  modality's pictures repeatedly;
- where the losses of a modality are all alike, nothing says that a picture is wrong, and none is;
- random positives are a function of pictures, epoch and step, so that the order of a batch has no part in them;
- a picture that has no other of its person in the batch is no anchor;
- the release's mixture comes from scikit-learn and begins by k-means with random starts; here it begins with the best
  division into two, which on a line can be found;
- the second neck of the release, which nothing uses, is not here;
- people with fewer than K pictures of a modality are drawn with repetition, where the release draws others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import TrainingError
from tapetum.core.lots import SCATTER, draw_tickets, scatter
from tapetum.core.method import EpochStart, TrainingFacts
from tapetum.core.options import option
from tapetum.core.types import Batch, Modality
from tapetum.core.vectors import euclidean
from tapetum.layers.branch import HeadOutput
from tapetum.layers.non_local import InnerWidth
from tapetum.layers.unit_sums import join_unit_sums
from tapetum.methods import agw_vi
from tapetum.methods._official import NO_SCORES, OfficialFormat, Renaming, Tensors, read_tensor_size
from tapetum.methods._two_stream import RELEASED, Pooling, TwoStreamOptions, unused_tensors

SMALL = agw_vi.SMALL
VIEWS = (2, 1)  # visible pictures as they are and with exchanged channels; infrared ones
NETWORKS = 2
ITERATIONS, CONVERGED, LEAST_VARIANCE = 100, 1e-2, 5e-4  # of the mixture, as released
RANKS = 10  # how many negatives behind the nearest are looked at for a reliable one
DRAWS = 5  # of a positive in the place of an unreliable one


@dataclass(frozen=True)
class Options(TwoStreamOptions):
    """What a recipe may set under ``method:``; every default but `look` is the release's.

    A look in training mode moves the networks' statistics, by how pictures happen to be divided into batches.
    """

    pooling: Pooling = option("gem", "generalised mean of power 3; or 'average'")
    non_local: tuple[int, int, int, int] = option(
        agw_vi.Options.non_local, "blocks of each stage that one follows, counted from its end", least=0
    )
    non_local_width: InnerWidth = option("one", "the release's; 'half': of the stage's channels")
    warmup_epochs: int = option(1, "at first, with cross-entropy alone and all names believed", least=0)
    triplet_margin: float = option(0.3, "of the triplets, before the necks", least=0)
    threshold: float = option(0.5, "probability from which a name is believed by the triplets", least=0, most=1)
    redraw_anchor: bool = option(True, "a positive that is drawn anew may be the anchor itself, as released")
    look: Literal["evaluation", "training"] = option(
        "evaluation", "mode of the batch norms in the look at all pictures; training: as released"
    )


@dataclass(frozen=True)
class Output:
    """What both networks give of B pictures; of a batch in two lots each gives it of its own B.

    Attributes:
        features: (2, B, D) float32 pooled features.
        embeddings: (2, B, D) float32, the same after the necks.
        scores: (2, B, num_ids) float32 class scores.
    """

    features: Tensor
    embeddings: Tensor
    scores: Tensor

    @property
    def logits(self) -> Tensor:
        """(B, num_ids) class scores: the mean of both networks', which means something where they saw the same."""
        return self.scores.mean(0)


# Which names are believed


def clean_probabilities(losses: Tensor) -> Tensor:
    """Of each loss the probability that it belongs to the lower of two normal distributions, fitted to all.

    Args:
        losses: (N,) in 0..1.
    Returns:
        (N,) in the type of the losses; ones where all are alike.
    Source: expectation maximisation as in scikit-learn's ``GaussianMixture``, with the release's settings.
    """
    values = losses.double()
    if len(values) < 2 or bool(values.max() == values.min()):
        return torch.ones_like(losses)
    upper = (values[:, None] > _best_division(values)).double()
    shares = torch.cat([1 - upper, upper], dim=1)  # (N, 2)
    before = torch.tensor(-torch.inf, dtype=values.dtype, device=values.device)
    for _ in range(ITERATIONS):
        means, scores = _score(values, shares)
        likelihoods = scores.logsumexp(1)
        shares = (scores - likelihoods[:, None]).exp()
        now = likelihoods.mean()
        if bool((now - before).abs() < CONVERGED):
            break
        before = now
    means, scores = _score(values, shares)
    return scores.softmax(1)[:, means.argmin()].to(losses.dtype)


def _score(values: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """(2,) means, and (N, 2) logarithms of density times weight, of the normal distributions with these shares."""
    counts = shares.sum(0) + 10 * torch.finfo(values.dtype).eps
    means = shares.T @ values / counts
    apart = (values[:, None] - means).square()
    variances = (shares * apart).sum(0) / counts + LEAST_VARIANCE
    scores = -(apart / variances + (2 * torch.pi * variances).log()) / 2 + (counts / len(values)).log()
    return means, scores


def _best_division(values: Tensor) -> Tensor:
    """The value up to which the lower of two groups goes, whose squared distances to their means are least in sum."""
    ordered = values.sort().values
    below = torch.arange(1, len(values), dtype=values.dtype, device=values.device)
    sums = ordered.cumsum(0)
    lower, total = sums[:-1], sums[-1]
    between = lower.square() / below + (total - lower).square() / (len(values) - below)
    between = between.masked_fill(ordered[1:] == ordered[:-1], -torch.inf)  # equal values stay together
    return ordered[between.argmax()]


# Triplets that know that names may be wrong


class Positives(NamedTuple):
    """Random positives of each picture of a batch.

    Attributes:
        first: (B,) another picture of the same name; -1 where there is none.
        again: (B,) what is taken where the first is not believed.
    """

    first: Tensor
    again: Tensor


def draw_positives(batch: Batch, believed: Tensor, salt: int, *, redraw_anchor: bool = True) -> Positives:
    """Draw a positive for each picture, and one in its place: the first of five draws that is believed, else the last.

    Args:
        batch: by whose rows, views, epoch and step the draws are made.
        believed: (B,) bool.
        salt: other draws for another number.
        redraw_anchor: the five draws may give the anchor itself.
    """
    same = batch.labels[:, None] == batch.labels[None, :]
    others = same & ~torch.eye(len(batch), dtype=torch.bool, device=same.device)
    own = draw_tickets(batch)
    tickets = own[:, None] * SCATTER[2] + own[None, :]  # of anchors and others, not the same both ways
    turns = torch.arange(1 + DRAWS, device=own.device)[:, None, None] + (1 + DRAWS) * salt
    tickets = scatter(tickets + turns * SCATTER[1])  # (1 + draws, B, B)
    least = torch.iinfo(torch.int64).min
    first = tickets[0].masked_fill(~others, least).argmax(1)
    again = tickets[1:].masked_fill(~(same if redraw_anchor else others), least).argmax(2)  # (draws, B)
    chosen = believed[again].long()
    chosen[-1] = 1
    again = again.gather(0, chosen.argmax(0)[None])[0]
    return Positives(torch.where(others.any(1), first, -1), again)


def robust_triplet(
    features: Tensor,
    predicted: Tensor,
    labels: Tensor,
    believed: Tensor,
    draws: Positives,
    *,
    margin: float = 0.3,
) -> Tensor:
    """Triplets of believed anchors, a drawn positive and the nearest negative, by which of the two are believed.

    With p and n the distances to the positive and the negative and m the margin, the mean over anchors of
    [p' - n' + m]+, where p' and n' are

    - both believed: p and n;
    - the positive alone: (p + n) / 2 and the next believed negative, where the negative is predicted to be the
      anchor's person; else p and n;
    - the negative alone: a positive drawn again, and (p + n) / 2;
    - none: n and p, exchanged, where the negative is predicted to be the anchor's person; else as the line before.

    Args:
        features: (B, D), not normalised; Euclidean distances.
        predicted: (B,) class of the highest score.
        labels: (B,) int64.
        believed: (B,) bool.
        draws: see `draw_positives`.
    Returns:
        A scalar; zero where no picture is an anchor.
    Raises:
        TrainingError: the batch shows one identity only, so that there is no negative.
    """
    same = labels[:, None] == labels[None, :]
    if bool(same.all()):
        raise TrainingError("dart: the batch shows one identity only; use the sampler cross_modality with ids >= 2")
    distances = euclidean(features, features)
    apart, order = distances.masked_fill(same, torch.inf).sort(1)
    anchors = believed & (draws.first >= 0)
    first = draws.first.clamp(min=0)
    positive, negative = distances.gather(1, first[:, None])[:, 0], apart[:, 0]
    sure_positive, sure_negative = believed[first], believed[order[:, 0]]
    mistaken = predicted[order[:, 0]] == labels
    halfway = (positive + negative) / 2

    further = apart[:, 1 : 1 + RANKS]
    found = (believed[order[:, 1 : 1 + RANKS]] & further.isfinite()).long()
    looked = further.isfinite().sum(1, keepdim=True)  # where none is believed, the last that was looked at
    place = torch.where(found.any(1, keepdim=True), found.argmax(1, keepdim=True) + 1, looked)
    beyond = apart.gather(1, place)[:, 0]
    drawn = distances.gather(1, draws.again[:, None])[:, 0]

    exchanged = ~sure_positive & ~sure_negative & mistaken
    replaced = ~sure_positive & ~exchanged
    turned = sure_positive & ~sure_negative & mistaken
    near = torch.where(exchanged, negative, torch.where(replaced, drawn, torch.where(turned, halfway, positive)))
    far = torch.where(exchanged, positive, torch.where(replaced, halfway, torch.where(turned, beyond, negative)))
    hinges = (near - far + margin).clamp(min=0)
    return hinges.masked_fill(~anchors, 0.0).sum() / anchors.sum().clamp(min=1)


class Method(nn.Module):
    """Two of AGW's networks, and what each thinks of the name of each training picture.

    Attributes:
        clean: (2, N, views) by network, picture and view: the probability that its name is right.
    """

    filling = len(Modality)  # numbers, see `embed`

    clean: Tensor

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__()
        self.options = options
        self.facts, self.num_ids = facts, facts.num_ids
        self.networks = nn.ModuleList(agw_vi.Method(network_options(options), facts) for _ in range(NETWORKS))
        views = max(*VIEWS, facts.num_views)
        self.register_buffer("clean", torch.ones(NETWORKS, facts.num_pictures, views), persistent=False)

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Output:
        """Both networks on pictures of both modalities in any order."""
        return _join([network(images, modalities, camids) for network in self.networks])

    def begin_epoch(self, start: EpochStart) -> None:
        """After the warm-up: each network's losses of all pictures and views, and which of them are low."""
        if start.epoch < self.options.warmup_epochs:
            return
        self.train(self.options.look == "training")
        rows, views, told = [], [], []
        for batch in start.pictures(augmented=True):
            losses = label_losses(self.forward(batch.images, batch.modalities, batch.camids).scores, batch.labels)
            rows.append(batch.rows)
            views.append(batch.views)
            told.append(torch.stack([*losses, batch.modalities.float(), torch.ones_like(losses[0])], dim=1))
        found = start.gather(torch.cat(rows), torch.cat(told), torch.cat(views))  # (N, views, 4)
        self.clean.fill_(1.0)
        for modality in Modality:
            seen = (found[..., 3] > 0) & (found[..., 2] == modality)
            for number in range(NETWORKS):
                losses = scale_views(found[..., number], seen)
                self.clean[number, :, : seen.shape[1]][seen] = clean_probabilities(losses[seen])

    def forward_batch(self, batch: Batch) -> Output:
        """Each network on its lot of the batch; both on all pictures where there is one lot."""
        made = [
            network(own.images, own.modalities, own.camids)
            for network, own in zip(self.networks, divide_by_network(batch), strict=True)
        ]
        return _join(made)

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Of each network the cross-entropy, weighted by what the other thinks of each name, and triplets.

        In the warm-up cross-entropy alone, with all weights one.

        Raises:
            TrainingError: after the warm-up, the batch's pictures are none that the networks know.
        """
        options, seen = self.options, divide_by_network(batch)
        each = [
            label_losses(scores[None], own.labels, smoothing=options.label_smoothing)[0]
            for scores, own in zip(output.scores, seen, strict=True)
        ]
        if batch.epoch < options.warmup_epochs:
            return {f"id_{number + 1}": losses.mean() for number, losses in enumerate(each)}
        if not (self.facts.num_pictures and bool((batch.rows >= 0).all())):
            raise TrainingError(
                "dart: this network was built without training pictures, or the batch does not say which it shows, so "
                "nothing is known of their names; train with `tapetum train`"
            )
        losses = {}
        for number, own in enumerate(seen):
            weights = self.clean[NETWORKS - 1 - number, own.rows, own.views]
            losses[f"id_{number + 1}"] = (weights * each[number]).mean()
            if options.triplet_weight:
                believed = weights >= options.threshold
                draws = draw_positives(own, believed, number, redraw_anchor=options.redraw_anchor)
                predicted = output.scores[number].argmax(1)
                triplets = robust_triplet(
                    output.features[number], predicted, own.labels, believed, draws, margin=options.triplet_margin
                )
                losses[f"triplet_{number + 1}"] = options.triplet_weight * triplets
        return losses

    def embed(self, images: Tensor, modalities: Tensor, camids: Tensor, *, mirror: bool = False) -> Tensor:
        """Vectors for search, (B, D + 2) float32 of unit length.

        The inner product of a visible and an infrared picture is the mean of the similarities of either network's
        vector of the one (and of its mirror) with either's of the other; see `join_unit_sums`.
        """
        pictures = [images, images.flip(3)] if mirror else [images]
        parts = [
            cast(agw_vi.Method, network).embed(seen, modalities, camids)
            for seen in pictures
            for network in self.networks
        ]
        return join_unit_sums(torch.stack(parts), modalities)

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Backbone and head, as AGW's, of both networks."""
        each = [cast(agw_vi.Method, network).parameter_groups() for network in self.networks]
        return {name: [weights for groups in each for weights in groups[name]] for name in each[0]}

    def load_pretrained(self, source: str) -> None:
        """Fill the stems and the trunk of both networks alike; necks and classifiers differ."""
        for network in self.networks:
            cast(agw_vi.Method, network).load_pretrained(source)


def network_options(options: Options) -> agw_vi.Options:
    """Those of one network."""
    own = {each.name for each in fields(options)}
    return agw_vi.Options(
        **{each.name: getattr(options, each.name) for each in fields(agw_vi.Options) if each.name in own}
    )


def _join(made: Sequence[HeadOutput]) -> Output:
    parts = zip(*((each.feature, each.embedding, each.logits) for each in made), strict=True)
    return Output(*map(torch.stack, parts))


def divide_by_network(batch: Batch) -> list[Batch]:
    """The pictures that each network learns from: of two lots one each, else all.

    Raises:
        TrainingError: the lots are not two of the same size.
    """
    sizes = batch.lots.bincount().tolist()
    if len(sizes) == 1:
        return [batch] * NETWORKS
    if len(sizes) != NETWORKS or len(set(sizes)) > 1:
        raise TrainingError(
            f"dart: the batch has lots of {sizes} pictures, but there are {NETWORKS} networks; set sampler.lots to "
            f"{NETWORKS}, or sampler.name to cross_modality"
        )
    return [batch.select(batch.lots == lot) for lot in range(NETWORKS)]


def label_losses(scores: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each picture by each network, (2, B) float32, of (2, B, num_ids) scores."""
    labels = labels.repeat(len(scores))
    losses = functional.cross_entropy(scores.flatten(0, 1).float(), labels, reduction="none", label_smoothing=smoothing)
    return losses.view(len(scores), -1)


def scale_views(losses: Tensor, seen: Tensor) -> Tensor:
    """(N, views) losses, of each view from 0 (the least of those seen) to 1; of equal ones all 0.

    Args:
        losses: (N, views).
        seen: (N, views) bool, which count; the others come out as they may.
    """
    least = losses.masked_fill(~seen, torch.inf).amin(0)
    most = losses.masked_fill(~seen, -torch.inf).amax(0)
    return (losses - least) / (most - least).clamp(min=torch.finfo(losses.dtype).tiny)


# Checkpoints of the release: two files of 1030 tensors, AGW's and a neck that nothing uses.
FORMAT = "dart-official"
FILES = ("net1", "net2")
UNUSED_NECK = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
RENAMING: Renaming = tuple(
    (f"networks.{number}.{ours}", f"{file}.{theirs}")
    for number, file in enumerate(FILES)
    for ours, theirs in agw_vi.RENAMING
)


def read_architecture(state: Tensors, place: str) -> tuple[Options, dict[str, Any]]:
    """The number of identities."""
    return Options(), {"num_ids": read_tensor_size(state, f"{FILES[0]}.classifier.weight", place)}


def list_unused(options: Options, used: Tensors) -> dict[str, Tensor]:
    """The rest of the ResNets, and the second neck, of both files."""
    necks = {f"bottleneck_2.{name}": used[f"{FILES[0]}.bottleneck.{name}"] for name in UNUSED_NECK}
    rest = unused_tensors(options.backbone) | {name: torch.zeros_like(tensor) for name, tensor in necks.items()}
    return {f"{file}.{name}": tensor for file in FILES for name, tensor in rest.items()}


OFFICIAL_FORMATS = {
    FORMAT: OfficialFormat(
        FORMAT, "dart", Method, Options, read_architecture, lambda _: RENAMING, "dart_sysu",
        {206: "dart_regdb", 713: "dart_llcm"}, "net", list_unused, released=RELEASED, files=FILES,
        needs_unused=tuple(f"{file}.bottleneck_2." for file in FILES),  # by it a file of DART is told from one of AGW
        scores={**NO_SCORES, "optimizer": {}},
    )
}  # fmt: skip
