"""Converts an image in any common form to (H, W, 3) uint8 RGB."""

import os
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from sgr_d2.data.reading import IMAGE_FORMATS, pil_to_array, read_image

ImageLike: TypeAlias = str | os.PathLike | Image.Image | np.ndarray


def as_image(image: ImageLike, channels: str = "RGB") -> np.ndarray:
    """Convert a path, PIL image or array.

    Args:
        image: the path of a file; a PIL image of any mode, rotated according to its EXIF orientation; or a uint8 array:
            (H, W, 3), (H, W) or (H, W, 1) grey, or (H, W, 4), whose alpha is dropped.
        channels: channel order of an array, "RGB" or "BGR".

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, or an array has another shape or type.
        TypeError: if ``image`` is none of these.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(image, "RGB")
    if isinstance(image, Image.Image):
        return pil_to_array(image)
    if isinstance(image, np.ndarray):
        return _from_array(image, channels)
    raise TypeError(f"An image is a path, a PIL image or a numpy array; got {_describe(image)}.")


def _from_array(array: np.ndarray, channels: str) -> np.ndarray:
    if channels not in IMAGE_FORMATS:
        raise ValueError(f"channels must be one of {', '.join(IMAGE_FORMATS)}; got {channels!r}.")
    if array.dtype != np.uint8:
        raise ValueError(
            f"An image array must be uint8 (0..255); got {array.dtype}. "
            "For values in 0..1: (image * 255).astype('uint8')."
        )
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        hint = " Channels come last: image.transpose(1, 2, 0)." if array.ndim == 3 and len(array) in (1, 3, 4) else ""
        raise ValueError(f"An image array must be (H, W, 3), (H, W, 4) or (H, W); got {array.shape}.{hint}")
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    array = array[..., :3]
    return array if channels == "RGB" else array[..., ::-1]


def _describe(value: Any) -> str:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return f"{kind} (image.permute(1, 2, 0).numpy() turns a tensor into an array)" if "Tensor" in kind else kind
