"""Checks of what `SGR` is called with, none of which waits for a GPU."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def checked_sizes(
    image_sizes: Tensor | Sequence[tuple[int, int]], features: Mapping[str, Tensor], strides: Mapping[str, int]
) -> Tensor:
    """Return the image sizes (B, 2) on the device of the features.

    Args:
        image_sizes: heights and widths in pixels, before padding; the values of a tensor are not checked.
        features: {name: (B, C, H, W)}. strides: {name: pixels per cell} of the levels that SGR reads, finest first.

    Raises:
        ValueError: if a level is missing, the levels are not of one batch or of one image size, or the image sizes do
            not fit them.
    """
    absent = [name for name in strides if name not in features]
    if absent:
        raise ValueError(f"SGR reads {list(strides)}, but the features are {list(features)}: {absent} is missing.")
    finest = next(iter(strides))
    batch, rows, columns = features[finest].shape[0], *features[finest].shape[-2:]
    for name, stride in strides.items():
        level = features[name]
        pixels = [
            (cells * stride, most * strides[finest])
            for cells, most in zip(level.shape[-2:], (rows, columns), strict=True)
        ]
        if level.shape[0] != batch or any(abs(here - there) >= stride for here, there in pixels):
            raise ValueError(
                f"SGR: {finest} of stride {strides[finest]} is {tuple(features[finest].shape)}, but {name} of stride "
                f"{stride} is {tuple(level.shape)}: they must be of the same images (B, C, H, W)."
            )
    if not isinstance(image_sizes, Tensor):
        limits = rows * strides[finest], columns * strides[finest]
        for size in image_sizes:
            if len(size) != 2 or any(not 1 <= side <= most for side, most in zip(size, limits, strict=True)):
                raise ValueError(
                    f"SGR: image size {tuple(size)} does not fit {finest} of {limits[0]}x{limits[1]} pixels: "
                    "give (height, width) in pixels, before padding."
                )
        image_sizes = torch.tensor(image_sizes, device=features[finest].device)
    if tuple(image_sizes.shape) != (batch, 2):
        raise ValueError(
            f"SGR: image sizes of shape {tuple(image_sizes.shape)} for {batch} images: give a (height, width) for each."
        )
    return image_sizes
