"""Converts an image in any common form to (H, W, 3) uint8 RGB."""

import glob
import os
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sgr_d2.data.reading import IMAGE_FORMATS, pil_to_array, read_image, to_eight_bits

ImageLike: TypeAlias = str | os.PathLike | Image.Image | np.ndarray
_CHANNELS = (1, 3, 4)
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
_MANY = (
    "Predict many images one after another with predictor.stream(sorted(glob.glob({pattern!r}))), or on the command "
    "line with tools/predict.py, which takes folders, patterns and videos."
)
_DTYPES = (np.uint8, np.uint16)


def as_image(image: ImageLike, channels: str = "RGB") -> np.ndarray:
    """Convert a path, PIL image or array.

    Args:
        image: the path of a file; a PIL image of any mode, rotated according to its EXIF orientation; or a uint8 or
            uint16 array: (H, W, 3), (H, W) or (H, W, 1) grey, or (H, W, 4), whose alpha is dropped. 16-bit values, of
            files and of arrays, are divided by 256.
        channels: channel order of an array, "RGB" or "BGR".

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, is a folder or a video, or an array has another shape or type.
        TypeError: if ``image`` is none of these.
    """
    if isinstance(image, str | os.PathLike):
        _require_one_image(image)
        return read_image(image, "RGB")
    if isinstance(image, Image.Image):
        return pil_to_array(image, name=getattr(image, "filename", "") or "(PIL)")
    if isinstance(image, np.ndarray):
        return _from_array(image, channels)
    raise TypeError(f"An image is a path, a PIL image or a numpy array; got {_describe(image)}")


def require_several(images: Any) -> None:
    """Raise TypeError for a single image in place of an iterable of images: its parts would be taken for images."""
    array = isinstance(images, np.ndarray | Tensor)
    if isinstance(images, str | os.PathLike):
        what = f"the path {os.fspath(images)!r}"
    elif isinstance(images, Image.Image):
        what = "a PIL image"
    elif array and images.ndim in (0, 2, 3):  # (N,) may hold paths
        what = f"{'an array' if isinstance(images, np.ndarray) else 'a tensor'} of shape {tuple(images.shape)}"
    else:
        return
    more = " For N grey images, an array (N, H, W), give list(images)." if array and images.ndim == 3 else ""
    raise TypeError(f"stream takes an iterable of images; got {what}. For one image use predictor(image).{more}")


def _require_one_image(path: str | os.PathLike) -> None:
    """Raise an error that tells how to predict a folder, a glob pattern or a video instead of one image."""
    name = os.fspath(path)
    if os.path.isdir(name):
        raise ValueError(f"{name} is a folder, not an image. {_MANY.format(pattern=os.path.join(name, '*.jpg'))}")
    if not os.path.exists(name) and glob.has_magic(name):
        raise FileNotFoundError(f"No image file {name}; it looks like a pattern. {_MANY.format(pattern=name)}")
    if os.path.isfile(name) and name.lower().endswith(VIDEO_SUFFIXES):
        raise ValueError(
            f"{name} is a video, not an image. tools/predict.py predicts videos; in Python, read the frames with "
            'OpenCV and predict them with predictor.stream(frames, channels="BGR") (docs/inference.md).'
        )


def _from_array(array: np.ndarray, channels: str) -> np.ndarray:
    if channels not in IMAGE_FORMATS:
        raise ValueError(f"channels must be one of {', '.join(IMAGE_FORMATS)}; got {channels!r}.")
    if array.dtype not in _DTYPES:
        raise ValueError(f"An image array must be uint8 or uint16; got {array.dtype}. {_dtype_hint(array)}")
    shape = array.shape
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in _CHANNELS or array.size == 0:
        hint = " Channels come last: image.transpose(1, 2, 0)." if array.ndim == 3 and len(array) in _CHANNELS else ""
        raise ValueError(f"An image array must be (H, W, 3), (H, W, 4) or (H, W); got {shape}.{hint}")
    array = array[..., :3]
    if array.dtype == np.uint16:
        array = to_eight_bits(array, "(array)")
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    return array if channels == "RGB" else array[..., ::-1]


def _dtype_hint(array: np.ndarray) -> str:
    """How to convert ``array``, which is neither uint8 nor uint16, judged by its values."""
    if array.dtype == bool:
        return "For black and white: image.astype('uint8') * 255."
    if array.dtype.kind not in "fiu" or not array.size:
        return "Give values in 0..255 as uint8."
    low, high = array.min(), array.max()
    if low >= 0 and high <= 1 and array.dtype.kind == "f":
        return "For values in 0..1: (image * 255).astype('uint8')."
    if low >= 0 and high <= 255:
        return "Its values are in 0..255: image.astype('uint8')."
    if low >= 0 and high <= 0xFFFF:
        return "Its values have 16 bits: image.astype('uint16')."
    return f"Its values, {low:g} to {high:g}, are not 0..255: undo a normalisation or scale them, and convert to uint8."


def _describe(value: Any) -> str:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return f"{kind} {tuple(value.shape)}. {_tensor_hint(value)}" if isinstance(value, Tensor) else f"{kind}."


def _tensor_hint(tensor: Tensor) -> str:
    """How to make an image array of ``tensor``, judged by its shape and values."""
    steps = ".detach()" if tensor.requires_grad else ""
    steps += ".cpu()" if tensor.device.type != "cpu" else ""
    if tensor.ndim in (3, 4) and tensor.shape[-1] not in _CHANNELS and tensor.shape[-3] in _CHANNELS:
        steps += ".permute(1, 2, 0)" if tensor.ndim == 3 else ".permute(0, 2, 3, 1)"
    steps += ".float()" if tensor.dtype == torch.bfloat16 else ""
    array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy()
    more = "" if array.dtype in _DTYPES else f" {_dtype_hint(array)}"
    return f"image = image{steps}.numpy() makes an array of it.{more}"
