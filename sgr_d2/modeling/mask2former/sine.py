"""The sine position code of a whole map (Mask2Former and DETR), added to the tokens in both decoders of the head."""

import math

import torch
from torch import Tensor

TEMPERATURE = 10000.0


def sine_position(height: int, width: int, channels: int, *, device: torch.device | str | None = None) -> Tensor:
    """A code of rows and columns, whose phase runs from just above 0 to 2 pi whatever the size of the map.

    Args:
        height, width: of the map, in cells.
        channels: C, a multiple of 4. The first half encodes the row, the second the column; in a half, even entries
            are sines and odd ones cosines of the same wavelengths.

    Returns:
        (1, C, height, width) float32, laid out as (height, width, C), so that flattening it into tokens is free.

    Raises:
        ValueError: if ``channels`` is not a multiple of 4.

    Source: the normalised sine code of DETR (Carion et al. 2020) as Mask2Former uses it: cells count from 1.
    """
    if channels % 4:
        raise ValueError(f"The sine code needs a number of channels that is a multiple of 4, not {channels}.")
    rows = _axis_code(height, channels // 2, device)[:, None].expand(height, width, -1)
    columns = _axis_code(width, channels // 2, device)[None].expand(height, width, -1)
    return torch.cat([rows, columns], dim=-1).permute(2, 0, 1)[None]


def _axis_code(length: int, channels: int, device: torch.device | str | None) -> Tensor:
    """(length, channels)."""
    cells = torch.arange(1, length + 1, device=device, dtype=torch.float32)
    phase = cells / (length + 1e-6) * (2 * math.pi)
    order = torch.arange(channels // 2, device=device, dtype=torch.float32)
    angle = phase[:, None] / TEMPERATURE ** (2 * order / channels)  # (length, channels/2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
