"""Which cells of a feature map belong to the image, and resizing that keeps the padding out."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F


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


def enlarge_valid(maps: Tensor, valid: Tensor, size: tuple[int, int], ratio: float) -> Tensor:
    """Enlarge ``maps`` bilinearly as if every image ended at its last valid cell.

    Renormalising by the resized mask extends the image's border cells outwards, just as resizing the image without
    padding would.

    Args:
        maps: (B, N, H, W).
        valid: (B, 1, H, W) bool.
        size: target height and width, at least those of ``maps``.
        ratio: of the stride of ``maps`` to that of the result; see `_is_partition`.

    Returns:
        (B, N, *size). Cells that no valid cell reaches are 0; ``maps`` itself if it has that size already.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    covered = size
    if _is_partition(maps.shape[-2:], size, ratio):
        covered = [length * int(ratio) for length in maps.shape[-2:]]
    weight = valid.to(maps.dtype)
    resized, share = (
        F.interpolate(m, size=covered, mode="bilinear", align_corners=False)[..., : size[0], : size[1]]
        for m in (maps * weight, weight)
    )
    return resized / _divisor(share)


def shrink_valid(maps: Tensor, valid: Tensor, size: tuple[int, int], ratio: float) -> Tensor:
    """Shrink ``maps``: every new cell is the mean of the valid cells that it covers.

    Args:
        maps: (B, N, H, W), must be 0 where ``valid`` is False: masking here would keep another copy for the gradient.
        valid: (B, 1, H, W) bool.
        size: target height and width, at most those of ``maps``.
        ratio: of the stride of the result to that of ``maps``; see `_is_partition`.

    Returns:
        (B, N, *size). Cells that no valid cell reaches are 0; ``maps`` itself if it has that size already.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if _is_partition(size, maps.shape[-2:], ratio):
        pool = partial(F.avg_pool2d, kernel_size=int(ratio), ceil_mode=True)  # of a cell in part outside: of the rest
    else:
        pool = partial(F.adaptive_avg_pool2d, output_size=size)
    return pool(maps) / _divisor(pool(valid.to(maps.dtype)))


def _divisor(share: Tensor) -> Tensor:
    """``share``, and 1 where it is 0: by a tiny number instead, gradients in float16 would overflow there."""
    return torch.where(share > 0, share, 1)


def _is_partition(coarse: Sequence[int], fine: Sequence[int], ratio: float) -> bool:
    """Whether each cell of a map of size ``coarse`` is a square of ``ratio`` cells of a map of size ``fine``.

    The last row and column may be in part outside the fine map: p6 of a pyramid has cells of 64 pixels on images
    padded to multiples of 32. Where this is False, both maps are taken to cover the same pixels.
    """
    return ratio == int(ratio) and all(-(-f // int(ratio)) == c for f, c in zip(fine, coarse, strict=True))
