"""JSIA-ReID: pictures are taken apart into content and style, and put together again in the other modality.

What the first layers of one encoder see of a picture is its content: with the style of a picture of the other modality
it is to make a picture of that modality (the set level). Behind them, a picture and its translation are to get like
class scores (the instance level).

Source: "Cross-Modality Paired-Images Generation for RGB-Infrared Person Re-Identification" (Wang et al., AAAI 2020) and
its release, wangguanan/JSIA-ReID, of which a description was at hand and not the code.
Differs:
- a recipe draws a batch's people anew each step and pictures of a person with replacement; the release goes through a
  shuffled list of all people, and gives K different pictures of each;
- the release draws batches of 3 x 3 for the generators and of 16 x 4 for the encoder. Here a step has one batch, of
  which `gan_pictures` of each modality, made half as large, teach the generators: those of `gan_people` of its people,
  which makes batches of 3 x 3, or any by chance;
- a content gets the style of the picture that is as many-th by brightness in the other modality: of the same person
  where whole people are drawn, as in the release, which goes by places in two loaders; else of whomever;
- encoder, generators and discriminators are differentiated before any of them steps. That content and style shall be
  found again teaches the generators alone, by turns, where the release clears the encoder's gradients;
- while the generators warm up nothing is classified, and the encoder stands still by the recipe (`optimiser.frozen`),
  its norms with it;
- a picture that was translated there and back has its own style again, not the one found in the translation;
- left open by the description, and chosen here: scores of the discriminators' scales are summed; the symmetric
  divergence is the sum of both directions; layers whose mean a norm takes away have no biases; generators begin as
  PyTorch begins them; enlarging takes the nearest place;
- a linear layer on the style, which the release makes and never uses, is not here;
- names of the release's tensors are not known to us, so that its checkpoints, four files, are not read.
Mirrored pictures are not part of its test; where a recipe asks for them, raw vectors are summed.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import RecipeError, TrainingError
from tapetum.core.method import EpochStart, TrainingFacts, Turn
from tapetum.core.options import option, require
from tapetum.core.types import Batch, Modality
from tapetum.core.vectors import euclidean
from tapetum.layers.backbones import build_backbone, load_backbone, pool_average
from tapetum.layers.bnneck import BNNeck
from tapetum.layers.branch import HeadOutput
from tapetum.layers.image_blocks import SLOPE, AdaptiveNorm, ResidualBlock, ScaledJudges, draw_weights, halve
from tapetum.layers.normalisation import Normalisation, Normalise
from tapetum.layers.two_stream import STEM, divide_backbone, output_width
from tapetum.layers.winograd import use_winograd
from tapetum.losses.cross_triplet import cross_triplet
from tapetum.losses.least_squares import summed_least_squares
from tapetum.methods._mirrored import Mirrored
from tapetum.methods._translation import (
    brightness,
    check_drawing,
    check_people,
    draw_people,
    draw_rows,
    find_partners,
    split_by_modality,
)

SMALL = {  # for tests, without chance
    "backbone": "test_resnet",
    "last_stride": 2,
    "encoder_size": (64, 32),
    "style_channels": 2,
    "style_width": 4,
    "decoder_blocks": 1,
    "mixer_width": 8,
    "discriminator_width": 4,
    "discriminator_layers": 2,
    "gan_pictures": 0,
    "warmup_epochs": 0,
}
TRAINING_ONLY = ("discriminators", "generators")  # of the network; a training may begin with a checkpoint without them
GREY = (0.2989, 0.5870, 0.1140)  # of red, green and blue
REDUCTION = 4  # by which a content is smaller than what the encoder sees; a made picture is twice as large as a content
STYLE_HALVINGS = 4
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``; every default is the release's but that of `gan_people`."""

    backbone: str = option("resnet50", "a plain ResNet or EfficientNet of timm")
    last_stride: int = option(1, "2 halves the last stage's resolution")
    stem_relu: bool = option(False, "a ReLU behind the first batch norm, which the release leaves out")
    normalisation: Normalisation = option("imagenet", "of what the encoder sees, in 0..1")
    grey: bool = option(True, "the encoder sees normalised pictures without colour, of both modalities")
    encoder_size: tuple[int, int] = option(
        (256, 128), "height and width of what the encoder sees; generated pictures are half as large", least=1
    )
    label_smoothing: float = option(0.1, "share of the target that goes to all classes alike", least=0, below=1)
    triplet_weight: float = option(1.0, "0 switches the term off", least=0)
    triplet_margin: float = option(0.3, "of the triplets, before the neck", least=0)
    pixel_weight: float = option(0.01, "of the divergence between a picture's and its translation's scores", least=0)
    style_channels: int = option(32, "of a style encoder's first layer", least=1)
    style_width: int = option(128, "numbers of a style", least=1)
    decoder_blocks: int = option(2, "residual blocks of a decoder", least=1)
    mixer_width: int = option(256, "of the two layers that turn a style into a decoder's statistics", least=1)
    discriminator_width: int = option(32, "channels of a discriminator's first layer", least=1)
    discriminator_layers: int = option(4, "layers of stride 2 of a discriminator", least=1)
    discriminator_scales: int = option(2, "sizes of a picture, each half the last, that have a discriminator", least=1)
    weight_std: float = option(0.02, "initial deviation of the discriminators", above=0)
    gan_pictures: int = option(
        9,
        "of each modality in a batch, drawn by chance, that generators and discriminators learn from; 0: all",
        least=0,
    )
    gan_people: int = option(
        0,
        "people whose pictures these are, as many of each; a style then is of the same person; released: 3; 0: of "
        "whomever",
        least=0,
    )
    adversarial_weight: float = option(1.0, "of translations that pass for real", least=0)
    reconstruction_weight: float = option(10.0, "of pictures made again, and translated there and back", least=0)
    code_weight: float = option(1.0, "of contents and styles that are found again in translations", least=0)
    warmup_epochs: int = option(600, "in which generators learn and nothing is classified", least=0)


