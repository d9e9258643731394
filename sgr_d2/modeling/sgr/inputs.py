"""Checks of what `SGR` is built and called with, none of which waits for a GPU."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from detectron2.layers import ShapeSpec
from torch import Tensor


def check_shapes(levels: Mapping[str, ShapeSpec]) -> None:
    """Raise ValueError unless there are levels, each with channels and a stride."""
    if not levels:
        raise ValueError("SGR needs at least one level; MODEL.SGR.IN_FEATURES is empty.")
    for name, level in levels.items():
        if not getattr(level, "channels", None) or not getattr(level, "stride", None):
            raise ValueError(f"SGR: the shape of {name} is {level}: give ShapeSpec(channels=..., stride=...).")


def checked_sizes(
    image_sizes: Tensor | Sequence[tuple[int, int]] | None,
    features: Mapping[str, Tensor],
    levels: Mapping[str, ShapeSpec],
) -> Tensor:
    """Return the image sizes (B, 2) on the device of the features.

    Args:
        image_sizes: heights and widths in pixels, before padding; the values of a tensor are not checked. None if the
            images fill the maps.
        features: {name: (B, C, H, W)}.
        levels: shapes of the levels that SGR reads, finest first.

    Raises:
        ValueError: if a level is missing or has other channels, the levels are not of one batch or of one image size,
            or the image sizes do not fit them.
    """
    _check_levels(features, levels)
    finest = next(iter(levels))
    batch, stride = features[finest].shape[0], levels[finest].stride
    height, width = (cells * stride for cells in features[finest].shape[-2:])
    if image_sizes is None:
        image_sizes = [(height, width)] * batch
    if not isinstance(image_sizes, Tensor):
        image_sizes = image_sizes.tolist() if isinstance(image_sizes, np.ndarray) else image_sizes
        for size in image_sizes:
            pair = isinstance(size, Sequence) and len(size) == 2
            if not pair or not (1 <= size[0] <= height and 1 <= size[1] <= width):
                raise ValueError(
                    f"SGR: image size {size} does not fit {finest} of {height}x{width} pixels: give a (height, width) "
                    "in pixels, before padding, for each image."
                )
        image_sizes = torch.tensor(image_sizes, device=features[finest].device)
    if tuple(image_sizes.shape) != (batch, 2):
        raise ValueError(
            f"SGR: image sizes of shape {tuple(image_sizes.shape)} for {batch} images: give a (height, width) for each."
        )
    return image_sizes


def _check_levels(features: Mapping[str, Tensor], levels: Mapping[str, ShapeSpec]) -> None:
    if not isinstance(features, Mapping):
        kind = type(features).__name__
        raise ValueError(f"SGR: the features are a {kind}: give a dict of the levels {list(levels)}.")
    absent = [name for name in levels if name not in features]
    if absent:
        raise ValueError(f"SGR reads {list(levels)}, but the features are {list(features)}: {absent} is missing.")
    finest = next(iter(levels))
    for name, level in levels.items():
        shape, first = tuple(features[name].shape), tuple(features[finest].shape)
        if len(shape) != 4 or shape[1] != level.channels:
            raise ValueError(
                f"SGR: {name} is {shape}, but its ShapeSpec (of a backbone: output_shape()) says (B, {level.channels}, "
                "H, W). Correct one of the two."
            )
        far = any(
            abs(cells * level.stride - most * levels[finest].stride) >= level.stride
            for cells, most in zip(shape[-2:], first[-2:], strict=True)
        )
        if shape[0] != first[0] or far:
            raise ValueError(
                f"SGR: {finest} of stride {levels[finest].stride} is {first}, but {name} of stride {level.stride} is "
                f"{shape}: they must be of the same images (B, C, H, W)."
            )
