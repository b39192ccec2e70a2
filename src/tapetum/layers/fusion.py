"""Joining the features of two branches: IDF's bottleneck fusion model."""

from typing import Literal

from torch import Tensor, nn

FusionActivation = Literal["tanh_relu", "relu"]


class BottleneckFusion(nn.Module):
    """An autoencoder over the joined feature whose latent code is the fused feature.

    Encoder: width -> width/2 -> latent; decoder: latent -> width/2 -> width, the last one linear.

    Args:
        width: of the joined feature.
        latent_width: of the fused feature.
        activation: of the encoder: "tanh_relu" puts tanh after the first layer and ReLU after the second (released
            code), "relu" puts ReLU after both (paper). The decoder has ReLU between its layers either way.
    Source: IDF release, class "BFM"; linear layers keep PyTorch's initialisation.
    """

    def __init__(self, width: int, latent_width: int, activation: FusionActivation = "tanh_relu") -> None:
        super().__init__()
        first = nn.Tanh() if activation == "tanh_relu" else nn.ReLU()
        self.encoder = nn.Sequential(
            nn.Linear(width, width // 2), first, nn.Linear(width // 2, latent_width), nn.ReLU()
        )
        self.decoder = nn.Sequential(nn.Linear(latent_width, width // 2), nn.ReLU(), nn.Linear(width // 2, width))

    def forward(self, joined: Tensor) -> tuple[Tensor, Tensor]:
        """The fused feature and the reconstruction of what was joined.

        Args:
            joined: (B, width).
        Returns:
            (B, latent_width) and (B, width), float32.
        """
        latent = self.encoder(joined)
        return latent.float(), self.decoder(latent).float()
