"""What most methods share: the raw vectors of a picture and of its mirror are summed, and scaled once."""

from typing import Any

from torch import Tensor, nn

from tapetum.core.vectors import normalise


class Mirrored(nn.Module):
    """A method that gives a picture one raw vector; its file says which, by `describe` or by `compute_vectors`."""

    options: Any

    def embed(self, images: Tensor, modalities: Tensor, camids: Tensor, *, mirror: bool = False) -> Tensor:
        """Vectors for search, (B, D) float32 of unit length; with `mirror` the raw vectors of both are summed first."""
        vectors = self.compute_vectors(images, modalities, camids)
        if mirror:
            vectors = vectors + self.compute_vectors(images.flip(3), modalities, camids)
        return self.scale(vectors)

    def compute_vectors(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:
        """The raw vectors for search, (B, D) or in parts; arguments as for `forward`."""
        return self.describe(self.forward(images, modalities, camids))

    def describe(self, output: Any) -> Tensor:
        """The raw vectors for search of what `forward` gives: those that the option `test_feature` names."""
        vectors: Tensor = output.embedding if self.options.test_feature == "head" else output.feature
        return vectors

    def scale(self, vectors: Tensor) -> Tensor:
        """Raw vectors as they are searched with, (B, D) of unit length."""
        return normalise(vectors)
