"""Hi-CMD: what tells a person from others is taken apart from pose and illumination, by pictures drawn anew.

Of each picture a prototype (maps: shape and texture) and an attribute code are found, and the code has three parts:
style, pose and illumination. A decoder draws the picture of one modality from the prototype of the other, with codes of
which parts were exchanged between two pictures of one person; prototype and style are what people are told apart by.

Source: "Hi-CMD: Hierarchical Cross-Modality Disentanglement for Visible-Infrared Person Re-Identification" (Choi et
al., CVPR 2020) and its release, bismex/HiCMD, of which a description was at hand and not the code.
Differs:
- the release draws a pair of pictures of each of two people, and two visible and two infrared pictures of further
  people. Here a batch is that of the P x K sampler: `pairs` of its people, drawn by chance, are pairs, and all other
  pictures are the further ones, so that these show the same people in both modalities. With several pictures of a
  person, those that are as many-th by brightness are a pair; of one modality that has fewer, counting begins again;
- who is who is known with the losses alone, so that pictures are drawn there; `training.precision` reaches the codes of
  the pictures as they are, and all else is float32;
- of these, all pictures of the batch have codes, also those that are no pair; pictures that were drawn have batches of
  their own before the norms of the encoders, and among the erased ones they share the batch of the real ones;
- left open by the description, and chosen here: attribute encoders learn with the generators' rates; losses of both
  modalities, and scores of the discriminators' sizes, are summed; the cycle goes through the first pair of drawn
  pictures; a code that was exchanged is compared with the one found in the picture drawn with it, and both learn; the
  gradient penalty has a weight of its own, within no other; a discriminator's channels double in the last of its layers
  of stride 2; all paths of a prototype's last layer are normed; layers whose mean a norm takes away have no biases;
  weights begin as PyTorch begins them;
- maps that are one number, as of a black picture, send nothing back through the encoders' and the decoder's norms;
- names of the release's tensors are not known to us, so that its checkpoints are not read.
Mirrored pictures are not part of its test; where a recipe asks for them, raw vectors are summed.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import TrainingError
from tapetum.core.method import TrainingFacts, Turn
from tapetum.core.options import option, require
from tapetum.core.types import Batch, Modality
from tapetum.core.vectors import normalise
from tapetum.layers.backbones import build_backbone, load_backbone, pool_average
from tapetum.layers.erasing import erase
from tapetum.layers.image_blocks import AdaptiveNorm, InstanceNorm, Padding, ResidualBlock, ScaledJudges
from tapetum.layers.normalisation import Normalisation, Normalise
from tapetum.layers.two_stream import apply_by_modality, divide_backbone, output_width
from tapetum.layers.winograd import use_winograd
from tapetum.losses.least_squares import summed_least_squares
from tapetum.methods._mirrored import Mirrored
from tapetum.methods._translation import brightness, check_people, draw_rows, find_partners, split_by_modality

SMALL = {  # for tests, without chance
    "backbone": "test_resnet",
    "dilations": (1, 2, 3),
    "prototype_blocks": 1,
    "mixer_width": 8,
    "width": 32,
    "triplet_width": 16,
    "dropout": 0.0,
    "erasing_probability": 0.0,
    "discriminator_width": 4,
    "discriminator_blocks": 1,
    "discriminator_scales": 2,
    "pairs": 0,
}
TRAINING_ONLY = ("decoder", "discriminators")  # of the network; a training may begin with a checkpoint without them
SLOPE = 0.3  # of every leaky ReLU
REDUCTION = 4  # by which a prototype is smaller than its picture
QUARTERS = 4  # of an attribute code; each drives a residual block of the decoder
STYLE, STYLE_AND_POSE = 1 / 2, 3 / 4  # share of each quarter; what is left is illumination
PARTS = 16  # the smallest share of a code is one of so many


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``; every default is the release's."""

    backbone: str = option(
        "resnet50", "a plain ResNet or EfficientNet of timm; its first stage has a prototype's width"
    )
    normalisation: Normalisation = option("imagenet", "of pictures in 0..1; drawn ones are behind it, too")
    prototype_blocks: int = option(4, "residual blocks of a prototype encoder", least=0)
    dilations: tuple[int, int, int] = option((3, 6, 9), "of the paths that end a prototype encoder", least=1)
    mixer_width: int = option(512, "of the layers that turn a quarter of a code into a norm's statistics", least=1)
    width: int = option(2048, "numbers that are searched with", least=1)
    triplet_width: int = option(1024, "numbers that triplets compare", least=1)
    dropout: float = option(0.5, "behind the head's norm, in training", least=0, below=1)
    mixing: float = option(0.5, "initial share of the prototype in what people are told apart by", least=0, most=1)
    erasing_probability: float = option(
        0.5, "that a picture loses a rectangle before its person is asked", least=0, most=1
    )
    discriminator_width: int = option(32, "channels of a discriminator's first layer", least=1)
    discriminator_blocks: int = option(4, "residual blocks of a discriminator", least=0)
    discriminator_scales: int = option(3, "sizes of a picture, each half the last, that have a discriminator", least=1)
    pairs: int = option(2, "people of a batch, drawn by chance, whose pictures are drawn anew; 0: all", least=0)
    reconstruction_weight: float = option(50.0, "of pictures drawn from their own prototype", least=0)
    cross_weight: float = option(50.0, "of pictures drawn from the other modality's prototype", least=0)
    cycle_weight: float = option(50.0, "of pictures drawn from what was drawn", least=0)
    code_weight: float = option(10.0, "of codes that are found again in drawn pictures", least=0)
    prior_weight: float = option(1.0, "of the mean square of poses and illuminations", least=0)
    adversarial_weight: float = option(
        20.0, "of drawn pictures that pass for real, and of those told from real", least=0
    )
    penalty_weight: float = option(0.01, "of the discriminators' squared gradients at real pictures", least=0)
    triplet_weight: float = option(1.0, "0 switches the term off", least=0)
    triplet_margin: float = option(0.5, "between cosines", least=0)


