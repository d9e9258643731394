"""Read photographs and label maps; say which file is wrong, how, and what to do."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from detectron2.data.detection_utils import _apply_exif_orientation, convert_PIL_to_numpy
from PIL import Image

from sgr_d2.checks import check_choice

IMAGE_FORMATS = ("RGB", "BGR")
_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_INDEX_MODES = ("1", "L", "P", *_SIXTEEN_BIT_MODES)


def read_image(path: str | os.PathLike, format: str = "RGB") -> np.ndarray:
    """Read an image of any mode, turned upright by its EXIF orientation, without its alpha channel.

    Args:
        path: the file.
        format: "RGB" or "BGR", the order of the channels.

    Returns:
        (H, W, 3) uint8; 16-bit grey values are scaled to 8 bits.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file cannot be decoded, or ``format`` is neither.
    """
    check_choice("INPUT.FORMAT", format, IMAGE_FORMATS)
    with _decoded(path, "image") as image:
        return _to_array(image, path, format)


def pil_to_array(image: Image.Image, format: str = "RGB", *, name: str = "(PIL)") -> np.ndarray:
    """The same for an image that Pillow has opened: (H, W, 3) uint8; ``name`` stands for it in messages.

    Raises:
        ValueError: it holds floating-point values, or cannot be decoded.
    """
    try:
        image.load()
        upright = _apply_exif_orientation(image)
    except Exception as error:  # as in _decoded
        raise ValueError(f"Cannot decode image {name}: {error}.") from error
    return _to_array(upright, name, format)


def _to_array(image: Image.Image, name: str | os.PathLike, format: str) -> np.ndarray:
    if image.mode in _SIXTEEN_BIT_MODES:
        image = _to_eight_bits(image, name)
    elif image.mode == "F":
        raise ValueError(f"Image {name} holds floating-point values; convert it to 8 or 16 bits.")
    return np.array(convert_PIL_to_numpy(image, format), order="C")  # a copy: Pillow's own array is read-only


def read_label(
    path: str | os.PathLike,
    *,
    num_classes: int,
    ignore_label: int,
    label_map: Sequence[int] | Mapping[int, int] | None = None,
    dtype: np.dtype | type | None = None,
) -> np.ndarray:
    """Read a label map: a single-channel (8-bit, 16-bit or palette) image of class indices.

    Args:
        path: the file.
        num_classes: valid labels are 0..num_classes-1.
        ignore_label: also valid; means "not labelled".
        label_map: as in :func:`map_values`, where the file does not hold class indices.
        dtype: of the result; by default :func:`label_dtype`.

    Returns:
        (H, W) integers.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it cannot be decoded, has several channels, or holds another value.
    """
    labels = map_values(read_values(path), path, label_map=label_map, ignore_label=ignore_label)
    check_values(labels, path, num_classes=num_classes, ignore_label=ignore_label)
    return labels.astype(dtype or label_dtype(num_classes, ignore_label))


def read_values(path: str | os.PathLike, kind: str = "label") -> np.ndarray:
    """Read the (H, W) integers of a single-channel (8-bit, 16-bit or palette) image, whatever they are.

    Args:
        path: the file.
        kind: the word for it in messages.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it cannot be decoded, or has several channels.
    """
    with _decoded(path, kind) as image:
        if image.mode not in _INDEX_MODES:
            raise ValueError(_describe_channels(image, path))
        values = np.asarray(image)
    return values.astype(np.uint8) if values.dtype == bool else values


def map_values(
    values: np.ndarray,
    path: str | os.PathLike,
    *,
    label_map: Sequence[int] | Mapping[int, int] | None,
    ignore_label: int,
) -> np.ndarray:
    """Return the labels (H, W) that the values (H, W) of a file mean.

    Args:
        values: of the file.
        path: the file, for messages.
        label_map: item v is the label that the value v means; None: the values are labels.
        ignore_label: as a value that the map does not have it means itself.

    Raises:
        ValueError: the file holds a value that the map does not have.
    """
    if label_map is None:
        return values
    table, has = _table(label_map)
    inside = (values >= 0) & (values < len(table))
    indices = np.where(inside, values, 0)
    known = inside & has[indices]
    wrong = np.unique(values[~known & (values != ignore_label)])
    if wrong.size:
        raise ValueError(f"Label {path} holds {_shown(wrong)}, for which LABEL_MAP has no label. Add what they mean.")
    return np.where(known, table[indices], ignore_label)


def _table(label_map: Sequence[int] | Mapping[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The label of each value from 0 on, and whether it has one."""
    if not isinstance(label_map, Mapping):
        return np.asarray(label_map, np.int32), np.ones(len(label_map), bool)
    table, has = np.zeros(max(label_map) + 1, np.int32), np.zeros(max(label_map) + 1, bool)
    table[list(label_map)], has[list(label_map)] = list(label_map.values()), True
    return table, has


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
def _decoded(path: str | os.PathLike, kind: str) -> Iterator[Image.Image]:
    """Yield the decoded, upright image of a file."""
    try:
        with Image.open(path) as image:
            image.load()
            upright = _apply_exif_orientation(image)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"No {kind} file {path}. Check the path, or make the {kind} again.") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and others for bad files
        raise ValueError(
            f"Cannot read {kind} file {path}: {error}. It is damaged, cut short, not readable for you or no image at "
            "all; replace it, or take it out of the data set."
        ) from error
    yield upright


