"""Where the labels of an image lie on the token grid: the (label, cell) pairs that occur, with pixel counts.

Shape legend: H x W pixels, N labels present, M (label, cell) pairs that occur; M is at most the number of pixels.
"""

from typing import NamedTuple

import numpy as np


class LabelIndex(NamedTuple):
    """The labels of a map, numbered without gaps.

    Attributes:
        ids: (N,) the labels present, ascending, without the ignored one.
        pixels: (N,) the number of pixels of each.
        numbers: (V,) int64, position in ``ids`` of each of V values; N if the value is ignored.
        values: (H, W) int64, index into ``numbers``.
    """

    ids: np.ndarray
    pixels: np.ndarray
    numbers: np.ndarray
    values: np.ndarray


class LabelCells(NamedTuple):
    """The (label, cell) pairs that occur, sorted by label.

    Attributes:
        cell: (M,) the cell of each pair, row * columns + column.
        pixels: (M,) number of pixels of the label in the cell.
        starts: (N,) index of the first pair of each label.
    """

    cell: np.ndarray
    pixels: np.ndarray
    starts: np.ndarray


def index_labels(labels: np.ndarray, ignore_label: int | None) -> LabelIndex:
    """Number the labels of an (H, W) int64 map; ids may be negative or far apart."""
    low, high = int(labels.min()), int(labels.max())
    if high - low < max(2**16, labels.size):
        ids = np.arange(low, high + 1)
        values = labels - low if low else labels
        pixels = np.bincount(values.ravel())
    else:  # far apart, for instance instance ids coded as colours
        ids, values, pixels = np.unique(labels, return_inverse=True, return_counts=True)
        values = values.reshape(labels.shape)  # numpy 1 returns it flat
    kept = pixels > 0
    if ignore_label is not None:
        kept &= ids != ignore_label
    numbers = np.where(kept, np.cumsum(kept) - 1, kept.sum())
    return LabelIndex(ids[kept], pixels[kept], numbers, values)


def cell_of_pixels(
    size: tuple[int, int], grid: tuple[int, int], extent: tuple[float, float] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (H, 1) and (W,) int64 whose sum is the cell of each pixel; ``extent`` as in ``token_semantics``.

    Raises:
        ValueError: if ``extent`` is not positive, or larger than the grid.
    """
    extent = grid if extent is None else extent
    indices = []
    for pixels, cells, covered in zip(size, grid, extent, strict=True):
        if not 0 < covered <= cells:
            raise ValueError(f"extent {tuple(extent)} must be positive and at most the token grid {tuple(grid)}")
        indices.append(np.floor((np.arange(pixels) + 0.5) / pixels * covered).astype(np.int64))
    rows, columns = indices
    return rows[:, None] * grid[1], columns


def count_label_cells(labels: LabelIndex, cells: tuple[np.ndarray, np.ndarray], num_cells: int) -> LabelCells:
    """Count the pixels of every (label, cell) pair, in time linear in the number of pixels."""
    num_labels = len(labels.ids)
    num_keys = num_labels * num_cells
    keys = (labels.numbers * num_cells).take(labels.values)  # (H, W)
    keys += cells[0]
    keys += cells[1]
    keys = keys.ravel()  # those of ignored pixels are at least num_keys
    if num_keys <= 4 * keys.size:
        pixels = np.bincount(keys, minlength=num_keys)[:num_keys]
        pairs = np.flatnonzero(pixels)
        pixels = pixels[pairs]
    else:  # a dense table of labels x cells would cost more than sorting the pixels
        pairs, pixels = np.unique(keys, return_counts=True)
        num_kept = np.searchsorted(pairs, num_keys)
        pairs, pixels = pairs[:num_kept], pixels[:num_kept]
    starts = np.searchsorted(pairs, np.arange(num_labels) * num_cells)
    return LabelCells(pairs % num_cells, pixels, starts)
