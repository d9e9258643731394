"""The values of label files: maps them, checks them, and guesses why they are wrong."""

import os
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from sgr_d2.messages import first_few

# Advice on masks whose foreground is 255.
OF_A_MASK = (
    "If 255 is a class, name two classes and set LABEL_MAP: [[0, 0], [255, 1]] if the data set is one of "
    "DATASETS.FOLDERS, or write 1 instead of it."
)

Color: TypeAlias = tuple[int, int, int]
# A list whose item v is the label of value v; or {value: label}; or {(R, G, B): label} for files that hold colours.
LabelMap: TypeAlias = Sequence[int] | Mapping[int, int] | Mapping[Color, int]


def holds_colors(label_map: LabelMap | None) -> bool:
    """Return whether a ``LABEL_MAP`` is for files that hold colours."""
    return isinstance(label_map, Mapping) and any(isinstance(value, tuple) for value in label_map)


def pack_colors(image: np.ndarray) -> np.ndarray:
    """Convert an image (H, W, 3) uint8 to (H, W) int32, one number per colour."""
    channels = image.astype(np.int32)
    return channels[..., 0] << 16 | channels[..., 1] << 8 | channels[..., 2]


def unpack_colors(numbers: np.ndarray) -> list[list[int]]:
    """Return the [R, G, B] of numbers (N,) made by :func:`pack_colors`."""
    return [[int(number) >> shift & 255 for shift in (16, 8, 0)] for number in numbers]


def map_values(
    values: np.ndarray, path: str | os.PathLike, *, label_map: LabelMap | None, ignore_label: int
) -> np.ndarray:
    """Map the values (H, W) of a file to labels (H, W).

    Args:
        values: of the file; for one that holds colours, from :func:`pack_colors`.
        path: the file, for messages.
        label_map: None if the values are labels.
        ignore_label: this value maps to itself if the map does not have it, unless the map is of colours.

    Raises:
        ValueError: if the file holds a value that the map does not have.
    """
    if label_map is None:
        return values
    if holds_colors(label_map):
        return _map_colors(values, path, label_map)
    table, has = _table(label_map)
    inside = (values >= 0) & (values < len(table))
    indices = np.where(inside, values, 0)
    known = inside & has[indices]
    wrong = np.unique(values[~known & (values != ignore_label)])
    if wrong.size:
        raise ValueError(f"Label {path} holds {first_few(wrong)}, for which LABEL_MAP has no label. Add their labels.")
    return np.where(known, table[indices], ignore_label)


def _table(label_map: Sequence[int] | Mapping[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The label of each value from 0 on, and whether it has one."""
    if not isinstance(label_map, Mapping):
        return np.asarray(label_map, np.int32), np.ones(len(label_map), bool)
    table, has = np.zeros(max(label_map) + 1, np.int32), np.zeros(max(label_map) + 1, bool)
    table[list(label_map)], has[list(label_map)] = list(label_map.values()), True
    return table, has


def _map_colors(values: np.ndarray, path: str | os.PathLike, label_map: Mapping[Color, int]) -> np.ndarray:
    colors = pack_colors(np.array(list(label_map), np.uint8))
    order = np.argsort(colors)
    colors, labels = colors[order], np.array(list(label_map.values()), np.int32)[order]
    position = np.minimum(np.searchsorted(colors, values), len(colors) - 1)
    unknown = colors[position] != values
    if unknown.any():
        wrong, pixels = np.unique(values[unknown], return_counts=True)
        raise ValueError(
            f"Label {path} holds {first_few(unpack_colors(wrong))} in {pixels.sum()} pixels, for which LABEL_MAP has "
            "no label. Add their labels. Unintended colours come from JPEG or from scaling with interpolation: make "
            "such a file again without them."
        )
    return labels[position]


def check_values(labels: np.ndarray, path: str | os.PathLike, *, num_classes: int, ignore_label: int) -> None:
    """Raise ValueError, with a guess at the reason, if any of ``labels`` (H, W) is neither a class nor ignored."""
    if labels.size == 0 or (labels.max() < num_classes and labels.min() >= 0):
        return
    wrong = (labels >= num_classes) & (labels != ignore_label)
    if labels.dtype.kind == "i":
        wrong |= (labels < 0) & (labels != ignore_label)
    if not wrong.any():
        return
    found = np.unique(labels[wrong])
    raise ValueError(
        f"Label {path} holds {first_few(found)}, neither a class (0..{num_classes - 1}) nor the ignore label "
        f"({ignore_label}). " + _hint(labels, found, num_classes, ignore_label)
    )


def _hint(labels: np.ndarray, wrong: np.ndarray, num_classes: int, ignore_label: int) -> str:
    values = set(np.unique(labels).tolist())
    if values <= {0, 255}:
        return f"It holds 0 and 255 only, like a mask. {OF_A_MASK}"
    if len(wrong) == 1:
        return one_wrong_value(int(wrong[0]), num_classes, ignore_label, has_zero=0 in values)
    return (
        "Are class names missing, or are these raw ids? LABEL_MAP of an entry of DATASETS.FOLDERS maps those to class "
        "indices."
    )


def one_wrong_value(value: int, num_classes: int, ignore_label: int, *, has_zero: bool) -> str:
    """Return advice if only ``value`` is neither a class nor ignored; ``has_zero``: whether 0 occurs, too."""
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
