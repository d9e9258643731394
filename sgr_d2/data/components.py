"""Connected components of a label map: the weak supervision of the regions.

Pure functions of arrays; one pass labels all classes.
"""

from dataclasses import dataclass
from typing import Any

import cc3d
import cv2
import numpy as np
import torch
from detectron2.config import CfgNode

from sgr_d2.checks import check_choice
from sgr_d2.structures import ComponentMap

LEFT_OUT = ("ignored", "outside")


@dataclass(frozen=True)
class ComponentLimits:
    """Which components count, and what becomes of the others: arguments of `label_components`, INPUT.COMPONENTS.

    Raises:
        ValueError: if a limit is negative, or ``left_out`` is unknown; names the key.
    """

    min_area: int = 128
    max_components: int = 256
    left_out: str = "ignored"

    def __post_init__(self) -> None:
        if self.min_area < 0 or self.max_components < 0:
            raise ValueError(
                "INPUT.COMPONENTS.MIN_AREA and MAX_COMPONENTS must be 0 or more; got "
                f"{self.min_area} and {self.max_components}."
            )
        check_choice("INPUT.COMPONENTS.LEFT_OUT", self.left_out, LEFT_OUT)

    @classmethod
    def from_config(cls, cfg: CfgNode, *, is_train: bool) -> "ComponentLimits":
        """Those of a training have at most one component a token; an evaluation ignores what is left out."""
        node = cfg.INPUT.COMPONENTS
        if not is_train:
            return cls(node.MIN_AREA, node.MAX_COMPONENTS)
        return cls(node.MIN_AREA, min(node.MAX_COMPONENTS, cfg.MODEL.SGR.NUM_TOKENS), node.LEFT_OUT)

    def label(self, labels: np.ndarray, *, ignore_label: int, instances: np.ndarray | None = None) -> ComponentMap:
        """`label_components` with these limits."""
        return label_components(labels, ignore_label=ignore_label, instances=instances, **vars(self))


def label_components(
    labels: np.ndarray,
    *,
    ignore_label: int,
    min_area: int,
    max_components: int,
    instances: np.ndarray | None = None,
    left_out: str = "ignored",
) -> ComponentMap:
    """Find the 8-connected components of every class.

    Args:
        labels: (H, W) integer class of each pixel.
        ignore_label: pixels of this value belong to no component.
        min_area: components with fewer pixels are dropped.
        max_components: at most this many of the others are kept, the largest; ties go to the first in scan order.
        instances: (H, W) ids where the data set has real instances, 0 elsewhere. The labelled pixels of one id form one
            component, connected or not; all other pixels (stuff, groups) form connected components.
        left_out: what becomes of the pixels of dropped components: "ignored", 0 like those of ``ignore_label``; or
            "outside", labelled but in no component: one more than the last number.

    Returns:
        The map, numbered from the largest down, with the numbers of dropped components.

    Raises:
        ValueError: if ``labels`` is not a 2-D integer array, its values do not fit 16 bits, ``ignore_label`` is no
            whole number, a limit is negative, ``left_out`` is unknown, or ``instances`` has another shape.
    """
    if not isinstance(labels, np.ndarray) or labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        found = f"shape {tuple(labels.shape)} of {labels.dtype}" if hasattr(labels, "dtype") else "no array"
        raise ValueError(f"A label map is a 2-D integer NumPy array; got {type(labels).__name__}, {found}.")
    if not isinstance(ignore_label, int | np.integer):
        raise ValueError(
            f"ignore_label = {ignore_label!r}: give the whole number of pixels without a label, such as 255; if there "
            "are none, a number that is no class."
        )
    ComponentLimits(min_area, max_components, left_out)  # checks them
    if labels.size == 0:
        return ComponentMap(np.zeros(labels.shape, np.int32), np.zeros(0, np.int64), 0, 0)
    shifted = _ignored_to_zero(labels, ignore_label)
    if instances is None:
        raw, total = cc3d.connected_components(shifted, connectivity=8, return_N=True)
    else:
        raw, total = _connect_around(shifted, instances)
    areas, firsts = _areas_and_first_pixels(raw.ravel(), total)
    large = np.flatnonzero(areas >= min_area)
    order = np.lexsort((firsts[large], -areas[large]))[:max_components]
    kept = large[order]
    return ComponentMap(
        ids=_renumber(raw, total, kept + 1, others=0 if left_out == "ignored" else len(kept) + 1),
        classes=labels[np.unravel_index(firsts[kept], labels.shape)].astype(np.int64),
        num_small=total - len(large),
        num_cut=len(large) - len(kept),
    )


