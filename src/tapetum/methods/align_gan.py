"""AlignGAN: visible pictures are translated into infrared ones, and one network describes translated and real ones.

Pixels are aligned by two generators that lead there and back, features by triplets between translated and real
pictures, and both by a discriminator that judges a picture together with a feature map.

Source: "RGB-Infrared Cross-Modality Person Re-Identification via Joint Pixel and Feature Alignment" (Wang et al., ICCV
2019) and its release, wangguanan/AlignGAN, of which a description was at hand and not the code. The layers and
their order are that description's.
Differs:
- a recipe draws a batch's people anew each step and pictures of a person with replacement; the release goes through a
  shuffled list of all people, and gives K different pictures of each;
- the release draws batches of 4 x 4 for the generators and of 18 x 4 for the encoder. Here a step has one batch, of
  which `gan_pictures` of each modality teach the generators and the discriminators: those of `gan_people` of its
  people, which makes batches of 4 x 4, or any by chance. An infrared picture whose person is not among the translated
  ones drawn by chance is no anchor of the generators' triplets;
- encoder, generators and discriminators are differentiated before any of them steps. `order` "released" lets the
  encoder step first, and the others answer it with a forward pass of their own;
- where mirrors are asked for, a picture is mirrored and then translated, so that it and its mirror have one vector;
  `mirror` "translation" mirrors what the translation gave, as the release does;
- pictures go together by label, and of one person by their brightness; the release pairs those in the same place of two
  loaders, which is a random choice of them. What it shifts by four rows for another person is the next person here;
- warming up, first encoder and then generators in the release, has nothing in common, so that both happen at once here,
  in the first `warmup_epochs`; a recipe holds the encoder still (`optimiser.frozen`) until its share begins;
- translated and real pictures are one batch to the encoder's norms, and while it warms up it sees infrared ones alone;
- left open by the description, and chosen here: the triplets' layer is one of its own, not the classifier's without
  dropout; the discriminators' convolutions have biases where no norm takes them away again; of warming up, the
  discriminators' weights are no part of the ones that follow;
- names of the release's tensors are not known to us, so that its checkpoints, eight files, are not read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.method import EpochStart, TrainingFacts, Turn
from tapetum.core.options import option, require
from tapetum.core.types import Batch, Modality
from tapetum.core.vectors import normalise
from tapetum.layers.backbones import build_backbone, load_backbone, pool_average
from tapetum.layers.image_blocks import SLOPE, ResidualBlock, draw_weights, halve
from tapetum.layers.normalisation import Normalisation, Normalise
from tapetum.layers.two_stream import apply_by_modality
from tapetum.layers.winograd import use_winograd
from tapetum.losses.cross_triplet import cross_triplet
from tapetum.losses.least_squares import least_squares
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
    "width": 8,
    "dropout": 0.0,
    "generator_width": 4,
    "generator_blocks": 1,
    "generator_statistics": "own",
    "discriminator_width": 4,
    "discriminator_layers": 3,
    "pair_width": 4,
    "weight_std": 0.2,
    "gan_pictures": 0,
    "warmup_epochs": 0,
}
TRAINING_ONLY = ("discriminators",)  # of the network; a training may begin with a checkpoint without them
VISIBLE, INFRARED = Modality.VISIBLE, Modality.INFRARED
REDUCTION = 4  # by which a generator's maps are smaller than its pictures
JOINED = 2  # layers behind the place where picture and feature meet
HEAD_SLOPE = 0.1


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``; each default is the release's but `order`, `mirror` and `gan_people`."""

    backbone: str = option("resnet50", "a convolutional network of timm")
    last_stride: int = option(1, "2 halves the last stage's resolution")
    normalisation: Normalisation = option("imagenet", "of what the encoder sees, in 0..1")
    encoder_size: tuple[int, int] = option((384, 192), "height and width of what the encoder sees", least=1)
    width: int = option(256, "numbers that triplets compare, and that are classified", least=1)
    dropout: float = option(0.5, "of the pooled feature before it is classified", least=0, below=1)
    triplet_margin: float = option(1.0, "between cosines", least=0)
    triplet_weight: float = option(1.0, "of the encoder's triplets", least=0)
    joint_weight: float = option(0.1, "of the encoder's term that translated features pass for real ones", least=0)
    generator_width: int = option(64, "channels of a generator's first layer", least=1)
    generator_blocks: int = option(4, "residual blocks of a generator", least=0)
    generator_statistics: Literal["running", "own"] = option(
        "running", "of a generator's norms in a search: those of the training's pictures, or each picture's own"
    )
    discriminator_width: int = option(64, "channels of a discriminator's first layer", least=1)
    discriminator_layers: int = option(5, "layers of stride 2 of a discriminator", least=JOINED + 1)
    pair_width: int = option(64, "channels to which features are reduced for the discriminator", least=1)
    weight_std: float = option(0.02, "initial deviation of generators and discriminators", above=0)
    gan_pictures: int = option(
        16,
        "of each modality in a batch, drawn by chance, that generators and discriminators learn from; 0: all",
        least=0,
    )
    gan_people: int = option(
        0,
        "people whose pictures these are, as many of each, compared among themselves; released: 4; 0: of whomever, "
        "compared with all",
        least=0,
    )
    cycle_weight: float = option(10.0, "of pictures that were translated there and back", least=0)
    identity_weight: float = option(5.0, "of pictures that are of the modality already", least=0)
    pixel_triplet_weight: float = option(0.1, "of the generators' triplets", least=0)
    pixel_id_weight: float = option(0.1, "of the generators' cross-entropy", least=0)
    warmup_epochs: int = option(100, "in which generators and encoder learn apart from each other", least=0)
    order: Literal["shared", "released"] = option(
        "shared", "of a step: one forward pass for all; or the encoder first, and one anew for the others"
    )
    mirror: Literal["picture", "translation"] = option(
        "picture",
        "what is mirrored in a search that asks for it; 'translation', as released, costs one translation less",
    )