@dataclass(frozen=True)
class Translations:
    """What the generators make of v visible and i infrared pictures, each a pair by modality; pictures in -1..1.

    Attributes:
        pictures: (v or i, 3, h, w), half as large as what the encoder sees.
        again: of their own content and style.
        cycled: of the content of their translation and their own style.
        contents: (v or i, C, y, x).
        styles: (v or i, style width).
        made: pictures of this modality, from the contents of the other: (i or v, 3, h, w).
        made_contents: (i or v, C, y, x), found in them.
        made_styles: (i or v, style width), found in them.
        lent: (i or v, style width), with which they were made.
        real_scores: of the discriminators, by scale, for the pictures.
        made_scores: likewise for those made.
        logits: (v or i, num_ids) class scores of the pictures; None where nothing is classified.
        made_logits: (i or v, num_ids) of those made, from which no gradient reaches a generator; None likewise.
    """

    pictures: tuple[Tensor, Tensor]
    again: tuple[Tensor, Tensor]
    cycled: tuple[Tensor, Tensor]
    contents: tuple[Tensor, Tensor]
    styles: tuple[Tensor, Tensor]
    made: tuple[Tensor, Tensor]
    made_contents: tuple[Tensor, Tensor]
    made_styles: tuple[Tensor, Tensor]
    lent: tuple[Tensor, Tensor]
    real_scores: tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
    made_scores: tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
    logits: tuple[Tensor, Tensor] | None
    made_logits: tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class Output:
    """What the network gives.

    Attributes:
        described: feature, embedding and class scores of the batch; None where nothing is classified.
        translations: None where a modality is missing.
    """

    described: HeadOutput | None
    translations: Translations | None

    @property
    def logits(self) -> Tensor:
        """(B, num_ids) class scores.

        Raises:
            TrainingError: the generators are warming up, and nothing is classified.
        """
        if self.described is None:
            raise TrainingError("jsia: nothing is classified while the generators warm up (method.warmup_epochs)")
        return self.described.logits


