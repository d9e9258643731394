"""A 2-D sine position code, which lets two instances of a class fall into different regions."""

import math

import torch
from torch import Tensor

TEMPERATURE = 10000.0  # ratio of the longest to the shortest wavelength


def add_sine_position(pixels: Tensor, extents: Tensor) -> Tensor:
    """Add `sine_position` to a feature map.

    Args:
        pixels: (B, D, H, W) features, D divisible by 4.
        extents: (B, 2) float, rows and columns of each image in cells.

    Returns:
        (B, D, H, W), ``pixels`` plus the code.
    """
    return pixels + sine_position(pixels.shape, extents).to(pixels.dtype)


def sine_position(shape: torch.Size, extents: Tensor) -> Tensor:
    """A sine position code, the first half of whose channels encodes y, the second x.

    Positions are relative to each image's own extent (0 to 2 pi from edge to edge), so the code depends neither on the
    batch's padding nor on the size of the image at test time.

    Args:
        shape: B, D, H, W of the code, D divisible by 4.
        extents: (B, 2) float, rows and columns of each image in cells.

    Returns:
        (B, D, H, W) float32, the channels last in memory.

    Source: the sine code of DETR (Carion et al. 2020).
    """
    _, channels, height, width = shape
    half = channels // 2
    code_y = _axis_code(height, extents[:, 0], half)[:, :, None].expand(-1, -1, width, -1)
    code_x = _axis_code(width, extents[:, 1], half)[:, None].expand(-1, height, -1, -1)
    return torch.cat([code_y, code_x], dim=3).permute(0, 3, 1, 2)


def _axis_code(length: int, extent: Tensor, channels: int) -> Tensor:
    """(B,) extents in cells -> (B, length, channels) float32."""
    cells = torch.arange(length, device=extent.device, dtype=torch.float32) + 0.5
    phase = cells[None] / extent[:, None] * (2 * math.pi)  # (B, length)
    order = torch.arange(channels // 2, device=extent.device, dtype=torch.float32)
    frequency = TEMPERATURE ** (-2 * order / channels)
    angle = phase[:, :, None] * frequency  # (B, length, channels/2)
    return torch.cat([angle.sin(), angle.cos()], dim=2)
