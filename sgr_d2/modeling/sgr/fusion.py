"""From tokens back to the levels: re-projection, and the blocks that add its result to the features.

Shapes: B batch, K tokens, D token channels, C and H x W channels and size of the level. Source: arXiv 2212.03338 for
the data flow; the formulas are ours.
"""

from collections.abc import Sequence

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from sgr_d2.checks import check_choice

from .batch_norm import BatchNorm
from .pointwise import PointwiseConv2d
from .position import sine_position
from .recompute import recomputed

EPS = 1e-6
Places = tuple[Tensor, Tensor]  # tokens of places (B, N, D) and their regions (B, N, H, W)


class Fusion(nn.Module):
    """F + conv(ReLU(norm(conv([F, Y])))), the last convolution initialised to zero.

    All convolutions are 1 x 1. The part of the first one that reads Y is applied to the tokens before they are
    re-projected: as re-projection is linear, the result is the same, at the cost of K instead of H*W vectors.
    """

    def __init__(
        self,
        channels: int,
        token_dim: int,
        init: str = "zero",
        norm: nn.Module | None = None,
        relative: bool = False,
        places: bool = False,
        position: bool = False,
    ):
        """
        Args:
            channels: C. token_dim: D.
            init: of the last convolution: "zero", or "normal", with which the block does not start as the identity.
            norm: a norm of D channels; None for a LayerNorm over them.
            relative: multiply what is added by the `root_mean_square` of the image's features, so that the relative
                change does not depend on their magnitude, which differs between a pyramid and a bare backbone.
            places: whether there are tokens of places, too. Their Y has a part of the first convolution of its own.
            position: whether the first convolution also reads the position of the cell, as `sine_position`.

        Raises:
            ValueError: for an unknown ``init``.
        """
        check_choice("MODEL.SGR.FUSION_INIT", init, ("zero", "normal"))
        super().__init__()
        self.relative = relative
        self.from_features = PointwiseConv2d(channels, token_dim)
        self.from_tokens = nn.Linear(token_dim, token_dim, bias=False)
        self.from_places = nn.Linear(token_dim, token_dim, bias=False) if places else None
        self.from_position = PointwiseConv2d(token_dim, token_dim) if position else None
        self.norm = norm or LayerNorm2d(token_dim)
        self.out = PointwiseConv2d(token_dim, channels)
        if init == "zero":
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)
        else:
            nn.init.kaiming_normal_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(
        self,
        features: Tensor,
        tokens: Tensor,
        regions: Tensor | None,
        valid: Tensor | None = None,
        places: Places | None = None,
        extents: Tensor | None = None,
    ) -> Tensor:
        """(B, C, H, W), (B, K, D), (B, K, H, W), mask of the unpadded cells (B, 1, H, W) -> (B, C, H, W).

        Without regions, ``tokens`` are (B, H*W, D), one for each cell. ``places`` are further tokens and their regions,
        ``extents`` (B, 2) rows and columns of each image in cells, for the position.
        """
        mixed = [self.from_tokens(tokens), regions]
        if places is not None:
            mixed += [self.from_places(places[0]), places[1]]
        correction = self._correction(features, valid, extents, mixed)
        if not self.relative:
            return features + correction
        return torch.addcmul(
            features, root_mean_square(features, valid).to(features.dtype), correction.to(features.dtype)
        )

    def _correction(
        self, features: Tensor, valid: Tensor | None, extents: Tensor | None, mixed: list[Tensor | None]
    ) -> Tensor:
        """What is added to F (B, C, H, W), before it is scaled.

        Args:
            mixed: tokens after the first convolution, and their regions, one pair after the other.
            features, valid, extents: see `forward`.
        """
        pixels = self._with_position(self.from_features(features), extents)  # (B, D, H, W)
        # Only `pixels` is kept for the backward pass; the other D + D + K maps are recomputed. That repeats no
        # convolution, since the last one needs its input and not its output.
        return recomputed(self._from_pixels, pixels, *mixed)

    def _with_position(self, pixels: Tensor, extents: Tensor | None) -> Tensor:
        if self.from_position is None:
            return pixels
        return pixels + self.from_position(sine_position(pixels.shape, extents))

    def _from_pixels(self, pixels: Tensor, *mixed: Tensor | None) -> Tensor:
        with torch.autocast(pixels.device.type, enabled=False):
            spread = _spread(mixed, pixels.shape[-2:])
        hidden = self.norm(pixels + spread)
        return self.out(F.relu(hidden))


