"""IDF as its released code computes it, in its own operations and order: what a benchmark compares with.

Parameter names are those of the released checkpoints, so that both networks compute with equal weights. Kept are two
whole ResNet-50s with their dead classifiers, the curves applied step by step and every loss as it is formed there; left
out are the three picture files that each forward pass of the release writes.

Source: Alexadlu/IDF, variant "IDE+".
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet50

WELL_EXPOSED, PATCH, STRUCTURE_PATCH = 0.6, 16, 4
NEIGHBOURS = ((1, 0), (1, 2), (0, 1), (2, 1))  # places in a 3x3 kernel: left, right, above, below


class CurveNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        widths = [(3, 32), (32, 32), (32, 32), (32, 32), (64, 32), (64, 32), (64, 24)]
        for number, (into, out) in enumerate(widths, start=1):
            self.add_module(f"e_conv{number}", nn.Conv2d(into, out, 3, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.relu(self.e_conv1(x))
        second = self.relu(self.e_conv2(first))
        third = self.relu(self.e_conv3(second))
        fourth = self.relu(self.e_conv4(third))
        fifth = self.relu(self.e_conv5(torch.cat((third, fourth), 1)))
        sixth = self.relu(self.e_conv6(torch.cat((second, fifth), 1)))
        curves = torch.split(torch.tanh(self.e_conv7(torch.cat((first, sixth), 1))), 3, dim=1)
        for curve in curves:
            x = x + curve * (torch.pow(x, 2) - x)
        return x, torch.cat(curves, 1)


class Fusion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fuse_in = nn.Sequential(nn.Linear(4096, 2048), nn.Tanh(), nn.Linear(2048, 2048), nn.ReLU())
        self.fuse_out = nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 4096))

    def forward(self, joined: Tensor) -> tuple[Tensor, Tensor]:
        latent = self.fuse_in(joined)
        return latent, functional.mse_loss(self.fuse_out(latent), joined)


class Head(nn.Module):
    def __init__(self, num_ids: int) -> None:
        super().__init__()
        self.add_block = nn.Sequential(nn.Linear(2048, 512), nn.BatchNorm1d(512), nn.Dropout(0.5))
        self.classifier = nn.Sequential(nn.Linear(512, num_ids))


class LiteralIDF(nn.Module):
    """Takes pictures as its loader gives them: divided by 255 once more than into 0..1."""

    def __init__(self, num_ids: int) -> None:
        super().__init__()
        self.model_v, self.model_e = resnet50(), resnet50()
        self.bfm, self.E_Net = Fusion(), CurveNetwork()
        self.classifier_v, self.classifier_e, self.classifier_f = (Head(num_ids) for _ in range(3))
        for number, (row, column) in enumerate(NEIGHBOURS):
            kernel = torch.zeros(1, 1, 3, 3)
            kernel[0, 0, 1, 1], kernel[0, 0, row, column] = 1, -1
            self.register_buffer(f"difference{number}", kernel, persistent=False)

    def forward(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
        """What each head makes of its feature (512 numbers), reconstruction, brightened pictures, curves."""
        enhanced, curves = self.E_Net(images)
        night, bright = climb(self.model_v, images), climb(self.model_e, enhanced + images)
        fused, reconstruction = self.bfm(torch.cat((bright, night), 1))
        features = {"v": night, "e": bright, "f": fused}
        made = {name: getattr(self, f"classifier_{name}").add_block(each) for name, each in features.items()}
        return made, reconstruction, enhanced, curves

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The training loss."""
        made, reconstruction, enhanced, curves = self(images)
        scores = {name: getattr(self, f"classifier_{name}").classifier(each) for name, each in made.items()}
        teacher = scores["f"].detach().softmax(1)
        told = sum(functional.kl_div(scores[name].log_softmax(1), teacher, reduction="batchmean") for name in "ve")
        known = sum(functional.cross_entropy(each, labels) for each in scores.values())
        brightening = (
            200 * smoothness(curves)
            + 10 * exposure(enhanced)
            + 5 * colour(enhanced).mean()
            + self.structure(enhanced, images).mean()
        )
        total: Tensor = known + brightening + 0.1 * told + 0.1 * reconstruction
        return total

    def structure(self, enhanced: Tensor, images: Tensor) -> Tensor:
        """How the differences of neighbouring patches change."""
        before, after = (
            functional.avg_pool2d(each.mean(1, keepdim=True), STRUCTURE_PATCH) for each in (images, enhanced)
        )
        total = torch.zeros_like(before)
        for number in range(len(NEIGHBOURS)):
            kernel = getattr(self, f"difference{number}")
            differences = (functional.conv2d(each, kernel, padding=1) for each in (before, after))
            total = total + torch.pow(next(differences) - next(differences), 2)
        return total

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """The vector of each picture, that of the mirror added, of unit length: (B, 1536)."""
        total = torch.zeros(())
        for view in (images, images.flip(3)):
            made, _, _, _ = self(view)
            total = total + torch.cat([made[name] for name in "evf"], 1)
        return functional.normalize(total)


def climb(network: nn.Module, images: Tensor) -> Tensor:
    """The pooled feature of a torchvision ResNet."""
    maps = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    maps = network.layer4(network.layer3(network.layer2(network.layer1(maps))))
    return network.avgpool(maps).flatten(1)


def smoothness(curves: Tensor) -> Tensor:
    batch, _, height, width = curves.shape
    vertical = torch.pow(curves[:, :, 1:] - curves[:, :, :-1], 2).sum() / ((height - 1) * width)
    horizontal = torch.pow(curves[:, :, :, 1:] - curves[:, :, :, :-1], 2).sum() / (height * (width - 1))
    return 2 * (vertical + horizontal) / batch


def exposure(enhanced: Tensor) -> Tensor:
    return torch.pow(functional.avg_pool2d(enhanced.mean(1, keepdim=True), PATCH) - WELL_EXPOSED, 2).mean()


def colour(enhanced: Tensor) -> Tensor:
    red, green, blue = torch.split(enhanced.mean((2, 3), keepdim=True), 1, dim=1)
    squares = (torch.pow(one - other, 2) for one, other in ((red, green), (red, blue), (blue, green)))
    return torch.pow(sum(torch.pow(each, 2) for each in squares), 0.5)
