"""EnlightenGAN: brightens night pictures with day pictures as the example, but no pairs of them (TIP 2021).

It brightens pictures for others: the row "En-GAN" of the IDF paper's Table III runs a Re-ID method on what it makes.
A batch holds day and night: the generator brightens the night pictures; one discriminator tells them from day pictures
as a whole, another one by small patches; VGG's features keep what the night picture showed.

Source: "EnlightenGAN: Deep Light Enhancement without Paired Supervision" (Jiang et al., TIP 2021) and its release.
Weights of the convolutions start as N(0, 0.02), of the norms as N(1, 0.02).
Differs:
- the release has a folder of night pictures and one of day pictures. Here both are in one data set, and
  `day_cameras` names the cameras that see by day (of a generated scene with ``light: both``, those behind the first
  half); without it, the brighter half of each batch is the example for the darker half, rounded up;
- pictures are persons cut out, so a recipe resizes them whole, where the release takes crops of 320 x 320; and each is
  flipped by itself, where the release flips a night picture and its day picture together;
- a patch is at most as big as the picture;
- weights of VGG-16 named as torchvision's see pictures prepared as torchvision's do, see `tapetum.layers.vgg`. The
  release's own are a conversion of Caffe's;
- generator and discriminators are differentiated before any of them steps. That is the release's order, too: its
  discriminators learn from what the generator made before its step;
- the vectors for search, which the original does not have, are the mean of the generator's deepest features: they say
  how a picture looked, not who is on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import CheckpointError, TrainingError
from tapetum.core.method import EpochStart, TrainingFacts, Turn
from tapetum.core.options import option, require
from tapetum.core.types import Batch
from tapetum.layers.attention_unet import AttentionUNet
from tapetum.layers.patch_discriminator import PatchDiscriminator
from tapetum.layers.vgg import VggFeatures
from tapetum.losses.least_squares import least_squares, relativistic_least_squares
from tapetum.methods._mirrored import Mirrored

SMALL = {  # for tests: without VGG's weights, and without chance, as patches are then whole pictures
    "width": 2,
    "discriminator_width": 2,
    "patch_size": 64,
    "darken_probability": 0.0,
    "preserving_weight": 0.0,
}
TRAINING_ONLY = ("discriminator",)  # of the network; a training may begin with a checkpoint without them
SMALLEST = 16  # side of a picture of which VGG's features have more than one place


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``. The defaults are the released code's."""

    width: int = option(32, "channels of the generator's first stage", least=1)
    skip: float = option(1.0, "what the picture counts in the result; 0: the generator makes all of it")
    align_corners: bool = option(False, "of the upsampling; true as PyTorch 0.3 had it, for which the release was made")
    discriminator_width: int = option(64, "channels of the discriminators' first layer", least=1)
    global_layers: int = option(5, "layers of stride 2 of the global discriminator", least=1)
    patch_layers: int = option(4, "layers of stride 2 of the discriminator of patches", least=1)
    patches: int = option(6, "of each picture, at places drawn anew for each batch", least=1)
    patch_size: int = option(32, "side of a patch, pixels", least=SMALLEST)
    darken_probability: float = option(0.5, "that a night picture is darkened before it is brightened", least=0, most=1)
    darken_factors: tuple[float, float] = option((2.0, 4.0), "lowest and highest factor of that darkening", least=1)
    preserving_weight: float = option(1.0, "of the self feature preserving loss; 0 needs no VGG-16", least=0)
    vgg_weights: str = option("", "file with VGG-16: the release's, or torchvision's vgg16")
    day_cameras: tuple[int, ...] = option((), "cameras that see by day; none: the brighter half of each batch is day")
    weight_std: float = option(0.02, "initial deviation of the weights", above=0)


@dataclass(frozen=True)
class Output:
    """Pictures of a batch in -1..1, not clipped: (Bn, 3, H, W) of the night, (Bd, 3, H, W) of the day.

    Patches are those of all places of the first, then of the second, ...: (patches Bn, 3, h, w) and likewise.

    Attributes:
        night: as given.
        brightened: what the generator made of the night pictures, darkened or not.
        day: as given.
        night_patches, brightened_patches, day_patches: at the same places of each.
    """

    night: Tensor
    brightened: Tensor
    day: Tensor
    night_patches: Tensor
    brightened_patches: Tensor
    day_patches: Tensor


