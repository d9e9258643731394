"""From pixels to the logits of the K regions.

Shapes: B batch, K tokens, D token channels, H x W the token grid. Kinds other than the default serve as ablations.
"""

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from sgr_d2.checks import check_choice

from .pointwise import PointwiseConv2d

REGION_KINDS = ("sigmoid", "softmax", "fixed")
# Regions start faint (sigmoid(-2) = 12 %), so that the union of several is not saturated before anything is learnt.
REGION_BIAS = -2.0
EPS = 1e-6


def build_region_predictor(kind: str, token_dim: int, num_tokens: int, layers: int = 1) -> nn.Module:
    """Build the module that predicts the (B, K, H, W) float32 logits of the regions (before the sigmoid).

    Args:
        kind: "sigmoid", K independent maps; "softmax", maps that sum to 1 at every pixel; "fixed", `FixedRegions`.
        token_dim: D. num_tokens: K.
        layers: number of depthwise separable 3 x 3 convolutions with norm and ReLU before the prediction; not used
            by "fixed".

    Returns:
        A module called with pixels (B, D, H, W), valid (B, 1, H, W) and the images' extents (B, 2), rows and columns
        in cells. Its output on the padding is meaningless.

    Raises:
        ValueError: for an unknown kind, or a negative number of layers.
    """
    check_choice("MODEL.SGR.REGIONS", kind, REGION_KINDS)
    if layers < 0:
        raise ValueError(f"MODEL.SGR.REGION_LAYERS = {layers}: give 0 for none, or a positive number.")
    if kind == "fixed":
        return FixedRegions(num_tokens)
    return RegionPredictor(token_dim, num_tokens, layers, softmax=kind == "softmax")


class RegionPredictor(PointwiseConv2d):
    """A 1 x 1 convolution, after any number of depthwise separable 3 x 3 ones."""

    def __init__(self, token_dim: int, num_tokens: int, layers: int = 1, softmax: bool = False):
        super().__init__(token_dim, num_tokens)
        self.softmax = softmax
        self.layers = nn.ModuleList(_layer(token_dim) for _ in range(layers))
        nn.init.constant_(self.bias, 0.0 if softmax else REGION_BIAS)

    def forward(self, pixels: Tensor, valid: Tensor, extents: Tensor) -> Tensor:
        for layer in self.layers:
            pixels = layer(pixels * valid)  # zeros beyond the image, as beyond the border of the map
        logits = super().forward(pixels).float()
        return torch.logit(logits.softmax(dim=1), eps=EPS) if self.softmax else logits


class FixedRegions(nn.Module):
    """Soft-edged discs at random places of the image, whose content they ignore; they learn nothing.

    As regions of the concept tokens they are a control; beside those, they are the places of `MODEL.SGR.NUM_PLACES`.
    """

    def __init__(self, num_tokens: int):
        super().__init__()
        self.register_buffer("centres", torch.rand(num_tokens, 2))  # y, x as fractions of the image's height and width
        self.register_buffer("radii", torch.empty(num_tokens).uniform_(0.15, 0.5))

    def forward(self, pixels: Tensor, valid: Tensor, extents: Tensor) -> Tensor:
        rows, columns = (
            (torch.arange(length, device=pixels.device) + 0.5)[None, None] / extents[:, axis, None, None]
            for axis, length in enumerate(pixels.shape[-2:])
        )  # (B, 1, H), (B, 1, W)
        y = ((rows - self.centres[:, :1]) / self.radii[:, None]).square()  # (B, K, H)
        x = ((columns - self.centres[:, 1:]) / self.radii[:, None]).square()
        return 4.0 - 8.0 * (y[..., None] + x[:, :, None])


def _layer(channels: int) -> nn.Sequential:
    """A depthwise separable 3 x 3 convolution: an eighth of the operations of a full one."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        PointwiseConv2d(channels, channels),
        LayerNorm2d(channels),
        nn.ReLU(),
    )