class StyleGenerator(nn.Module):
    """Of one modality: finds a picture's style, and makes a picture of a content and a style.

    Args:
        content_width: channels of a content.
    """

    def __init__(self, options: Options, content_width: int) -> None:
        super().__init__()
        first = options.style_channels
        channels = [first, *(min(first * 2**number, 4 * first) for number in range(1, STYLE_HALVINGS + 1))]
        layers: list[nn.Module] = [nn.Conv2d(3, first, 7, padding=3, padding_mode="reflect"), nn.ReLU()]
        for before, after in itertools.pairwise(channels):
            layers += [halve(before, after, padding="reflect"), nn.ReLU()]
        self.style = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels[-1], options.style_width, 1))
        self.blocks = nn.ModuleList(
            ResidualBlock(content_width, AdaptiveNorm, padding="reflect") for _ in range(options.decoder_blocks)
        )
        width = options.mixer_width
        self.mix = nn.Sequential(
            nn.Linear(options.style_width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, 2 * content_width * 2 * options.decoder_blocks),
        )  # fmt: skip
        half = content_width // 2
        self.draw = nn.Sequential(
            nn.Upsample(scale_factor=2),
            nn.Conv2d(content_width, half, 5, padding=2, bias=False, padding_mode="reflect"),
            nn.GroupNorm(1, half),
            nn.ReLU(),
            nn.Conv2d(half, 3, 7, padding=3, padding_mode="reflect"),
            nn.Tanh(),
        )

    def find_style(self, pictures: Tensor) -> Tensor:
        """(B, style width) of (B, 3, h, w) pictures in -1..1."""
        styles: Tensor = self.style(pictures).flatten(1)
        return styles

    def forward(self, contents: Tensor, styles: Tensor) -> Tensor:
        """(B, 3, 2 y, 2 x) pictures in -1..1 of (B, C, y, x) contents with (B, style width) styles."""
        numbers = self.mix(styles).unflatten(1, (len(self.blocks), 2, 2, contents.shape[1]))
        maps = contents
        for place, block in enumerate(self.blocks):
            first, second = (tuple(numbers[:, place, norm].unbind(1)) for norm in range(2))
            maps = block(maps, (first, second))
        made: Tensor = self.draw(maps)
        return made


class ScaledDiscriminator(ScaledJudges):
    """How real each neighbourhood of a picture in -1..1 looks, at several sizes of the picture."""

    def __init__(self, width: int, layers: int, scales: int) -> None:
        super().__init__(lambda: self._build(width, layers), scales)

    @staticmethod
    def _build(width: int, layers: int) -> nn.Sequential:
        parts: list[nn.Module] = []
        channels = [3, *(width * 2**number for number in range(layers))]
        for before, after in itertools.pairwise(channels):
            parts += [halve(before, after, padding="reflect"), nn.LeakyReLU(SLOPE)]
        return nn.Sequential(*parts, nn.Conv2d(channels[-1], 1, 1))