@dataclass(frozen=True)
class Described:
    """What encoder and head make of N pictures.

    Attributes:
        maps: (N, C, h, w), which the discriminator sees.
        embedding: (N, width) float32, which triplets compare.
        logits: (N, num_ids) float32 class scores.
    """

    maps: Tensor
    embedding: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Output:
    """What the networks make of V visible and I infrared pictures, each in the order of the batch; pictures in -1..1.

    Attributes:
        visible, infrared: (V or I, 3, H, W), as given.
        drawn: rows of the v visible and of the i infrared pictures that the generators learn from.
        met: rows of the infrared pictures that they are compared with: those drawn, where these are of the same people,
            else all.
        to_infrared, to_visible: (v or i, 3, H, W), those pictures translated.
        visible_again, infrared_again: (v or i, 3, H, W), those pictures translated there and back.
        visible_same, infrared_same: (v or i, 3, H, W), what the generator that leads to their modality makes of them.
        translated: of all visible pictures; None where the encoder is warming up.
        real: of the infrared pictures.
        order: (B,) where each picture of the batch is among the visible and then the infrared ones.
    """

    visible: Tensor
    infrared: Tensor
    drawn: tuple[Tensor, Tensor]
    met: Tensor
    to_infrared: Tensor
    to_visible: Tensor
    visible_again: Tensor
    infrared_again: Tensor
    visible_same: Tensor
    infrared_same: Tensor
    translated: Described | None
    real: Described
    order: Tensor

    @property
    def logits(self) -> Tensor:
        """(B, num_ids) class scores in the order of the batch; while the encoder warms up, infrared pictures' alone."""
        if self.translated is None:
            return self.real.logits
        return torch.cat([self.translated.logits, self.real.logits])[self.order]


