"""Component targets: all classes in one pass against one OpenCV call per class."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np

from sgr_d2.config import get_sgr_cfg
from sgr_d2.data.components import label_components
from sgr_d2.data.datasets import get_dataset_records
from sgr_d2.data.reading import read_label
from sgr_d2.structures import ComponentMap

from .measure import median, paired_ratio, time_runs
from .report import Report
from .settings import Settings
from .street_scenes import IGNORE_LABEL, NUM_CLASSES, street_scenes

LIMITS = get_sgr_cfg().INPUT.COMPONENTS
MIN_AREA, MAX_COMPONENTS = LIMITS.MIN_AREA, LIMITS.MAX_COMPONENTS
BUDGET_MS = 0.6  # for a map of 360 x 480


def benchmark_components(settings: Settings) -> Report:
    """component targets of 480x360 label maps: label_components against one OpenCV call per class"""
    with street_scenes(4 if settings.quick else 16) as source:
        records = get_dataset_records("camvid_train")
        chosen = records[:: max(1, len(records) // (4 if settings.quick else 32))]
        maps = [read_label(r["sem_seg_file_name"], num_classes=NUM_CLASSES, ignore_label=IGNORE_LABEL) for r in chosen]
    found = [_ours(labels) for labels in maps]
    for labels, components in zip(maps, found, strict=True):
        check_same(components, opencv_components(labels))
        check_same(components, opencv_components_with_stats(labels))
    functions = {
        "label_components": _ours,
        "OpenCV, connectedComponents": opencv_components,
        "OpenCV, connectedComponentsWithStats": opencv_components_with_stats,
        "OpenCV, the bare connectedComponents calls": opencv_calls,
    }
    runs = {name: _over(maps, function) for name, function in functions.items()}
    times = time_runs(runs, 40, settings)
    ours, plain, stats, calls = times.values()
    return Report(
        what=_describe(source, maps, found),
        rows=[{"run": name, "ms per map": median(values) / len(maps)} for name, values in times.items()],
        ratios={
            "components_ms_over_budget": paired_ratio(ours / len(maps), np.full(len(ours), BUDGET_MS), "<= 1"),
            "components_opencv_over_ours": paired_ratio(plain, ours, ">= 5"),
            "components_opencv_stats_over_ours": paired_ratio(stats, ours),
            "components_opencv_calls_over_ours": paired_ratio(calls, ours),
        },
    )


def _describe(source: str, maps: list[np.ndarray], found: list[ComponentMap]) -> str:
    return (
        f"{len(maps)} label maps of {source}, {maps[0].shape[0]}x{maps[0].shape[1]}, {NUM_CLASSES} classes, median "
        f"{np.median([len(components.classes) for components in found]):.0f} components. OpenCV: a call for each class "
        "that occurs, merged, sorted and cut to the same result (checked on every map before the clock starts); with "
        "connectedComponents the areas are counted once, on the merged map, which is faster than the areas of "
        "connectedComponentsWithStats. The bare calls give no areas, no merged map and no order. "
        f"`components_ms_over_budget`: our time over {BUDGET_MS} ms."
    )


def _ours(labels: np.ndarray) -> ComponentMap:
    return label_components(labels, ignore_label=IGNORE_LABEL, min_area=MIN_AREA, max_components=MAX_COMPONENTS)


def _over(maps: list[np.ndarray], function: Callable[[np.ndarray], object]) -> Callable[[int], None]:
    def run(_: int) -> None:
        for labels in maps:
            function(labels)

    return run


def opencv_components(
    labels: np.ndarray, *, min_area: int = MIN_AREA, max_components: int = MAX_COMPONENTS
) -> ComponentMap:
    """The baseline: the result of `label_components`, from one OpenCV call for each class that occurs."""
    raw = np.zeros(labels.shape, np.int32)
    first = np.zeros(IGNORE_LABEL + 1, np.int32)  # for each class, the number of components found before it
    classes: list[int] = []
    for label, mask in _masks(labels):
        count, ids = cv2.connectedComponents(mask, connectivity=8)
        raw += ids
        first[label] = len(classes)
        classes += [label] * (count - 1)
    raw += first[labels]
    areas = np.bincount(raw.ravel(), minlength=len(classes) + 1)
    return _cut(raw, areas, classes, min_area, max_components)


def opencv_components_with_stats(
    labels: np.ndarray, *, min_area: int = MIN_AREA, max_components: int = MAX_COMPONENTS
) -> ComponentMap:
    """The same with OpenCV's areas (it also computes bounding boxes and centroids)."""
    raw = np.zeros(labels.shape, np.int32)
    first = np.zeros(IGNORE_LABEL + 1, np.int32)
    areas, classes = [0], []
    for label, mask in _masks(labels):
        count, ids, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        raw += ids
        first[label] = len(classes)
        classes += [label] * (count - 1)
        areas += stats[1:, cv2.CC_STAT_AREA].tolist()
    raw += first[labels]
    return _cut(raw, np.array(areas), classes, min_area, max_components)


def opencv_calls(labels: np.ndarray) -> None:
    """The calls of `opencv_components`, whose results are discarded."""
    for _, mask in _masks(labels):
        cv2.connectedComponents(mask, connectivity=8)


def _masks(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for label in range(NUM_CLASSES):
        mask = labels == label
        if mask.any():
            yield label, mask.view(np.uint8)


def _cut(raw: np.ndarray, areas: np.ndarray, classes: list[int], min_area: int, max_components: int) -> ComponentMap:
    """Drop small components, sort by area, keep the largest; ``raw`` numbers all of them from 1."""
    large = np.flatnonzero(areas[1:] >= min_area) + 1
    kept = large[np.argsort(-areas[large], kind="stable")][:max_components]
    renumbered = np.zeros(len(areas), np.int32)
    renumbered[kept] = np.arange(1, len(kept) + 1)
    return ComponentMap(
        ids=renumbered[raw],
        classes=np.array(classes, np.int64)[kept - 1],
        num_small=len(classes) - len(large),
        num_cut=len(large) - len(kept),
    )


def check_same(ours: ComponentMap, other: ComponentMap) -> None:
    """Raise ValueError unless both are equal up to the numbering of components of equal area."""
    pairs = np.unique(np.stack([ours.ids.ravel(), other.ids.ravel()]), axis=1)
    one_to_one = pairs.shape[1] == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))
    counts = (ours.num_small, ours.num_cut, len(ours.classes)) == (other.num_small, other.num_cut, len(other.classes))
    zero_to_zero = ((pairs[0] == 0) == (pairs[1] == 0)).all()
    if not (one_to_one and counts and zero_to_zero):
        raise ValueError("label_components and the OpenCV baseline disagree on a map: their times cannot be compared.")
    inside = pairs[:, pairs[0] > 0] - 1
    if (ours.classes[inside[0]] != other.classes[inside[1]]).any():
        raise ValueError("label_components and the OpenCV baseline disagree on the class of a component.")
