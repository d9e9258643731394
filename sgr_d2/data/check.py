"""Checks every image and label of a data set: what is broken, which classes occur, how many components there are.

Shape legend: C classes, H x W pixels.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from sgr_d2.data.components import ComponentLimits
from sgr_d2.data.file_map import map_files
from sgr_d2.data.label_values import Color, LabelMap, check_values, holds_colors, map_values
from sgr_d2.data.reading import (
    is_turned,
    read_image,
    read_instances,
    read_values,
    read_values_and_palette,
    size_hint,
)

Result = TypeVar("Result")
_NO_VALUES = np.zeros(0, np.int64)

# What can be wrong with a pair, worst first.
KINDS = ("unreadable image", "unreadable label", "unreadable instances", "sizes differ", "label out of range")


@dataclass(frozen=True)
class CheckRules:
    """What pairs are checked against.

    Attributes:
        num_classes, ignore_label: valid values are 0..num_classes-1 and the ignore label.
        limits: on the area and number of components.
        first_instance_id: smaller ids in instance maps mean "no instance".
        train_edges, test_edge: INPUT.MIN_SIZE_TRAIN and MIN_SIZE_TEST, to which the shorter edge is scaled; compared
            if there are ``train_edges``.
    """

    num_classes: int
    ignore_label: int = 255
    limits: ComponentLimits = ComponentLimits()
    first_instance_id: int = 1
    train_edges: tuple[int, ...] = ()
    test_edge: int = 0


class PairCheck(NamedTuple):
    """The check of one image and its label.

    Attributes:
        errors: (kind, message) of everything that is wrong.
        values, pixels: the values of the label map, and the number of pixels of each.
        components: numbers of components kept, below the minimum, and cut by the maximum; None if the pair is broken.
        shorter_edge: of the label map, in pixels; 0 if it cannot be read.
        path: of the label file.
        palette: {value that occurs: its colour}, if the file has a palette and is read by its values.
        brightest: the largest value of the image, 0 to 255; 0 if it cannot be read.
        turned: the image file, if its EXIF orientation turns it and the label has none; else "".
    """

    errors: list[tuple[str, str]]
    values: np.ndarray = _NO_VALUES
    pixels: np.ndarray = _NO_VALUES
    components: tuple[int, int, int] | None = None
    shorter_edge: int = 0
    path: str = ""
    palette: Mapping[int, Color] | None = None
    brightest: int = 0
    turned: str = ""


@dataclass
class DatasetCheck:
    """The sum over all pairs.

    Attributes:
        rules: what they were checked against.
        num_pairs: number of pairs checked.
        errors: {kind: messages}.
        pixels, images: (C,) pixels of each class, and images with it.
        ignored: pixels with the ignore label.
        wrong: {value that is neither: images with it}.
        unlabelled_images: images without a labelled pixel; ``first_unlabelled`` is the label file of the first.
        components: (kept, small, cut) of each image whose label is valid.
        shorter_edges: of all label maps that could be read, in pixels.
        palette: {value: {colour in a palette: the first file}}.
        brightest: the largest value of all images, 0 to 255.
        turned: image files that EXIF turns, but not their labels.
    """

    rules: CheckRules
    num_pairs: int = 0
    errors: dict[str, list[str]] = field(default_factory=dict)
    pixels: np.ndarray = field(init=False)
    images: np.ndarray = field(init=False)
    ignored: int = 0
    wrong: Counter = field(default_factory=Counter)
    unlabelled_images: int = 0
    first_unlabelled: str = ""
    components: list[tuple[int, int, int]] = field(default_factory=list)
    shorter_edges: list[int] = field(default_factory=list)
    palette: dict[int, dict[Color, str]] = field(default_factory=dict)
    brightest: int = 0
    turned: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pixels, self.images = np.zeros((2, self.rules.num_classes), np.int64)

    def add(self, pair: PairCheck) -> None:
        """Add one pair."""
        self.num_pairs += 1
        for kind, message in pair.errors:
            self.errors.setdefault(kind, []).append(message)
        ignore = pair.values == self.rules.ignore_label
        valid = (pair.values >= 0) & (pair.values < self.rules.num_classes) & ~ignore
        self.pixels[pair.values[valid]] += pair.pixels[valid]
        self.images[pair.values[valid]] += 1
        self.ignored += int(pair.pixels[ignore].sum())
        self.wrong.update(pair.values[~valid & ~ignore].tolist())
        if pair.values.size and ignore.all():
            self.unlabelled_images += 1
            self.first_unlabelled = self.first_unlabelled or pair.path
        for value, color in (pair.palette or {}).items():
            self.palette.setdefault(value, {}).setdefault(color, pair.path)
        if pair.components is not None:
            self.components.append(pair.components)
        self.brightest = max(self.brightest, pair.brightest)
        if pair.turned:
            self.turned.append(pair.turned)
        if pair.shorter_edge:
            self.shorter_edges.append(pair.shorter_edge)

    @property
    def unlabelled_share(self) -> float:
        """Fraction of ignored pixels among those with a valid label; NaN if there are none."""
        total = self.ignored + int(self.pixels.sum())
        return self.ignored / total if total else float("nan")


def check_records(
    records: Sequence[dict[str, Any]], rules: CheckRules, *, title: str, num_workers: int = 1, progress: bool = True
) -> DatasetCheck:
    """Check all records of a data set; arguments as in ``map_files``."""
    total = DatasetCheck(rules)
    step = partial(check_pair, rules=rules)
    for pair in map_files(step, records, num_workers=num_workers, title=title, progress=progress):
        total.add(pair)
    return total


def check_pair(record: dict[str, Any], *, rules: CheckRules) -> PairCheck:
    """Read the files of one record and record what is wrong with them."""
    errors: list[tuple[str, str]] = []
    image = _try(errors, "unreadable image", read_image, record["file_name"])
    path = record.get("sem_seg_file_name")
    if path is None:
        errors.append(("unreadable label", f"The record of {record['file_name']} has no sem_seg_file_name."))
        return PairCheck(errors)
    found = _try(errors, "unreadable label", partial(_read_label, label_map=record.get("label_map")), path)
    if found is None:
        return PairCheck(errors)
    labels, palette = found
    instances = None
    if record.get("instance_file_name"):
        read = partial(read_instances, first_id=rules.first_instance_id)
        instances = _try(errors, "unreadable instances", read, record["instance_file_name"])
    _compare_sizes(errors, labels, path, record["file_name"], image)
    _compare_sizes(errors, labels, path, record.get("instance_file_name"), instances)
    broken = len(errors)
    label_map = partial(map_values, label_map=record.get("label_map"), ignore_label=rules.ignore_label)
    mapped = _try(errors, "label out of range", lambda path: label_map(labels, path), path)
    if mapped is None:
        return PairCheck(errors, shorter_edge=min(labels.shape))
    values, pixels = np.unique(mapped, return_counts=True)
    check = partial(check_values, num_classes=rules.num_classes, ignore_label=rules.ignore_label)
    _try(errors, "label out of range", lambda path: check(mapped, path), path)
    components = None if len(errors) > broken else _count_components(mapped, instances, rules)
    brightest = 0 if image is None else int(image.max())
    turned = record["file_name"] if image is not None and is_turned(record["file_name"]) and not is_turned(path) else ""
    found = PairCheck(errors, values.astype(np.int64), pixels, components, min(labels.shape), path, palette, brightest)
    return found._replace(turned=turned)


def _read_label(path: str, label_map: LabelMap | None) -> tuple[np.ndarray, dict[int, Color]]:
    """The values of a label file, and their colours if it has a palette and is read by its values."""
    return (read_values(path, colors=True), {}) if holds_colors(label_map) else read_values_and_palette(path)


def _try(errors: list[tuple[str, str]], kind: str, read: Callable[[str], Result], path: str) -> Result | None:
    try:
        return read(path)
    except (OSError, ValueError) as error:
        errors.append((kind, str(error)))
        return None


def _compare_sizes(errors: list[tuple[str, str]], labels: np.ndarray, path: str, other: str | None, array) -> None:
    if array is None or array.shape[:2] == labels.shape:
        return
    (height, width), (rows, columns) = labels.shape, array.shape[:2]
    hint = size_hint(other, array.shape[:2], labels.shape)
    errors.append(
        ("sizes differ", f"{path} has {width}x{height} pixels (width x height), {other} {columns}x{rows}.{hint}")
    )


def _count_components(labels: np.ndarray, instances: np.ndarray | None, rules: CheckRules) -> tuple[int, int, int]:
    if instances is not None and instances.shape != labels.shape:
        instances = None
    found = rules.limits.label(labels, ignore_label=rules.ignore_label, instances=instances)
    return len(found.classes), found.num_small, found.num_cut