@dataclass(frozen=True)
class Recognised:
    """What the head makes of N prototypes with styles.

    Attributes:
        embedding: (N, width) float32, for search; not of unit length.
        logits: (N, num_ids) float32 class scores.
        compared: (N, triplet width) float32, for triplets; not of unit length.
    """

    embedding: Tensor
    logits: Tensor
    compared: Tensor


@dataclass(frozen=True)
class Output:
    """What the encoders find.

    Attributes:
        pictures: (B, 3, H, W), normalised.
        prototypes: (B, C, H / 4, W / 4).
        attributes: (B, width of a code).
        described: None in training, which asks for the people of erased and of drawn pictures.
    """

    pictures: Tensor
    prototypes: Tensor
    attributes: Tensor
    described: Recognised | None

    @property
    def logits(self) -> Tensor:
        """(B, num_ids) class scores.

        Raises:
            TrainingError: the network is in training mode, in which only the losses classify.
        """
        if self.described is None:
            raise TrainingError("hi_cmd: in training mode pictures are classified by the losses alone; call eval()")
        return self.described.logits


@dataclass(frozen=True)
class Pairs:
    """Rows of a batch, int64.

    Attributes:
        rows: (P,) visible pictures, and (P,) the infrared pictures of the same people.
        further: (V,) visible and (I,) infrared ones that are in no pair.
    """

    rows: tuple[Tensor, Tensor]
    further: tuple[Tensor, Tensor]


