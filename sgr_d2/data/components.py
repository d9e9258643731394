"""Connected components of a label map: the weak supervision of the regions.

Pure functions of arrays; all classes are labelled in one pass.
"""

import cc3d
import numpy as np

from sgr_d2.structures import ComponentMap


def label_components(labels: np.ndarray, *, ignore_label: int, min_area: int, max_components: int) -> ComponentMap:
    """Find the 8-connected components of every class.

    Args:
        labels: (H, W) integer class of each pixel.
        ignore_label: pixels of this value belong to no component.
        min_area: components with fewer pixels are dropped.
        max_components: of the others, so many are kept, largest first; ties go to the one that a scan meets first.

    Returns:
        The map, numbered largest first, with what was dropped counted.

    Raises:
        ValueError: ``labels`` is not a 2-D integer array, its values do not fit 16 bits, or a limit is negative.
    """
    _check(labels, min_area, max_components)
    if labels.size == 0:
        return ComponentMap(np.zeros(labels.shape, np.int32), np.zeros(0, np.int64), 0, 0)
    raw, total = cc3d.connected_components(_ignored_to_zero(labels, ignore_label), connectivity=8, return_N=True)
    starts, lengths, owners = _runs(raw)
    areas, firsts = _areas_and_first_pixels(starts, lengths, owners, total)
    large = np.flatnonzero(areas >= min_area)
    kept = large[np.lexsort((firsts[large], -areas[large]))][:max_components]
    renumbered = np.zeros(total + 1, np.int32)
    renumbered[kept + 1] = np.arange(1, len(kept) + 1, dtype=np.int32)
    return ComponentMap(
        ids=np.repeat(renumbered[owners], lengths).reshape(labels.shape),
        classes=labels[np.unravel_index(firsts[kept], labels.shape)].astype(np.int64),
        num_small=total - len(large),
        num_cut=len(large) - len(kept),
    )


def _check(labels: np.ndarray, min_area: int, max_components: int) -> None:
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"A label map is a 2-D integer array; got shape {labels.shape} of {labels.dtype}.")
    if min_area < 0 or max_components < 0:
        raise ValueError(
            f"INPUT.COMPONENTS.MIN_AREA and MAX_COMPONENTS must be 0 or more; got {min_area} and {max_components}."
        )


def _ignored_to_zero(labels: np.ndarray, ignore_label: int) -> np.ndarray:
    """Map the classes to distinct values above 0 and ``ignore_label`` to 0, which cc3d takes for background.

    Subtracting modulo 2^8 or 2^16 does it in one pass, whatever the ignore label.
    """
    if labels.dtype == np.uint8 and 0 <= ignore_label <= 255:
        return np.subtract(labels, np.uint8(ignore_label), order="C")
    if labels.dtype.itemsize > 1 and labels.dtype != np.uint16:
        low, high = min(int(labels.min()), ignore_label), max(int(labels.max()), ignore_label)
        if high - low > 0xFFFF:
            raise ValueError(f"Labels and ignore label span {low}..{high}; at most 16 bits are supported.")
    return np.subtract(labels.astype(np.uint16), np.uint16(ignore_label & 0xFFFF), order="C")


def _runs(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return start, length and value of the runs of equal pixels of ``raw`` (H, W), in scan order.

    A street scene has some forty times fewer runs than pixels, so what follows works on them: a bincount and a
    look-up of every pixel would take longer than cc3d itself.
    """
    flat = raw.ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    return starts, np.diff(starts, append=flat.size), flat[starts]


def _areas_and_first_pixels(
    starts: np.ndarray, lengths: np.ndarray, owners: np.ndarray, total: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return area and index of the first pixel, in scan order, of the components 1..total."""
    areas = np.bincount(owners, weights=lengths, minlength=total + 1)  # float64: exact for counts
    firsts = np.zeros(total + 1, np.int64)
    firsts[owners[::-1]] = starts[::-1]  # of repeated indices, the last one written stays
    return areas[1:].astype(np.int64), firsts[1:]