class Generator(nn.Module):
    """Pictures in -1..1 from pictures in -1..1: down to a quarter of their sides, residual blocks, and up again.

    Args:
        width: channels of the first layer.
        blocks: residual blocks, of four times as many channels.
        tracked: norms remember the statistics of the training's pictures, and use them outside of it.
    """

    def __init__(self, width: int, blocks: int, *, tracked: bool) -> None:
        super().__init__()

        def norm(channels: int) -> nn.Module:
            return nn.InstanceNorm2d(channels, affine=True, track_running_stats=tracked)

        def stage(layer: nn.Module, channels: int) -> list[nn.Module]:
            return [layer, norm(channels), nn.ReLU()]

        self.layers = nn.Sequential(
            *stage(nn.Conv2d(3, width, 7, padding=3, bias=False), width),
            *stage(halve(width, 2 * width, bias=False), 2 * width),
            *stage(halve(2 * width, 4 * width, bias=False), 4 * width),
            *(ResidualBlock(4 * width, norm) for _ in range(blocks)),
            *stage(_double(4 * width, 2 * width), 2 * width),
            *stage(_double(2 * width, width), width),
            nn.Conv2d(width, 3, 7, padding=3, bias=False),
            nn.Tanh(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) of (B, 3, H, W) with sides that four divides."""
        return cast(Tensor, self.layers(images))


def _double(before: int, after: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)


def _halvings(before: int, width: int, layers: int, *, first_normed: bool) -> list[nn.Module]:
    """Layers of stride 2 whose channels double from `width`, with norms but perhaps in the first."""
    parts: list[nn.Module] = []
    for number in range(layers):
        normed, after = first_normed or number > 0, width * 2**number
        parts.append(halve(before, after, bias=not normed))
        parts += [nn.InstanceNorm2d(after)] if normed else []
        parts.append(nn.LeakyReLU(SLOPE))
        before = after
    return parts


class Discriminator(nn.Sequential):
    """How real each neighbourhood of a picture looks: layers of stride 2, and one that scores.

    Args:
        width: channels of the first layer.
    """

    def __init__(self, width: int, layers: int) -> None:
        last = nn.Conv2d(width * 2 ** (layers - 1), 1, 3, padding=1, bias=False)
        super().__init__(*_halvings(3, width, layers, first_normed=False), last)


class PairDiscriminator(nn.Module):
    """How real each neighbourhood of a picture and a feature map looks: both are joined two layers before the last.

    Args:
        width: channels of the first layer.
        map_width: channels of the feature maps.
        pair_width: channels to which they are reduced.
    """

    def __init__(self, width: int, layers: int, map_width: int, pair_width: int) -> None:
        super().__init__()
        alone = layers - JOINED
        self.pictures = nn.Sequential(*_halvings(3, width, alone, first_normed=False))
        self.features = nn.Sequential(nn.Conv2d(map_width, pair_width, 1), nn.LeakyReLU(SLOPE))
        joined = width * 2 ** (alone - 1) + pair_width
        last = nn.Conv2d(width * 2 ** (layers - 1), 1, 3, padding=1, bias=False)
        self.joined = nn.Sequential(*_halvings(joined, width * 2**alone, JOINED, first_normed=True), last)

    def forward(self, images: Tensor, maps: Tensor) -> Tensor:
        """(B, 1, h, w) scores of (B, 3, H, W) pictures in -1..1 with (B, C, y, x) feature maps."""
        seen = self.pictures(images)
        felt = functional.interpolate(self.features(maps), seen.shape[2:], mode="bilinear", align_corners=False)
        scores: Tensor = self.joined(torch.cat([seen, felt], dim=1))
        return scores


class CosineHead(nn.Module):
    """From a pooled feature to what triplets compare, and to class scores; in float32 (or better) also under autocast.

    Args:
        feature_width: numbers of the feature.
        width: of both layers behind it.
    """

    def __init__(self, feature_width: int, width: int, num_ids: int, dropout: float) -> None:
        super().__init__()
        self.compare = nn.Linear(feature_width, width)
        self.classify = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(feature_width, width),
            nn.BatchNorm1d(width),
            nn.LeakyReLU(HEAD_SLOPE),
            nn.Linear(width, num_ids),
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, width) for triplets and (N, num_ids) class scores of (N, feature_width) features."""
        with torch.autocast(features.device.type, enabled=False):
            return self.compare(features), self.classify(features)


def triplets_both_ways(ours: Tensor, labels: Tensor, theirs: Tensor, others: Tensor, *, margin: float) -> Tensor:
    """T(a, b) + T(b, a); T is the mean over a of [cosine of the nearest negative - the farthest positive + margin]_+.

    Args:
        ours: (N, D), of any length.
        labels: (N,) int64.
        theirs: (M, D), of any length.
        others: (M,) int64.
    """
    distances = 1 - normalise(ours) @ normalise(theirs).T
    there = cross_triplet(distances, labels, others, margin=margin)
    return there + cross_triplet(distances.T, others, labels, margin=margin)


class Method(nn.Module):
    """Generators there and back, discriminators, an encoder and what trains it.

    Attributes:
        generators: by the number of the modality that they lead to.
        discriminators: "visible" and "infrared", of which the second also sees features; "visible_warmup" and
            "infrared_warmup", which see pictures alone, where there is a warm-up.
        joint: whether the warm-up is over.
    """

    joint: Tensor

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__()
        height, width = facts.size
        layers = options.discriminator_layers
        require(
            height % REDUCTION == 0 and width % REDUCTION == 0,
            f"data.size {facts.size}: a generator of align_gan needs sides that {REDUCTION} divides; choose such",
        )
        require(
            height >= 2**layers and width >= 2**layers and (height // 2**layers) * (width // 2**layers) > 1,
            f"data.size {facts.size}: method.discriminator_layers {layers} leave no more than one place of such a "
            "picture; write less, or take larger pictures",
        )
        check_drawing(options.gan_people, options.gan_pictures)
        self.options = options
        self.facts, self.num_ids = facts, facts.num_ids
        tracked = options.generator_statistics == "running"
        self.generators = nn.ModuleList(
            Generator(options.generator_width, options.generator_blocks, tracked=tracked) for _ in range(2)
        )
        self.normalise = Normalise(options.normalisation)
        self.encoder, self.width = build_backbone(options.backbone, last_stride=options.last_stride)
        use_winograd(self.encoder)
        self.head = CosineHead(self.width, options.width, facts.num_ids, options.dropout)
        alone = ("visible", "visible_warmup", "infrared_warmup") if options.warmup_epochs else ("visible",)
        self.discriminators = nn.ModuleDict(
            {name: Discriminator(options.discriminator_width, layers) for name in alone}
        )
        self.discriminators["infrared"] = PairDiscriminator(
            options.discriminator_width, layers, self.width, options.pair_width
        )
        for networks in (self.generators, self.discriminators):
            draw_weights(networks, options.weight_std)
        self.register_buffer("joint", torch.tensor(options.warmup_epochs == 0), persistent=False)

    def turns(self) -> tuple[Turn, ...]:
        """Encoder and head learn, then the generators, then the discriminators."""
        fresh = self.options.order == "released"
        return (
            Turn("feature", ("backbone", "head"), self.feature_losses),
            Turn("pixel", ("generators",), self.generator_losses, fresh=fresh),
            Turn("discriminators", ("discriminators",), self.discriminator_losses),
        )

    def begin_epoch(self, start: EpochStart) -> None:
        """See whether the warm-up is over."""
        self.joint.fill_(start.epoch >= self.options.warmup_epochs)

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Output:  # noqa: ARG002
        """Translations of both modalities, and what the encoder makes of translated and of infrared pictures.

        In training mode generators learn from pictures of whomever: nothing says whom they show.
        """
        visible, infrared = split_by_modality(modalities)
        wanted = self.options.gan_pictures if self.training else 0
        drawn = draw_rows(len(visible), wanted, images.device), draw_rows(len(infrared), wanted, images.device)
        met = torch.arange(len(infrared), device=images.device)
        return self._translate_and_describe(images, (visible, infrared), drawn, met)

    def forward_batch(self, batch: Batch) -> Output:
        """The same; generators learn from pictures of `gan_people` people, where that is set."""
        people = self.options.gan_people
        if not people:
            return self.forward(batch.images, batch.modalities, batch.camids)
        drawn = draw_people(*self._labels_of(batch), people, self.options.gan_pictures // people)
        return self._translate_and_describe(batch.images, split_by_modality(batch.modalities), drawn, drawn[1])

    def _translate_and_describe(
        self, images: Tensor, rows: tuple[Tensor, Tensor], drawn: tuple[Tensor, Tensor], met: Tensor
    ) -> Output:
        """Of the visible and infrared pictures at these rows; see `Output` for what is drawn and met."""
        visible, infrared = (2 * images[own] - 1 for own in rows)
        some_visible, some_infrared = visible[drawn[0]], infrared[drawn[1]]
        to_infrared, to_visible = self._translate(some_visible, INFRARED), self._translate(some_infrared, VISIBLE)
        translated, real = self._describe(visible, infrared, to_infrared, drawn[0])
        return Output(
            visible, infrared, drawn, met, to_infrared, to_visible,
            self._translate(to_infrared, VISIBLE), self._translate(to_visible, INFRARED),
            self._translate(some_visible, VISIBLE), self._translate(some_infrared, INFRARED),
            translated, real, torch.cat(rows).argsort(),
        )  # fmt: skip

    def _translate(self, pictures: Tensor, modality: Modality) -> Tensor:
        """(N, 3, H, W) pictures of a modality; N may be 0, of which norms make an error."""
        made: Tensor = self.generators[modality](pictures) if len(pictures) else pictures
        return made

    def _describe(
        self, visible: Tensor, infrared: Tensor, to_infrared: Tensor, drawn: Tensor
    ) -> tuple[Described | None, Described]:
        """Of translated and of infrared pictures; gradients reach the generator from the translations given alone."""
        if self.training and not self.joint:
            return None, Described(*self._encode(infrared))
        translations = to_infrared
        if len(drawn) < len(visible):
            others = torch.ones(len(visible), dtype=torch.bool, device=drawn.device)
            others[drawn] = False
            with torch.no_grad():
                rest = self._translate(visible[others], INFRARED)
            place = torch.cat([drawn, others.nonzero().squeeze(1)]).argsort()
            translations = torch.cat([to_infrared, rest])[place]
        made = self._encode(torch.cat([translations, infrared.to(translations.dtype)]))
        count = len(visible)
        return Described(*(part[:count] for part in made)), Described(*(part[count:] for part in made))

    def _encode(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps, what triplets compare, and class scores of (N, 3, H, W) infrared pictures in -1..1."""
        maps = self._maps(pictures)
        return maps, *self.head(pool_average(maps, self.width))

    def _maps(self, pictures: Tensor) -> Tensor:
        sized = functional.interpolate(pictures, self.options.encoder_size, mode="bilinear", align_corners=False)
        maps: Tensor = self.encoder(self.normalise((sized + 1) / 2))
        return maps

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Those of all turns."""
        return (
            self.feature_losses(output, batch)
            | self.generator_losses(output, batch)
            | self.discriminator_losses(output, batch)
        )

    def feature_losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Identities and triplets of translated and infrared pictures, and that the former's features pass for real.

        Raises:
            TrainingError: the batch shows one person only, or people in one modality only; likewise below.
        """
        options = self.options
        labels, others = self._labels_of(batch)
        translated, real = output.translated, output.real
        first, known = (real, others) if translated is None else (translated, labels)
        losses = {"id": functional.cross_entropy(real.logits, others)}
        triplet = triplets_both_ways(first.embedding, known, real.embedding, others, margin=options.triplet_margin)
        if translated is None:  # both ways are the same
            return losses | {"triplet": options.triplet_weight * triplet / 2}
        losses["id"] = losses["id"] + functional.cross_entropy(translated.logits, labels)
        losses["triplet"] = options.triplet_weight * triplet
        partners = find_partners(labels, brightness(output.visible), others, brightness(output.infrared))
        scores = self.discriminators["infrared"](output.infrared[partners], translated.maps)
        losses["joint"] = options.joint_weight * least_squares(scores, 1)
        return losses

    def generator_losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """That translations pass for real, lead back, leave alone what needs none, and keep the person."""
        options = self.options
        labels, others = self._labels_of(batch)
        visible, infrared = (
            pictures[own] for pictures, own in zip((output.visible, output.infrared), output.drawn, strict=True)
        )
        translated, chosen = output.translated, labels[output.drawn[0]]
        if translated is None:
            to_visible = self.discriminators["visible_warmup"](output.to_visible)
            to_infrared = self.discriminators["infrared_warmup"](output.to_infrared)
        else:
            partners = self._find_partners(output, chosen, others)
            to_visible = self.discriminators["visible"](output.to_visible)
            to_infrared = self.discriminators["infrared"](output.to_infrared, output.real.maps[partners].detach())
        again = functional.l1_loss(output.visible_again, visible) + functional.l1_loss(output.infrared_again, infrared)
        same = functional.l1_loss(output.visible_same, visible) + functional.l1_loss(output.infrared_same, infrared)
        losses = {
            "adversarial": (least_squares(to_visible, 1) + least_squares(to_infrared, 1)) / 2,
            "cycle": options.cycle_weight * again / 2,
            "identity": options.identity_weight * same / 2,
        }
        if translated is not None:
            embedding = translated.embedding[output.drawn[0]]
            losses["pixel_triplet"] = options.pixel_triplet_weight * triplets_both_ways(
                embedding, chosen, output.real.embedding[output.met], others[output.met], margin=options.triplet_margin
            )
            scores = translated.logits[output.drawn[0]]
            losses["pixel_id"] = options.pixel_id_weight * functional.cross_entropy(scores, chosen)
        return losses

    def discriminator_losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """That real pictures, and real pairs of picture and features, are told from all others."""
        labels, others = self._labels_of(batch)
        visible, infrared = output.visible[output.drawn[0]], output.infrared[output.drawn[1]]
        to_visible, to_infrared = output.to_visible.detach(), output.to_infrared.detach()
        if output.translated is None:
            names = ("visible_warmup", "infrared_warmup")
            pairs = ((visible, to_visible), (infrared, to_infrared))
            return {
                f"{name.removesuffix('_warmup')}_discriminator": self._tell_apart(name, real, made)
                for name, (real, made) in zip(names, pairs, strict=True)
            }
        chosen = labels[output.drawn[0]]
        partners = self._find_partners(output, chosen, others)
        strangers = self._find_partners(output, chosen, others, shift=1)
        real, stranger = output.infrared[partners], output.infrared[strangers]
        maps, made = output.real.maps[partners].detach(), output.translated.maps[output.drawn[0]].detach()
        judge = self.discriminators["infrared"]
        fakes = ((stranger, maps), (real, made), (to_infrared, maps), (to_infrared, made))
        fooled = torch.stack([least_squares(judge(pictures, felt), 0) for pictures, felt in fakes]).mean()
        return {
            "visible_discriminator": self._tell_apart("visible", visible, to_visible),
            "infrared_discriminator": (least_squares(judge(real, maps), 1) + fooled) / 2,
        }

    def _find_partners(self, output: Output, chosen: Tensor, others: Tensor, *, shift: int = 0) -> Tensor:
        """Rows of infrared pictures that go with the visible ones drawn."""
        keys = brightness(output.visible[output.drawn[0]]), brightness(output.infrared[output.met])
        return output.met[find_partners(chosen, keys[0], others[output.met], keys[1], shift=shift)]

    def _tell_apart(self, name: str, real: Tensor, made: Tensor) -> Tensor:
        judge = self.discriminators[name]
        return (least_squares(judge(real), 1) + least_squares(judge(made), 0)) / 2

    def _labels_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        labels, others = (batch.labels[rows] for rows in split_by_modality(batch.modalities))
        check_people(labels, others, "align_gan")
        return labels, others

    def embed(self, images: Tensor, modalities: Tensor, camids: Tensor, *, mirror: bool = False) -> Tensor:  # noqa: ARG002
        """Vectors for search, (B, D) float32 of unit length; visible pictures are translated first.

        With `mirror` the pooled features of a picture and of its mirror are summed.
        """
        pictures = self._prepare(images, modalities)
        features = pool_average(self._maps(pictures), self.width)
        if mirror:
            again = self.options.mirror == "picture"
            mirrored = self._prepare(images.flip(3), modalities) if again else pictures.flip(3)
            features = features + pool_average(self._maps(mirrored), self.width)
        return normalise(features)

    def _prepare(self, images: Tensor, modalities: Tensor) -> Tensor:
        """(B, 3, H, W) infrared pictures in -1..1 of pictures in 0..1 of both modalities."""
        parts = nn.ModuleList([self.generators[INFRARED], nn.Identity()])
        return apply_by_modality(parts, 2 * images - 1, modalities)

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Backbone (the encoder), head, generators, discriminators."""
        groups = {
            "backbone": self.encoder, "head": self.head, "generators": self.generators,
            "discriminators": self.discriminators,
        }  # fmt: skip
        return {name: list(part.parameters()) for name, part in groups.items()}

    def load_pretrained(self, source: str) -> None:
        """Fill the encoder."""
        load_backbone(self.encoder, self.options.backbone, source, for_distances=True)