def _to_eight_bits(image: Image.Image, path: str | os.PathLike) -> Image.Image:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError(f"Image {path} holds values of more than 16 bits ({values.min()}..{values.max()}).")
    return Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))


def _describe_channels(image: Image.Image, path: str | os.PathLike) -> str:
    text = f"Label {path} is of mode {image.mode}; a label must be a single-channel map of class indices"
    if image.mode not in ("RGB", "RGBA"):
        return f"{text}, 8-bit, 16-bit or palette."
    red, green, blue = image.convert("RGB").split()
    if red.tobytes() == green.tobytes() == blue.tobytes():
        return f"{text}. Its three channels are equal: keep one of them (Pillow: convert('L')) and save as PNG."
    return f"{text}. It looks like a colour picture of the classes: map each colour to its class index and save as PNG."


def check_values(labels: np.ndarray, path: str | os.PathLike, *, num_classes: int, ignore_label: int) -> None:
    """Raise ValueError, with a guess at the reason, where ``labels`` (H, W) are no class and not to be ignored."""
    if labels.size == 0 or (labels.max() < num_classes and labels.min() >= 0):
        return
    wrong = (labels >= num_classes) & (labels != ignore_label)
    if labels.dtype.kind == "i":
        wrong |= (labels < 0) & (labels != ignore_label)
    if not wrong.any():
        return
    found = np.unique(labels[wrong])
    raise ValueError(
        f"Label {path} holds {_shown(found)}, neither a class (0..{num_classes - 1}) nor the ignore label "
        f"({ignore_label}). " + _hint(labels, found, num_classes, ignore_label)
    )


def _shown(values: np.ndarray) -> str:
    return ", ".join(str(value) for value in values[:8]) + (", ..." if len(values) > 8 else "")


def _hint(labels: np.ndarray, wrong: np.ndarray, num_classes: int, ignore_label: int) -> str:
    values = set(np.unique(labels).tolist())
    if values <= {0, 255}:
        return "It holds 0 and 255 only, like a mask: write the class index instead of 255."
    if len(wrong) == 1:
        return one_wrong_value(int(wrong[0]), num_classes, ignore_label, has_zero=0 in values)
    return (
        "Are class names missing, or are these raw ids? LABEL_MAP of an entry of DATASETS.FOLDERS maps those to class "
        "indices."
    )


def one_wrong_value(value: int, num_classes: int, ignore_label: int, *, has_zero: bool) -> str:
    """Return what to do where ``value`` alone is neither a class nor ignored; ``has_zero``: 0 occurs beside it."""
    unlabelled = (
        f"Does {value} mean 'not labelled'? Then write {ignore_label} instead of it, or set IGNORE_LABEL: {value} if "
        "the data set is one of DATASETS.FOLDERS."
    )
    if value != num_classes:
        return unlabelled
    unlabelled += f" Is {value} a class? Then add its name."
    remedy = (
        f"Then set LABEL_MAP: [{ignore_label}, 0, 1, ...] if the data set is one of DATASETS.FOLDERS, or write "
        f"{ignore_label} for 0 and subtract 1 from the others."
    )
    if has_zero:  # CamVid's published labels, or ADE20K's
        return f"{unlabelled} Does 0 mean 'not labelled'? {remedy}"
    return f"Are its classes counted from 1, and is 0 no class anywhere in the data set? {remedy} {unlabelled}"
