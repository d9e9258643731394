"""Reads photographs and label maps; errors say which file is wrong, how, and what to do."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from detectron2.data.detection_utils import _apply_exif_orientation, convert_PIL_to_numpy
from PIL import ExifTags, Image

from sgr_d2.checks import check_choice
from sgr_d2.data.label_values import (
    Color,
    LabelMap,
    check_values,
    holds_colors,
    map_values,
    pack_colors,
    unpack_colors,
)
from sgr_d2.messages import first_few

logger = logging.getLogger(__name__)

IMAGE_FORMATS = ("RGB", "BGR")
# Images whose largest value, of 255, is below this are suspected to be darker than they should be.
DARK = 32
FEW_BITS = (
    "16-bit images are divided by 256; if yours use only 10 or 12 of the 16 bits, shift them to the full range, "
    "0..65535 (12 bits: image << 4)."
)
_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_INDEX_MODES = ("1", "L", "P", *_SIXTEEN_BIT_MODES)
# Pillow stretches grey of 2 and 4 bits to 0..255, by these factors.
_GREY_STEPS = {"L;2": 85, "L;4": 17}
_MAX_COLORS = 256  # more than classes have
_told_to_be_dark: set[str] = set()  # folders of files, and names of other images


def read_image(path: str | os.PathLike, format: str = "RGB") -> np.ndarray:
    """Read an image of any mode, rotated according to its EXIF orientation, without its alpha channel.

    16-bit values are divided by 256; the log warns, once per folder and process, of an image that is then almost black.

    Args:
        path: the file.
        format: channel order, "RGB" or "BGR".

    Returns:
        (H, W, 3) uint8.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file cannot be decoded, or ``format`` is unknown.
    """
    check_choice("INPUT.FORMAT", format, IMAGE_FORMATS)
    with _decoded(path, "image", indices=False) as image:
        return _to_array(image, path, format)


def pil_to_array(image: Image.Image, format: str = "RGB", *, name: str = "(PIL)") -> np.ndarray:
    """`read_image` for an image opened by Pillow: (H, W, 3) uint8; ``name`` is used in messages.

    Raises:
        ValueError: if it holds floating-point values, or cannot be decoded.
    """
    divided = _is_divided(image)
    try:
        image.load()
        upright = _apply_exif_orientation(image)
    except Exception as error:  # as in _decoded
        raise ValueError(f"Cannot decode image {name}: {error}.") from error
    if divided:
        _warn_if_dark(_largest_color(upright), name)
    return _to_array(upright, name, format)


def _to_array(image: Image.Image, name: str | os.PathLike, format: str) -> np.ndarray:
    if image.mode in _SIXTEEN_BIT_MODES:
        image = Image.fromarray(to_eight_bits(np.asarray(image), name))
    elif image.mode == "F":
        raise ValueError(f"Image {name} holds floating-point values; convert it to 8 or 16 bits.")
    return np.array(convert_PIL_to_numpy(image, format), order="C")  # a copy: Pillow's own array is read-only


def to_eight_bits(values: np.ndarray, name: str | os.PathLike) -> np.ndarray:
    """Divide the 16-bit values of an image by 256; the log warns of an image that is then almost black.

    Args:
        values: integers of any shape, at least one.
        name: of the image, for messages; if it is a file, one warning is given for its folder.

    Returns:
        uint8 of the same shape.

    Raises:
        ValueError: if a value has more than 16 bits.
    """
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError(f"Image {name} holds values of more than 16 bits ({values.min()}..{values.max()}).")
    _warn_if_dark(int(values.max()), name)
    return (values.astype(np.uint16) >> 8).astype(np.uint8)


def read_label(
    path: str | os.PathLike,
    *,
    num_classes: int,
    ignore_label: int,
    label_map: LabelMap | None = None,
    dtype: np.dtype | type | None = None,
) -> np.ndarray:
    """Read a label map: a single-channel (8-bit, 16-bit or palette) image of class indices, or values of ``label_map``.

    Args:
        path: the file.
        num_classes: valid labels are 0..num_classes-1.
        ignore_label: also valid; means "not labelled".
        label_map: as in :func:`.label_values.map_values`, if the file does not hold class indices.
        dtype: of the result; by default :func:`label_dtype`.

    Returns:
        (H, W) integers.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it cannot be decoded, has several channels, or holds invalid values.
    """
    values = read_values(path, colors=holds_colors(label_map))
    labels = map_values(values, path, label_map=label_map, ignore_label=ignore_label)
    check_values(labels, path, num_classes=num_classes, ignore_label=ignore_label)
    return labels.astype(dtype or label_dtype(num_classes, ignore_label))


def read_values(path: str | os.PathLike, kind: str = "label", *, colors: bool = False) -> np.ndarray:
    """Read the (H, W) integers of a single-channel (8-bit, 16-bit or palette) image without checking them.

    Args:
        path: the file.
        kind: the word for it in messages.
        colors: instead read the colours of an image of any mode, without its alpha channel, as int32 by
            :func:`.label_values.pack_colors`.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it cannot be decoded, or has several channels.
    """
    with _decoded(path, kind, indices=not colors) as image:
        return pack_colors(_to_array(image, path, "RGB")) if colors else _values_of(image, path)


def read_values_and_palette(path: str | os.PathLike) -> tuple[np.ndarray, dict[int, Color]]:
    """Return what `read_values` does, and {value: (R, G, B)} from the palette of the file; {} if it has none."""
    with _decoded(path, "label", indices=True) as image:
        values = _values_of(image, path)
        if image.mode != "P":
            return values, {}
        palette = np.reshape(image.getpalette("RGB"), (-1, 3))
    return values, {int(value): tuple(palette[value].tolist()) for value in np.unique(values) if value < len(palette)}


def _values_of(image: Image.Image, path: str | os.PathLike) -> np.ndarray:
    if image.mode not in _INDEX_MODES:
        raise ValueError(_describe_channels(image, path))
    values = np.asarray(image)
    return values.astype(np.uint8) if values.dtype == bool else values


def is_turned(path: str | os.PathLike) -> bool:
    """Whether a file that can be read has an EXIF orientation, by which `read_image` and `read_label` turn it."""
    with Image.open(path) as image:
        return image.getexif().get(ExifTags.Base.Orientation) in range(2, 9)


def size_hint(image: str | os.PathLike, size: tuple[int, int], other: tuple[int, int]) -> str:
    """What to say, after a space, if ``size`` (height, width) of an image file is that of its label swapped, or ""."""
    if size != other[::-1]:
        return ""
    return " The image is turned upright by its EXIF orientation." if is_turned(image) else " Is one of them rotated?"


def read_instances(path: str | os.PathLike, *, first_id: int = 1) -> np.ndarray:
    """Read a map of instance ids; those below ``first_id`` mean "no instance".

    Returns:
        (H, W) int32, 0 where there is no instance.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_values`.
    """
    values = read_values(path, "instance").astype(np.int32)
    return np.where(values >= first_id, values, 0)


def label_dtype(num_classes: int, ignore_label: int) -> np.dtype:
    """Return the smallest of uint8, uint16 and int32 that holds all classes and the ignore label."""
    for dtype in (np.uint8, np.uint16):
        if ignore_label >= 0 and max(num_classes - 1, ignore_label) <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return np.dtype(np.int32)


@contextmanager
def _decoded(path: str | os.PathLike, kind: str, *, indices: bool) -> Iterator[Image.Image]:
    """Yield the decoded, upright image of a file; if its values are ``indices``, they are not stretched to 0..255."""
    try:
        with Image.open(path) as image:
            step, divided = _GREY_STEPS.get(_raw_mode(image), 1), kind == "image" and _is_divided(image)
            image.load()
            upright = _apply_exif_orientation(image)
            if indices and step > 1:
                upright = upright.point([value // step for value in range(256)])
    except FileNotFoundError as error:
        raise FileNotFoundError(f"No {kind} file {path}. Check the path.") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and others for bad files
        raise ValueError(
            f"Cannot read {kind} file {path}: {error}. It is damaged, truncated, not readable for you, or not "
            "an image that Pillow reads (as a TIFF of floating-point colours); replace it, or leave it out."
        ) from error
    if divided:
        _warn_if_dark(_largest_color(upright), path)
    yield upright


def _is_divided(image: Image.Image) -> bool:
    """Whether Pillow divides the file's 16-bit colours by 256, which is known before the image is loaded."""
    return image.mode in ("RGB", "RGBA", "LA") and ";16" in _raw_mode(image)


def _largest_color(image: Image.Image) -> int:
    """The largest value, of 65535, that a colour can have had in an image that Pillow has divided by 256."""
    bands = dict(zip(image.getbands(), image.getextrema(), strict=True))
    return 256 * max(high for band, (_, high) in bands.items() if band != "A") + 255


def _warn_if_dark(largest: int, name: str | os.PathLike) -> None:
    """Warn of a 16-bit image whose largest value shows that it is stored with fewer bits."""
    if not 0 < largest < DARK << 8:
        return
    folder = os.path.dirname(os.path.abspath(name)) if os.path.exists(name) else os.fspath(name)
    if folder not in _told_to_be_dark:
        _told_to_be_dark.add(folder)
        logger.warning(
            "Image %s is almost black: its largest value is at most %d of 65535. %s Further images of its folder are "
            "not reported.",
            name,
            largest,
            FEW_BITS,
        )


def _raw_mode(image: Image.Image) -> str:
    """How the file stores its values, "L;4" for grey of 4 bits; known before the image is loaded."""
    tile = getattr(image, "tile", None)
    arguments = tile[0][3] if tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _describe_channels(image: Image.Image, path: str | os.PathLike) -> str:
    text = f"Label {path} is of mode {image.mode}; a label must be a single-channel map of class indices"
    if image.mode not in ("RGB", "RGBA"):
        return f"{text}, 8-bit, 16-bit or palette."
    red, green, blue = image.convert("RGB").split()
    if red.tobytes() == green.tobytes() == blue.tobytes():
        return (
            f"{text}. Its three channels are equal: keep one of them (Pillow: convert('L')) and save as PNG. If other "
            "labels are coloured, map this one's colours with theirs instead (LABEL_MAP)."
        )
    found = np.unique(pack_colors(np.asarray(image.convert("RGB"))))
    if len(found) > _MAX_COLORS:
        return f"{text}, and it holds {len(found)} colours, like photographs and JPEG files. Is it the label?"
    pairs = first_few([f"[{color}, ?]" for color in unpack_colors(found)], 16)
    return (
        f"{text}. It looks like a colour picture of the classes, of {len(found)} colours. In an entry of "
        f"DATASETS.FOLDERS set LABEL_MAP: [{pairs}], with the index of its class, or the ignore label, for each ?."
    )