def compare_features(vgg: VggFeatures, ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean squared difference of VGG's features, each map of each picture brought to mean 0 and deviation 1.

    Args:
        ours, theirs: (B, 3, H, W) in -1..1.
    """
    first, second = (functional.instance_norm(vgg(pictures)) for pictures in (ours, theirs))
    return functional.mse_loss(first, second)


class Method(Mirrored):
    """EnlightenGAN.

    Attributes:
        vgg: None where nothing is to be preserved.
    """

    enhancement = "EnlightenGAN"

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__()
        lowest, highest = options.darken_factors
        require(lowest <= highest, f"method.darken_factors: {lowest} is above {highest}; write the lowest first")
        require(
            options.preserving_weight == 0 or min(facts.size) >= SMALLEST,
            f"data.size {facts.size}: method.preserving_weight needs pictures of {SMALLEST} x {SMALLEST} or more",
        )
        self.options = options
        self.facts, self.num_ids = facts, facts.num_ids
        self.generator = AttentionUNet(options.width, skip=options.skip, align_corners=options.align_corners)
        self.global_discriminator = PatchDiscriminator(options.global_layers, options.discriminator_width)
        self.patch_discriminator = PatchDiscriminator(options.patch_layers, options.discriminator_width)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=options.weight_std)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, options.weight_std)
        self.vgg = VggFeatures() if options.preserving_weight else None

    def turns(self) -> tuple[Turn, ...]:
        """Generator and discriminators learn from one forward pass."""
        return (
            Turn("generator", ("generator",), self.generator_losses),
            Turn("discriminators", ("global_discriminator", "patch_discriminator"), self.discriminator_losses),
        )

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Output:  # noqa: ARG002
        """Night and day pictures, and the night brightened.

        Raises:
            TrainingError: in training, all pictures are of the day, or all of the night.
        """
        day = self._find_day(images, camids)
        pictures = 2 * images - 1
        night, day = pictures[~day], pictures[day]
        if self.training and not (len(night) and len(day)):
            raise TrainingError(
                f"enlighten_gan: a batch of {len(images)} pictures has {len(day)} of the day; take larger batches of a "
                f"data set with both, or set method.day_cameras {list(self.options.day_cameras)} to the cameras that "
                "see by day, [] for the brighter half of each batch"
            )
        brightened: Tensor = self.generator(self._darken(night) if self.training else night)[0]
        places = self._draw_places(images.shape[2], images.shape[3])
        return Output(night, brightened, day, *(self._cut(each, places) for each in (night, brightened, day)))

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Those of both turns."""
        return self.generator_losses(output, batch) | self.discriminator_losses(output, batch)

    def generator_losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:  # noqa: ARG002
        """That both discriminators take what was brightened for day, and that its features are the night picture's."""
        made, real = self.global_discriminator(output.brightened), self.global_discriminator(output.day)
        losses = {
            "global": relativistic_least_squares(made, real),
            "patch": least_squares(self.patch_discriminator(output.brightened_patches), 1),
        }
        if self.vgg is not None:
            weight = self.options.preserving_weight
            losses["preserving"] = weight * compare_features(self.vgg, output.brightened, output.night)
            patches = compare_features(self.vgg, output.brightened_patches, output.night_patches)
            losses["preserving_patch"] = weight * patches
        return losses

    def discriminator_losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:  # noqa: ARG002
        """That day pictures look more real than those brightened, and their patches are told apart."""
        real, made = self.global_discriminator(output.day), self.global_discriminator(output.brightened.detach())
        real_patches = self.patch_discriminator(output.day_patches)
        made_patches = self.patch_discriminator(output.brightened_patches.detach())
        return {
            "global_discriminator": relativistic_least_squares(real, made),
            "patch_discriminator": (least_squares(real_patches, 1) + least_squares(made_patches, 0)) / 2,
        }

    def compute_vectors(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:  # noqa: ARG002
        """The generator's mean deepest features, (B, 16 width) float32."""
        return self.generator.describe(2 * images - 1).float()

    def enhance(self, images: Tensor) -> Tensor:
        """Brightened pictures, clipped to 0..1."""
        return self.generator.enhance(images)

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """The three networks; VGG-16 stands still."""
        networks = ("generator", "global_discriminator", "patch_discriminator")
        return {name: list(self.get_submodule(name).parameters()) for name in networks}

    def load_pretrained(self, source: str) -> None:
        """Fill VGG-16 from `vgg_weights`, and the generator from its release's file if one is named.

        Raises:
            CheckpointError: "imagenet", or a file holds no such network, or VGG-16 is needed and no file is named.
        """
        if source == "imagenet":
            raise CheckpointError(
                "enlighten_gan has no ImageNet weights; set init.weights to random or to a file of its generator"
            )
        self._fill_vgg()
        if source != "none":
            self.generator.load_weights(source)

    def begin_epoch(self, start: EpochStart) -> None:  # noqa: ARG002
        """See that VGG-16 is there: a training that begins with a checkpoint finds none in it.

        Raises:
            CheckpointError: it is needed, and no file is named, or the file holds none.
        """
        self._fill_vgg()

    def _fill_vgg(self) -> None:
        if self.vgg is None or self.vgg.is_filled():
            return
        if not self.options.vgg_weights:
            raise CheckpointError(
                "enlighten_gan: the self feature preserving loss needs VGG-16; set method.vgg_weights to a file of it "
                "(the release's vgg16.weight, or torchvision's), or method.preserving_weight to 0 to train without"
            )
        self.vgg.load_weights(self.options.vgg_weights)

    def _find_day(self, images: Tensor, camids: Tensor) -> Tensor:
        """(B,) bool."""
        if self.options.day_cameras:
            return torch.isin(camids, camids.new_tensor(self.options.day_cameras))
        order = images.mean((1, 2, 3)).argsort(stable=True)
        day = torch.ones_like(order, dtype=torch.bool)
        day[order[: (len(order) + 1) // 2]] = False
        return day

    def _darken(self, night: Tensor) -> Tensor:
        """Some of the pictures, as the release makes its generator see still less light."""
        lowest, highest = self.options.darken_factors
        chance, factors = torch.rand(2, len(night), 1, 1, 1, device=night.device, dtype=night.dtype)
        factors = (lowest + (highest - lowest) * factors).masked_fill(chance >= self.options.darken_probability, 1)
        darker: Tensor = (night + 1) / factors - 1
        return darker

    def _draw_places(self, height: int, width: int) -> list[tuple[int, int]]:
        """Top and left of each patch."""
        spare = (max(0, side - self.options.patch_size) for side in (height, width))
        tops, lefts = (torch.randint(each + 1, (self.options.patches,)).tolist() for each in spare)
        return list(zip(tops, lefts, strict=True))

    def _cut(self, pictures: Tensor, places: list[tuple[int, int]]) -> Tensor:
        side = self.options.patch_size
        return torch.cat([pictures[:, :, top : top + side, left : left + side] for top, left in places])