class BatchNormFusion(Fusion):
    """F + conv(norm(ReLU(conv([LN(F), Y])))), with the norm over images and positions.

    After a ReLU no channel is negative, and the last convolution first learns from what has the same sign everywhere:
    most of what `Fusion` adds is a bias. Here the norm removes that before the last convolution.
    """

    def __init__(self, channels: int, token_dim: int, init: str = "zero", norm: str = "BN", **options: bool):
        """
        Args:
            channels: C. token_dim: D. init, options: see `Fusion`.
            norm: "BN" or "SyncBN".
        """
        super().__init__(channels, token_dim, init, BatchNorm(token_dim, sync=norm == "SyncBN"), **options)
        self.features_norm = LayerNorm2d(channels)

    def _correction(
        self, features: Tensor, valid: Tensor | None, extents: Tensor | None, mixed: list[Tensor | None]
    ) -> Tensor:
        # Only the map that is normalised is kept for the backward pass; the others are recomputed.
        hidden = recomputed(self._hidden, features, valid, extents, *mixed)
        if isinstance(self.norm, BatchNorm):
            return self.norm(hidden, weight=self.out.weight, bias=self.out.bias, valid=valid)
        return self.out(self._normalized(hidden, valid))  # after nn.SyncBatchNorm.convert_sync_batchnorm

    def _normalized(self, hidden: Tensor, valid: Tensor | None) -> Tensor:
        """Apply a norm that cannot mask cells: it gets only the valid ones, as one row (1, D, cells, 1)."""
        if valid is None:
            return self.norm(hidden)
        inside, by_cell = valid.movedim(1, -1), hidden.movedim(1, -1)  # (B, H, W, 1), (B, H, W, D)
        row = by_cell[inside[..., 0]].T[None, ..., None].contiguous()  # see TokenBatchNorm
        cells = self.norm(row)[0, ..., 0].T
        return by_cell.masked_scatter(inside, cells.to(by_cell.dtype)).movedim(-1, 1)

    def _hidden(self, features: Tensor, valid: Tensor | None, extents: Tensor | None, *mixed: Tensor | None) -> Tensor:
        """(B, C, H, W) features, and ``mixed`` of `_correction` -> (B, D, H, W), 0 on the padding."""
        pixels = self._with_position(self.from_features(self.features_norm(features)), extents)
        with torch.autocast(pixels.device.type, enabled=False):
            hidden = F.relu(pixels + _spread(mixed, pixels.shape[-2:]))
            # `masked_fill` would put the channels first in memory
            return hidden if valid is None else torch.where(valid, hidden, hidden.new_zeros(()))


def build_fusion(channels: int, token_dim: int, init: str, norm: str, **options: bool) -> Fusion:
    """Build the fusion block for ``norm`` (MODEL.SGR.NORM), with the ``options`` of `Fusion`."""
    if norm == "LN":
        return Fusion(channels, token_dim, init, **options)
    return BatchNormFusion(channels, token_dim, init, norm, **options)


def root_mean_square(features: Tensor, valid: Tensor | None = None) -> Tensor:
    """The root mean square of each image's features, without gradient.

    Args:
        features: (B, C, H, W). valid: (B, 1, H, W) bool, the cells that count, None for all.

    Returns:
        (B, 1, 1, 1) float32.
    """
    squares = torch.linalg.vector_norm(features.detach(), dim=1, keepdim=True, dtype=torch.float32).square()
    if valid is None:
        return squares.mean((2, 3), keepdim=True).div(features.shape[1]).sqrt()
    cells = valid.sum((2, 3), keepdim=True).clamp(min=1)
    return (torch.where(valid, squares, 0).sum((2, 3), keepdim=True) / (cells * features.shape[1])).sqrt()


def reproject(tokens: Tensor, regions: Tensor) -> Tensor:
    """Give every pixel the mean of the tokens, weighted by their regions: Y(p) = sum_k P_kp T_k / (sum_k P_kp + eps).

    Args:
        tokens: (B, K, D). regions: (B, K, H, W). Both float32.

    Returns:
        (B, D, H, W).
    """
    weights = regions.flatten(2)  # (B, K, H*W)
    weights = weights / (weights.sum(1, keepdim=True) + EPS)  # dividing K maps rather than D
    pixels = torch.bmm(weights.transpose(1, 2), tokens)  # (B, H*W, D), the memory order of channels-last features
    return pixels.transpose(1, 2).unflatten(2, regions.shape[-2:])


def _spread(mixed: Sequence[Tensor | None], size: torch.Size) -> Tensor:
    """``mixed`` of `Fusion._correction` -> (B, D, H, W) float32: the sum of `reproject` of each of its pairs.

    Without regions, the tokens (B, H*W, D) are the map.
    """
    first, *others = (
        tokens.float().transpose(1, 2).unflatten(2, size)
        if regions is None
        else reproject(tokens.float(), regions.float())
        for tokens, regions in zip(mixed[::2], mixed[1::2], strict=True)
    )
    return sum(others, start=first)
