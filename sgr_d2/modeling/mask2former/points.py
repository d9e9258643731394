"""Points in [0, 1)^2 at which masks are compared, and how they are drawn (PointRend, section 3.1).

Shape legend: N maps, C channels, P points, (x, y) in the last dimension of points, 0 and 1 at the edges of the map.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class PointSource(Protocol):
    """Draws the random points of a training step; a deterministic one makes losses repeatable."""

    def __call__(self, purpose: str, layer: int, shape: tuple[int, int], device: torch.device) -> Tensor:
        """
        Args:
            purpose: "matcher" (a row per image), "candidates" or "rest" (a row per matched pair, ordered by image).
            layer: the layer of the prediction, counted as in `QueryPrediction`.
            shape: (rows, points).

        Returns:
            (rows, points, 2) float32 in [0, 1).
        """


def random_points(purpose: str, layer: int, shape: tuple[int, int], device: torch.device) -> Tensor:
    """Uniform points from torch's default generator of the device: the `PointSource` of training."""
    return torch.rand(*shape, 2, device=device)


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Sample maps bilinearly at points; zero outside the map, pixel centres at (i + 0.5) / size.

    Args:
        maps: (N, C, H, W) float. points: (N, P, 2).

    Returns:
        (N, C, P).
    """
    grid = 2 * points[:, :, None] - 1
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[..., 0]


def sample_pixels(maps: Tensor, points: Tensor) -> Tensor:
    """`sample_points` with the channels last; several times faster on a CPU for maps of many channels.

    Args:
        maps: (N, C, H, W) float32, preferably channels-last in memory. points: (N, P, 2) in [0, 1].

    Returns:
        (N, P, C). No gradient flows to the points.
    """
    height, width = maps.shape[-2:]
    rows = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])  # (N*H*W, C)
    columns, by_column = _neighbours(points[..., 0], width)
    lines, by_line = _neighbours(points[..., 1], height)
    image = torch.arange(len(maps), device=points.device)[:, None, None, None] * (height * width)
    index = lines[..., :, None] * width + columns[..., None, :] + image  # (N, P, 2, 2)
    weights = by_line[..., :, None] * by_column[..., None, :]
    sampled = F.embedding_bag(index.view(-1, 4), rows, mode="sum", per_sample_weights=weights.view(-1, 4))
    return sampled.view(*points.shape[:2], -1)


def _neighbours(coordinate: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The two pixels around each coordinate (...) along an axis, and their weights, zero outside: both (..., 2)."""
    low, share = _split(coordinate, size)
    both = torch.stack([low, low + 1], dim=-1)
    inside = (both >= 0) & (both < size)
    return both.clamp_(0, size - 1), torch.stack([1 - share, share], dim=-1) * inside


def bilinear_corners(points: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The four pixels around each point, in a map that has a border of one pixel on each side.

    Args:
        points: (..., 2) in [0, 1]. height, width: of the map without its border.

    Returns:
        index: (...) int32, flat index of the upper left one in the (height + 2, width + 2) map; the others are at
            +1, + width + 2 and + width + 3.
        x, y: (...) float32, the weight of the right pixels and of the lower ones.
    """
    left, x = _split(points[..., 0], width)
    top, y = _split(points[..., 1], height)
    return top.mul_(width + 2).add_(left).add_(width + 3), x, y


def _split(coordinate: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Coordinates in [0, 1] -> the last pixel whose centre is not beyond, int32 from -1, and its distance in pixels."""
    position = (coordinate * size).sub_(0.5)
    low = position.floor()
    return low.int(), position.sub_(low)