def _convolve(
    before: int, after: int, size: int = 3, *, stride: int = 1, dilation: int = 1, bias: bool = True
) -> nn.Conv2d:
    padding = dilation * (size // 2)
    mode: Padding = "reflect" if padding else "zeros"
    return nn.Conv2d(before, after, size, stride, padding, dilation, bias=bias, padding_mode=mode)


class PrototypeEncoder(nn.Module):
    """Maps of a quarter of a picture's sides: four convolutions, residual blocks, and paths that see ever farther.

    Args:
        channels: of the maps; an eighth of them in the first layer.
        blocks: residual blocks, of half as many channels.
        dilations: of the paths.
    """

    def __init__(self, channels: int, blocks: int, dilations: Sequence[int]) -> None:
        super().__init__()
        first, half = channels // 8, channels // 2
        sizes = ((3, first, 2), (first, 2 * first, 1), (2 * first, 2 * first, 1), (2 * first, half, 2))
        stages = [self._norm(_convolve(before, after, stride=stride, bias=False)) for before, after, stride in sizes]
        residual = [ResidualBlock(half, InstanceNorm, padding="reflect", slope=SLOPE) for _ in range(blocks)]
        self.layers = nn.Sequential(*stages, *residual)
        path = channels // 4
        self.paths = nn.ModuleList([self._norm(_convolve(half, path, 1, bias=False))])
        for dilation in dilations:
            seeing = self._norm(_convolve(path, path, dilation=dilation, bias=False))
            self.paths.append(nn.Sequential(self._norm(_convolve(half, path, 1, bias=False)), seeing))
        self.fuse = _convolve(path * len(self.paths), channels, 1)

    @staticmethod
    def _norm(layer: nn.Conv2d) -> nn.Sequential:
        return nn.Sequential(layer, InstanceNorm(layer.out_channels), nn.LeakyReLU(SLOPE))

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, C, H / 4, W / 4) of (B, 3, H, W) normalised pictures."""
        maps = self.layers(pictures)
        fused: Tensor = self.fuse(torch.cat([path(maps) for path in self.paths], dim=1))
        return fused


class Decoder(nn.Module):
    """Draws a picture from a prototype and an attribute code, of which each quarter drives a residual block.

    Args:
        channels: of a prototype.
        code: numbers of an attribute code.
        mixer_width: of both layers between a quarter of it and a norm's statistics.
    """

    def __init__(self, channels: int, code: int, mixer_width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(channels, AdaptiveNorm, padding="reflect", slope=SLOPE) for _ in range(QUARTERS)
        )
        self.deviations, self.means = (
            nn.ModuleList(self._mixer(code // QUARTERS, mixer_width, 2 * channels) for _ in range(QUARTERS))
            for _ in range(2)
        )
        layers: list[nn.Module] = []
        for before in (channels, channels // 2):
            after = before // 2
            enlarged = _convolve(before, after, 5, bias=False)
            layers += [nn.Upsample(scale_factor=2), enlarged, nn.GroupNorm(1, after), nn.LeakyReLU(SLOPE)]
        last = channels // 4
        for _ in range(2):
            layers += [_convolve(last, last), nn.LeakyReLU(SLOPE)]
        self.draw = nn.Sequential(*layers, _convolve(last, 3, 1))

    @staticmethod
    def _mixer(before: int, width: int, after: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(before, width), nn.LeakyReLU(SLOPE), nn.Linear(width, width), nn.LeakyReLU(SLOPE),
            nn.Linear(width, after),
        )  # fmt: skip

    def forward(self, prototypes: Tensor, attributes: Tensor) -> Tensor:
        """(B, 3, 4 y, 4 x) normalised pictures of (B, C, y, x) prototypes with (B, width of a code) attributes."""
        maps = prototypes
        quarters = attributes.chunk(QUARTERS, 1)
        for block, quarter, deviate, shift in zip(self.blocks, quarters, self.deviations, self.means, strict=True):
            means, deviations = shift(quarter).chunk(2, 1), deviate(quarter).chunk(2, 1)
            maps = block(maps, tuple(zip(means, deviations, strict=True)))
        drawn: Tensor = self.draw(maps)
        return drawn


class ResidualDiscriminator(nn.Sequential):
    """How real each neighbourhood of a picture looks, without norms; a quarter of its sides.

    Args:
        width: channels of the first layers; behind the second halving twice as many.
        blocks: residual blocks.
    """

    def __init__(self, width: int, blocks: int) -> None:
        layers = (
            _convolve(3, width, 1), _convolve(width, width), _convolve(width, width, stride=2),
            _convolve(width, width), _convolve(width, 2 * width, stride=2),
        )  # fmt: skip
        residual = (
            ResidualBlock(2 * width, nn.Identity, padding="reflect", bias=True, slope=SLOPE) for _ in range(blocks)
        )
        stages = (nn.Sequential(layer, nn.LeakyReLU(SLOPE)) for layer in layers)
        super().__init__(*stages, *residual, _convolve(2 * width, 1, 1))


class MixedHead(nn.Module):
    """From joined prototype and style to vectors for search, class scores and what triplets compare.

    In float32 (or better) also under autocast.

    Args:
        before: numbers of prototype and style.
    """

    def __init__(self, before: int, options: Options, num_ids: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(
            nn.Linear(before, options.width, bias=False), nn.BatchNorm1d(options.width), nn.Dropout(options.dropout)
        )
        self.classify = nn.Linear(options.width, num_ids)
        self.compare = nn.Linear(options.width, options.triplet_width)

    def forward(self, features: Tensor) -> Recognised:
        """Of (N, before) features."""
        with torch.autocast(features.device.type, enabled=False):
            embedding = self.reduce(features)
            return Recognised(embedding, self.classify(embedding), self.compare(embedding))


def exchange(own: Tensor, others: Tensor, share: float) -> Tensor:
    """Attribute codes of which the first part of each quarter is another picture's.

    Args:
        own, others: (B, width of a code).
        share: of a quarter, `STYLE` or `STYLE_AND_POSE`.
    """
    ours, theirs = (codes.reshape(-1, QUARTERS, codes.shape[1] // QUARTERS) for codes in (own, others))
    cut = int(ours.shape[2] * share)
    return torch.cat([theirs[..., :cut], ours[..., cut:]], dim=2).flatten(1)


def split_code(attributes: Tensor) -> tuple[Tensor, Tensor]:
    """Styles, and poses with illuminations, each (B, half the width of a code), of (B, width of a code)."""
    style, rest = attributes.reshape(-1, QUARTERS, 2, attributes.shape[1] // (2 * QUARTERS)).unbind(2)
    return style.flatten(1), rest.flatten(1)


def pulled_triplet(anchors: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, *, margin: float) -> Tensor:
    """Batch-hard triplets of cosines that are also drawn to 1 and to -1.

    With p the smallest cosine of an anchor to a picture of its person and n the largest to another's, the mean over
    anchors of [n - p + margin]_+ + (1 + n)² + (1 - p)².

    Args:
        anchors: (N, D), of any length.
        labels: (N,) int64; each has its person and another among the others.
        others: (M, D), of any length.
        other_labels: (M,) int64.
    """
    cosines = normalise(anchors) @ normalise(others).T
    same = labels[:, None] == other_labels
    positive = cosines.masked_fill(~same, torch.inf).amin(1)
    negative = cosines.masked_fill(same, -torch.inf).amax(1)
    hinges = (negative - positive + margin).clamp(min=0)
    return (hinges + (1 + negative).square() + (1 - positive).square()).mean()


def penalise_gradients(judge: nn.Module, pictures: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """Scores of pictures, and the sum over sizes of the mean squared norm of their gradients.

    Args:
        judge: gives scores for each size of a picture.
        pictures: (B, 3, H, W), which learn nothing.
    """
    with torch.enable_grad():  # also where only the number is asked for
        seen = pictures.detach().requires_grad_()
        scores: tuple[Tensor, ...] = judge(seen)
        gradients = [torch.autograd.grad(each.sum(), seen, create_graph=True)[0] for each in scores]
        return scores, torch.stack([each.square().sum((1, 2, 3)).mean() for each in gradients]).sum()


class Method(Mirrored):
    """Two encoders for each modality, a decoder, discriminators, and a trunk and a head that tell people apart.

    Attributes:
        attributes, prototypes: encoders by the number of the modality; the second begins as a copy of the first.
        trunk: of prototypes: the backbone's second and third stage.
        mixing: share of the prototype in what the head sees.
        discriminators: by the number of the modality.
    """

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__()
        _check_size(options, facts.size)
        self.options = options
        self.num_ids = facts.num_ids
        self.normalise = Normalise(options.normalisation)
        network, self.width = build_backbone(options.backbone)
        _, stages, _ = divide_backbone(build_backbone(options.backbone)[0], options.backbone)
        channels = output_width(stages[0])
        require(
            self.width % PARTS == 0 and channels % 8 == 0,
            f"method.backbone {options.backbone}: gives {self.width} numbers, and its first stage {channels} channels; "
            f"a code of hi_cmd needs a multiple of {PARTS}, and a prototype of 8; choose resnet50",
        )
        self.attributes = _copy_for_both(network)
        self.prototypes = _copy_for_both(PrototypeEncoder(channels, options.prototype_blocks, options.dilations))
        self.decoder = Decoder(channels, self.width, options.mixer_width)
        self.trunk = nn.Sequential(*stages[1:3])
        self.trunk_width = output_width(stages[2])
        for part in (self.attributes, self.trunk):
            use_winograd(part)
        self.mixing = nn.Parameter(torch.tensor(options.mixing))
        self.head = MixedHead(self.trunk_width + self.width // 2, options, facts.num_ids)
        self.discriminators = nn.ModuleList(
            ScaledJudges(
                lambda: ResidualDiscriminator(options.discriminator_width, options.discriminator_blocks),
                options.discriminator_scales,
            )
            for _ in Modality
        )

    def turns(self) -> tuple[Turn, ...]:
        """The discriminators learn; then everything else answers what they have become."""
        others = tuple(name for name in self.parameter_groups() if name != "discriminators")
        return (
            Turn("discriminators", ("discriminators",), self.discriminator_losses),
            Turn("network", others, self.network_losses, fresh=True),
        )

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Output:  # noqa: ARG002
        """Prototypes and attribute codes, and outside of training class scores."""
        if self.training:
            self.mixing.data.clamp_(0, 1)  # beyond, it would have no gradient, and never come back
        pictures = self.normalise(images)
        prototypes, attributes = self._encode(pictures, modalities)
        described = None if self.training else self._describe(prototypes, attributes)
        return Output(pictures, prototypes, attributes, described)

    def _encode(self, pictures: Tensor, modalities: Tensor) -> tuple[Tensor, Tensor]:
        prototypes = apply_by_modality(self.prototypes, pictures, modalities)
        return prototypes, pool_average(apply_by_modality(self.attributes, pictures, modalities), self.width)

    def _describe(self, prototypes: Tensor, attributes: Tensor) -> Recognised:
        return self._tell_apart(pool_average(self.trunk(prototypes), self.trunk_width), split_code(attributes)[0])

    def _tell_apart(self, features: Tensor, styles: Tensor) -> Recognised:
        """Of (N, trunk width) pooled prototypes with (N, half the width of a code) styles."""
        share = self.mixing.clamp(0, 1)
        described: Recognised = self.head(torch.cat([share * normalise(features), (1 - share) * normalise(styles)], 1))
        return described

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Those of both turns."""
        return self.discriminator_losses(output, batch) | self.network_losses(output, batch)

    def discriminator_losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """That real pictures are told from drawn ones of both kinds, and gradients at real ones are small.

        Raises:
            TrainingError: the batch shows one person only, or people in one modality only; likewise below.
        """
        options, pairs = self.options, self._find_pairs(output, batch)
        with torch.no_grad():
            prototypes, codes = (
                [found[rows] for rows in pairs.rows] for found in (output.prototypes, output.attributes)
            )
            across = prototypes[::-1]
            drawn = self._draw(
                [*across, *across], [*_exchange_both(codes, STYLE), *_exchange_both(codes, STYLE_AND_POSE)]
            )
        losses, penalties = {}, []
        for modality in Modality:
            judge = self.discriminators[modality]
            scores, penalty = penalise_gradients(judge, output.pictures[pairs.rows[modality]])
            kinds = drawn[modality :: len(Modality)]
            fooled = torch.stack([summed_least_squares(judge(kind), 0) for kind in kinds]).sum()
            told = len(kinds) * summed_least_squares(scores, 1) + fooled
            losses[f"{modality.name.lower()}_discriminator"] = options.adversarial_weight * told
            penalties.append(penalty)
        return losses | {"penalty": options.penalty_weight * torch.stack(penalties).sum()}

    def network_losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Those of pictures drawn from exchanged codes, and of the people in erased, real and drawn pictures."""
        options, pairs = self.options, self._find_pairs(output, batch)
        pictures, prototypes, codes = (
            [found[rows] for rows in pairs.rows] for found in (output.pictures, output.prototypes, output.attributes)
        )
        across, exchanged, far = prototypes[::-1], _exchange_both(codes, STYLE), _exchange_both(codes, STYLE_AND_POSE)
        parts = self._draw([*prototypes, *across, *across], [*exchanged, *exchanged, *far])
        again, drawn = parts[:2], parts[2:4]
        count = len(pairs.rows[0])
        modalities = batch.modalities[torch.cat(pairs.rows)]
        seen, found = (torch.split(values, count) for values in self._encode(torch.cat(drawn), modalities))
        cycled = self._draw(seen[::-1], _exchange_both(found, STYLE))
        judged = [
            summed_least_squares(self.discriminators[modality](kind), 1)
            for modality in Modality
            for kind in parts[2 + modality :: len(Modality)]
        ]
        halves = [
            functional.l1_loss(*both)
            for ours, theirs in zip(found, exchanged, strict=True)
            for both in zip(split_code(ours), split_code(theirs), strict=True)
        ]
        priors = [split_code(own)[1].square().mean() for own in codes]
        return {
            "reconstruction": options.reconstruction_weight * _apart(again, pictures),
            "cross": options.cross_weight * _apart(drawn, pictures),
            "cycle": options.cycle_weight * _apart(cycled, pictures),
            "codes": options.code_weight * torch.stack(halves).sum(),
            "prior": options.prior_weight * torch.stack(priors).sum(),
            "adversarial": options.adversarial_weight * torch.stack(judged).sum(),
        } | self._person_losses(output.pictures, [picture.detach() for picture in drawn], pairs, batch)

    def _person_losses(
        self, pictures: Tensor, drawn: Sequence[Tensor], pairs: Pairs, batch: Batch
    ) -> dict[str, Tensor]:
        """Of erased pictures, real and drawn, and of prototypes of the one with styles of the other."""
        options = self.options
        rows = [each for own, other in zip(pairs.rows, pairs.further, strict=True) for each in (own, own, other)]
        shown = [
            each
            for own, made, other in zip(pairs.rows, drawn, pairs.further, strict=True)
            for each in (pictures[own], made, pictures[other])
        ]
        seen = torch.cat(shown)
        if self.training:
            seen = erase(seen, options.erasing_probability)
        prototypes, codes = self._encode(seen, batch.modalities[torch.cat(rows)])
        features, styles = pool_average(self.trunk(prototypes), self.trunk_width), split_code(codes)[0]
        places = torch.arange(len(seen), device=seen.device)
        own, made, _, own_infrared, made_infrared, _ = places.split_with_sizes([len(each) for each in rows])
        lent = torch.cat([own, made, own_infrared, made_infrared])  # prototypes that get the style of ...
        styled = torch.cat([made, own, made_infrared, own_infrared])
        described = self._tell_apart(torch.cat([features, features[lent]]), torch.cat([styles, styles[styled]]))
        labels = batch.labels[torch.cat(rows)]
        labels = torch.cat([labels, labels[lent]])
        losses = {"id": functional.cross_entropy(described.logits, labels)}
        if options.triplet_weight:
            mixed = torch.arange(len(seen), len(labels), device=seen.device).chunk(2)
            compared = described.compared
            triplets = [
                pulled_triplet(compared[anchors], labels[anchors], compared, labels, margin=options.triplet_margin)
                for anchors in (torch.cat([own, made, mixed[0]]), torch.cat([own_infrared, made_infrared, mixed[1]]))
            ]
            losses["triplet"] = options.triplet_weight * torch.stack(triplets).sum()
        return losses

    def _draw(self, prototypes: Sequence[Tensor], codes: Sequence[Tensor]) -> list[Tensor]:
        """Pictures of prototypes with attribute codes, each a part as long as the first."""
        drawn: Tensor = self.decoder(torch.cat(list(prototypes)), torch.cat(list(codes)))
        return list(torch.split(drawn, len(prototypes[0])))

    def _find_pairs(self, output: Output, batch: Batch) -> Pairs:
        labels, pictures = batch.labels, output.pictures
        visible, infrared = split_by_modality(batch.modalities)
        check_people(labels[visible], labels[infrared], "hi_cmd")
        people = torch.unique(labels)
        chosen = people[draw_rows(len(people), self.options.pairs if self.training else 0, labels.device)]
        own = visible[torch.isin(labels[visible], chosen)]
        keys = brightness(pictures)
        partners = infrared[find_partners(labels[own], keys[own], labels[infrared], keys[infrared])]
        further = visible[~torch.isin(visible, own)], infrared[~torch.isin(infrared, partners)]
        return Pairs((own, partners), further)

    def compute_vectors(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:  # noqa: ARG002
        """Embeddings of pictures, (B, D), each through the encoders of its modality; nothing is translated."""
        return self._describe(*self._encode(self.normalise(images), modalities)).embedding

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Attributes and generators are encoders and decoder; backbone is the trunk of prototypes."""
        return {
            "attributes": list(self.attributes.parameters()),
            "generators": [*self.prototypes.parameters(), *self.decoder.parameters()],
            "backbone": list(self.trunk.parameters()),
            "head": list(self.head.parameters()),
            "mixing": [self.mixing],
            "discriminators": list(self.discriminators.parameters()),
        }

    def load_pretrained(self, source: str) -> None:
        """Fill both attribute encoders and the trunk from one network's weights."""
        if source == "none":
            return
        name = self.options.backbone
        network, _ = build_backbone(name)
        load_backbone(network, name, source, for_distances=True)
        for encoder in self.attributes:
            encoder.load_state_dict(network.state_dict())
        _, stages, _ = divide_backbone(network, name)
        for stage, filled in zip(self.trunk, stages[1:3], strict=True):
            stage.load_state_dict(filled.state_dict())