def component_targets(found: ComponentMap) -> dict[str, Any]:
    """What a mapper adds to the input of the model.

    * ``components``: (H, W), int16, or int32 if there are too many: they are sent between processes and to the GPU;
    * ``component_classes``: (L,) int64;
    * ``components_small``, ``components_cut``: int, how many were dropped because of their area and of the limit.
    """
    ids = found.ids.astype(np.int16) if len(found.classes) < np.iinfo(np.int16).max else found.ids
    return {
        "components": torch.from_numpy(ids),
        "component_classes": torch.from_numpy(found.classes),
        "components_small": found.num_small,
        "components_cut": found.num_cut,
    }


def _ignored_to_zero(labels: np.ndarray, ignore_label: int) -> np.ndarray:
    """Map the classes to distinct values above 0 and ``ignore_label`` to 0, which cc3d treats as background.

    A subtraction modulo 2^8 or 2^16 does so in one pass, for any ignore label.
    """
    if labels.dtype == np.uint8 and 0 <= ignore_label <= 255:
        return np.subtract(labels, np.uint8(ignore_label), order="C")
    if labels.dtype != np.uint16 or not 0 <= ignore_label <= 0xFFFF:
        low, high = min(int(labels.min()), ignore_label), max(int(labels.max()), ignore_label)
        if high - low > 0xFFFF:
            raise ValueError(f"Labels and ignore label span {low}..{high}; at most 16 bits are supported.")
    return np.subtract(labels.astype(np.uint16), np.uint16(ignore_label & 0xFFFF), order="C")


def _connect_around(shifted: np.ndarray, instances: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the components of ``shifted`` (H, W; 0 ignored) outside the instances, then the instances."""
    if instances.shape != shifted.shape:
        raise ValueError(
            f"The instance map has {instances.shape[1]}x{instances.shape[0]} pixels (width x height), "
            f"the label map {shifted.shape[1]}x{shifted.shape[0]}; they must agree."
        )
    owned = (instances != 0) & (shifted != 0)
    raw, total = cc3d.connected_components(np.where(owned, 0, shifted), connectivity=8, return_N=True)
    ids, numbers = np.unique(instances[owned], return_inverse=True)
    raw = raw.astype(np.result_type(raw, np.min_scalar_type(total + len(ids))), copy=False)
    raw[owned] = total + 1 + numbers
    return raw, total + len(ids)


def _areas_and_first_pixels(flat: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Return areas and indices of the first pixel, in scan order, of the components 1..total of ``flat`` (H*W,).

    Counts runs of equal pixels, of which a street scene has some forty times fewer than pixels: a bincount of every
    pixel would take longer than cc3d itself.
    """
    starts = _run_starts(flat)
    owners = flat.take(starts).astype(np.intp)
    lengths = np.empty(len(starts))  # float64, exact for counts: what bincount adds
    np.subtract(starts[1:], starts[:-1], out=lengths[:-1])
    lengths[-1] = flat.size - starts[-1]
    areas = np.bincount(owners, weights=lengths, minlength=total + 1)
    firsts = np.zeros(total + 1, np.intp)
    firsts[owners[::-1]] = starts[::-1]  # for repeated indices the last assignment wins
    return areas[1:], firsts[1:]


def _run_starts(flat: np.ndarray) -> np.ndarray:
    """Return where the runs of equal values of ``flat`` (N,) start, ascending.

    Tests eight comparisons at a time: most words have no start, and are skipped without looking at their bytes.
    """
    is_start = np.zeros(-(-flat.size // 8) * 8, bool)
    is_start[0] = True
    np.not_equal(flat[1:], flat[:-1], out=is_start[1 : flat.size])
    words = is_start.view(np.uint64)
    hit = np.flatnonzero(words != 0)
    starts = np.flatnonzero(words.take(hit).view(bool))  # counted in the hit words only
    starts += (8 * (hit - np.arange(len(hit)))).take(starts >> 3)
    return starts


def _renumber(raw: np.ndarray, total: int, kept: np.ndarray, others: int) -> np.ndarray:
    """Map the ids ``kept`` of ``raw`` (H, W) to 1.., in order, others up to ``total`` to ``others``, 0 to 0: int32."""
    table = np.empty(max(total + 1, 1 << 16), np.int32)  # OpenCV needs an entry for every 16-bit value
    table[: total + 1] = others
    table[0] = 0
    table[kept] = np.arange(1, len(kept) + 1, dtype=np.int32)
    try:
        return cv2.LUT(raw, table)  # less than half the time of take
    except cv2.error:  # more than 16 bits of components, or an OpenCV that only supports 8-bit tables
        return table.take(raw)
