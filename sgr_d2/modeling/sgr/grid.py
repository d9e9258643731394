"""Which cells of a feature map belong to the image, and resizing that keeps the padding out."""

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-6


def valid_cells(image_sizes: Tensor, stride: int, height: int, width: int) -> Tensor:
    """Mark the cells that touch the image.

    Args:
        image_sizes: (B, 2) heights and widths of the images in pixels, before padding.
        stride: pixels per cell.
        height, width: size of the map in cells.

    Returns:
        (B, 1, height, width) bool.
    """
    rows = torch.arange(height, device=image_sizes.device) * stride
    columns = torch.arange(width, device=image_sizes.device) * stride
    inside_y = rows[None] < image_sizes[:, :1]  # (B, H)
    inside_x = columns[None] < image_sizes[:, 1:]  # (B, W)
    return (inside_y[:, None, :, None] & inside_x[:, None, None, :]).contiguous()


def enlarge_valid(maps: Tensor, valid: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge ``maps`` bilinearly as if every image ended at its last valid cell.

    Renormalising by the resized mask extends the image's border cells outwards, just as resizing the image without
    padding would.

    Args:
        maps: (B, N, H, W).
        valid: (B, 1, H, W) bool.
        size: target height and width, at least those of ``maps``.

    Returns:
        (B, N, *size). Cells that no valid cell reaches are 0; ``maps`` itself if it has that size already.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    weight = valid.to(maps.dtype)
    resized = F.interpolate(maps * weight, size=size, mode="bilinear", align_corners=False)
    return resized / F.interpolate(weight, size=size, mode="bilinear", align_corners=False).clamp(min=EPS)


def shrink_valid(maps: Tensor, valid: Tensor, size: tuple[int, int]) -> Tensor:
    """Shrink ``maps``: every new cell is the mean of the valid cells that it covers.

    Args:
        maps: (B, N, H, W), must be 0 where ``valid`` is False: masking here would keep another copy for the gradient.
        valid: (B, 1, H, W) bool.
        size: target height and width, at most those of ``maps``.

    Returns:
        (B, N, *size). Cells that no valid cell reaches are 0; ``maps`` itself if it has that size already.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    share = F.adaptive_avg_pool2d(valid.to(maps.dtype), size)
    return F.adaptive_avg_pool2d(maps, size) / share.clamp(min=EPS)