def symmetric_divergence(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean over pictures of KL(p, q) + KL(q, p), p and q being the softmaxes of both; the second learns nothing.

    Args:
        scores: (B, C).
        targets: (B, C).
    """
    ours, theirs = scores.log_softmax(1), targets.detach().log_softmax(1)
    return ((ours.exp() - theirs.exp()) * (ours - theirs)).sum(1).mean()


class Method(Mirrored):
    """An encoder in two levels, a neck, and for each modality a generator and a discriminator.

    Attributes:
        set_level: the stem and the first stage, which give a picture's content.
        instance_level: the other stages.
        joint: whether the warm-up is over.
    """

    joint: Tensor
    grey_weights: Tensor

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__()
        _check_sizes(options)
        check_drawing(options.gan_people, options.gan_pictures)
        self.options = options
        self.num_ids = facts.num_ids
        self.normalise = Normalise(options.normalisation)
        self.set_level, self.instance_level = self._build()
        use_winograd(self.set_level)
        use_winograd(self.instance_level)
        self.width = output_width(self.instance_level[-1])
        self.head = BNNeck(self.width, facts.num_ids)
        content_width = output_width(self.set_level[-1])
        self.generators = nn.ModuleList(StyleGenerator(options, content_width) for _ in Modality)
        self.discriminators = nn.ModuleList(
            ScaledDiscriminator(options.discriminator_width, options.discriminator_layers, options.discriminator_scales)
            for _ in Modality
        )
        draw_weights(self.discriminators, options.weight_std)
        self.register_buffer("joint", torch.tensor(options.warmup_epochs == 0), persistent=False)
        self.register_buffer("grey_weights", torch.tensor(GREY).view(1, 3, 1, 1), persistent=False)

    def _build(self) -> tuple[nn.Sequential, nn.Sequential]:
        """Both levels of a network without weights."""
        network, _ = build_backbone(self.options.backbone, last_stride=self.options.last_stride)
        return self._divide(network)

    def _divide(self, network: nn.Module) -> tuple[nn.Sequential, nn.Sequential]:
        stem, stages, _ = divide_backbone(network, self.options.backbone)
        if not self.options.stem_relu:
            place = STEM.index("act1")
            if len(stem) <= place or not isinstance(stem[place], nn.ReLU):
                raise RecipeError(
                    f"method.stem_relu: false, but backbone {self.options.backbone} has no ReLU of its own behind the "
                    "first batch norm; set it to true, or choose a plain ResNet"
                )
            stem[place] = nn.Identity()
        return nn.Sequential(stem, stages[0]), nn.Sequential(*stages[1:])

    def turns(self) -> tuple[Turn, ...]:
        """The encoder learns, the generators, and the discriminators, from one forward pass."""
        return (
            Turn("encoder", ("backbone", "head"), self.encoder_losses),
            Turn("generators", ("generators",), self.generator_losses),
            Turn("discriminators", ("discriminators",), self.discriminator_losses),
        )

    def begin_epoch(self, start: EpochStart) -> None:
        """See whether the warm-up is over."""
        self.joint.fill_(start.epoch >= self.options.warmup_epochs)

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Output:  # noqa: ARG002
        """Class scores of all pictures, and translations of some of each modality.

        In training mode these are of whomever: nothing says whom pictures show.
        """
        described = self._describe(images)
        rows = split_by_modality(modalities)
        if not all(len(own) for own in rows):
            return Output(described, None)
        wanted = self.options.gan_pictures if self.training else 0
        drawn = [own[draw_rows(len(own), wanted, own.device)] for own in rows]
        nobody = [torch.zeros_like(own) for own in drawn]
        return Output(described, self._translate([images[own] for own in drawn], nobody, described is not None))

    def forward_batch(self, batch: Batch) -> Output:
        """The same; the translations are of `gan_people` people, where that is set."""
        people = self.options.gan_people
        if not people:
            return self.forward(batch.images, batch.modalities, batch.camids)
        described, labels = self._describe(batch.images), self._labels_of(batch)
        drawn = draw_people(*labels, people, self.options.gan_pictures // people)
        sides = zip(split_by_modality(batch.modalities), drawn, strict=True)
        images = [batch.images[rows[own]] for rows, own in sides]
        chosen = [known[own] for known, own in zip(labels, drawn, strict=True)]
        return Output(described, self._translate(images, chosen, described is not None))

    def _describe(self, images: Tensor) -> HeadOutput | None:
        """Of all pictures; None while the generators warm up."""
        return self._classify(self._find_content(images)) if bool(self.joint) or not self.training else None

    def _translate(self, images: list[Tensor], labels: list[Tensor], classified: bool) -> Translations:
        height, width = self.options.encoder_size
        pictures = [
            2 * functional.interpolate(own, (height // 2, width // 2), mode="bilinear", antialias=True) - 1
            for own in images
        ]
        donors = _find_donors(pictures, labels)
        generators = cast(list[StyleGenerator], list(self.generators))
        found = self._find_content((torch.cat(pictures) + 1) / 2)
        contents = found.split_with_sizes([len(own) for own in pictures])
        styles = [each.find_style(own) for each, own in zip(generators, pictures, strict=True)]
        lent = [style[rows] for style, rows in zip(styles, donors, strict=True)]
        made = _draw(generators, contents[::-1], lent)
        counts = [len(own) for own in made]
        made_contents = self._find_content((torch.cat(made) + 1) / 2).split_with_sizes(counts)
        logits = made_logits = None
        if classified:
            blind = self._find_content((torch.cat(made).detach() + 1) / 2)
            scores = self._classify(torch.cat([found, blind])).logits
            parts = scores.split_with_sizes([*(len(own) for own in pictures), *counts])
            logits, made_logits = _pair(parts[:2]), _pair(parts[2:])
        return Translations(
            pictures=_pair(pictures),
            again=_pair(_draw(generators, contents, styles)),
            cycled=_pair(_draw(generators, made_contents[::-1], styles)),
            contents=_pair(contents),
            styles=_pair(styles),
            made=_pair(made),
            made_contents=_pair(made_contents),
            made_styles=_pair([each.find_style(own) for each, own in zip(generators, made, strict=True)]),
            lent=_pair(lent),
            real_scores=_pair([judge(own) for judge, own in zip(self.discriminators, pictures, strict=True)]),
            made_scores=_pair([judge(own) for judge, own in zip(self.discriminators, made, strict=True)]),
            logits=logits,
            made_logits=made_logits,
        )

    def _find_content(self, images: Tensor) -> Tensor:
        """(B, C, H / 4, W / 4), of the encoder's H and W, of pictures in 0..1 of any size."""
        if images.shape[2:] != self.options.encoder_size:
            images = functional.interpolate(images, self.options.encoder_size, mode="bilinear", align_corners=False)
        seen = self.normalise(images)
        if self.options.grey:
            seen = (seen * self.grey_weights).sum(1, keepdim=True).expand(-1, 3, -1, -1)
        maps: Tensor = self.set_level(seen)
        return maps

    def _classify(self, contents: Tensor) -> HeadOutput:
        output: HeadOutput = self.head(pool_average(self.instance_level(contents), self.width))
        return output

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Those of all turns."""
        return (
            self.encoder_losses(output, batch)
            | self.generator_losses(output, batch)
            | self.discriminator_losses(output, batch)
        )

    def encoder_losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Identities, triplets across modalities, scores of translations; and what the generators ask of contents.

        Raises:
            TrainingError: the batch shows one person only, or people in one modality only; likewise below.
        """
        options, translations = self.options, self._translations_of(output, batch)
        made = {f"{name}_encoder": loss for name, loss in self._picture_losses(translations).items()}
        described, logits, made_logits = output.described, translations.logits, translations.made_logits
        if described is None or logits is None or made_logits is None:
            return made
        labels, rows = batch.labels, split_by_modality(batch.modalities)
        entropies = [
            functional.cross_entropy(described.logits[own], labels[own], label_smoothing=options.label_smoothing)
            for own in rows
        ]
        losses = {"id": torch.stack(entropies).mean()}
        if options.triplet_weight:
            features, known = [described.feature[own] for own in rows], [labels[own] for own in rows]
            distances = euclidean(features[0], features[1])
            there = cross_triplet(distances, known[0], known[1], margin=options.triplet_margin)
            back = cross_triplet(distances.T, known[1], known[0], margin=options.triplet_margin)
            losses["triplet"] = options.triplet_weight * (there + back) / 2
        if options.pixel_weight:
            # a made picture has its content from the other modality
            pairs = zip(made_logits, logits[::-1], strict=True)
            losses["pixel"] = options.pixel_weight * sum(
                (symmetric_divergence(ours, theirs) for ours, theirs in pairs), start=torch.zeros_like(losses["id"])
            )
        return losses | made

    def generator_losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """That translations pass for real, pictures come back, and contents and styles are found again."""
        made = self._translations_of(output, batch)
        contents = zip(made.made_contents, made.contents[::-1], strict=True)
        styles = zip(made.made_styles, made.lent, strict=True)
        codes = torch.stack([functional.l1_loss(*pair) for pairs in (contents, styles) for pair in pairs]).sum()
        return self._picture_losses(made) | {"codes": self.options.code_weight * codes}

    def discriminator_losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """That real pictures are told from made ones."""
        made = self._translations_of(output, batch)
        return {
            f"{modality.name.lower()}_discriminator": summed_least_squares(made.real_scores[modality], 1)
            + summed_least_squares(made.made_scores[modality], 0)
            for modality in Modality
        }

    def _picture_losses(self, made: Translations) -> dict[str, Tensor]:
        """What both generators and contents learn from."""
        passing = summed_least_squares(made.made_scores[0], 1) + summed_least_squares(made.made_scores[1], 1)
        pairs = [*zip(made.again, made.pictures, strict=True), *zip(made.cycled, made.pictures, strict=True)]
        again = torch.stack([functional.l1_loss(ours, theirs) for ours, theirs in pairs]).sum()
        return {
            "adversarial": self.options.adversarial_weight * passing,
            "reconstruction": self.options.reconstruction_weight * again,
        }

    def _translations_of(self, output: Output, batch: Batch) -> Translations:
        self._labels_of(batch)
        return cast(Translations, output.translations)

    def _labels_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        labels, others = (batch.labels[own] for own in split_by_modality(batch.modalities))
        check_people(labels, others, "jsia")
        return labels, others

    def compute_vectors(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:  # noqa: ARG002
        """Embeddings of pictures, (B, D), both modalities alike; nothing is translated."""
        return self._classify(self._find_content(images)).embedding

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Backbone (both levels of the encoder), head, generators, discriminators."""
        return {
            "backbone": [*self.set_level.parameters(), *self.instance_level.parameters()],
            "head": [weights for weights in self.head.parameters() if weights.requires_grad],
            "generators": list(self.generators.parameters()),
            "discriminators": list(self.discriminators.parameters()),
        }

    def load_pretrained(self, source: str) -> None:
        """Fill both levels of the encoder."""
        options = self.options
        network, _ = build_backbone(options.backbone, last_stride=options.last_stride)
        load_backbone(network, options.backbone, source, for_distances=True)
        if source != "none":
            for level, filled in zip((self.set_level, self.instance_level), self._divide(network), strict=True):
                level.load_state_dict(filled.state_dict())


def _draw(generators: Sequence[StyleGenerator], contents: Sequence[Tensor], styles: Sequence[Tensor]) -> list[Tensor]:
    """Pictures of each modality from contents with styles of its own."""
    return [each(content, style) for each, content, style in zip(generators, contents, styles, strict=True)]


def _pair(values: Sequence[T]) -> tuple[T, T]:
    first, second = values
    return first, second


def _find_donors(pictures: Sequence[Tensor], labels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """For each infrared content the visible picture of its label that lends its style, and the other way round."""
    keys = [brightness(own) for own in pictures]
    return (
        find_partners(labels[1], keys[1], labels[0], keys[0]),
        find_partners(labels[0], keys[0], labels[1], keys[1]),
    )


def _check_sizes(options: Options) -> None:
    """Complain where a network would halve a picture away."""
    require(
        all(side % REDUCTION == 0 for side in options.encoder_size),
        f"method.encoder_size {list(options.encoder_size)}: {REDUCTION} must divide both sides; choose such",
    )
    side = min(options.encoder_size) // 2
    require(
        side >= 2**STYLE_HALVINGS,
        f"method.encoder_size {list(options.encoder_size)}: a style is found in pictures half as large, of at least "
        f"{2**STYLE_HALVINGS} pixels a side; choose {2 ** (STYLE_HALVINGS + 1)} or more",
    )
    smallest = -(-side // 2 ** (options.discriminator_scales - 1))
    require(
        smallest >= 2**options.discriminator_layers,
        f"method.discriminator_layers {options.discriminator_layers} and method.discriminator_scales "
        f"{options.discriminator_scales} leave nothing of pictures of {side} pixels; write less of either",
    )