def _copy_for_both(encoder: nn.Module) -> nn.ModuleList:
    return nn.ModuleList([encoder, copy.deepcopy(encoder)])


def _exchange_both(codes: Sequence[Tensor], share: float) -> tuple[Tensor, Tensor]:
    """Of the visible pictures' codes with parts of the infrared ones', and the other way round."""
    visible, infrared = codes
    return exchange(visible, infrared, share), exchange(infrared, visible, share)


def _apart(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """The sum over modalities of mean absolute differences."""
    return torch.stack([functional.l1_loss(*both) for both in zip(ours, theirs, strict=True)]).sum()


def _check_size(options: Options, size: tuple[int, int]) -> None:
    """Complain where a picture is too small for the networks."""
    require(
        all(side % REDUCTION == 0 for side in size),
        f"data.size {list(size)}: a decoder of hi_cmd needs sides that {REDUCTION} divides; choose such",
    )
    require(
        min(size) // REDUCTION > max(options.dilations),
        f"method.dilations {list(options.dilations)} reach beyond prototypes of pictures of {min(size)} pixels; write "
        f"less than {min(size) // REDUCTION}",
    )
    require(
        min(size) > 2 ** (options.discriminator_scales + 1),
        f"method.discriminator_scales {options.discriminator_scales} leave nothing of pictures of {min(size)} pixels; "
        "write fewer",
    )
