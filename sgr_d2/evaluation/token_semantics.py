"""What each token means: entropies of the labels under its region (docs/metrics.md has the definitions in words).

The names S, D and their intent are those of arXiv 2212.03338; the exact formulas, I and the normalisation are ours.

Shape legend: K tokens, h x w cells of the token grid, H x W pixels of the label map, N labels present in the image.
"""

import math
from typing import NamedTuple

import numpy as np
from torch import Tensor

from sgr_d2.evaluation.label_cells import LabelCells, cell_of_pixels, count_label_cells, index_labels
from sgr_d2.messages import first_few

# The figures of `TokenSemanticsEvaluator`: S, D and I over classes (C) and over components or instances (I).
TOKEN_FIGURES = ("S_C", "S_I", "D_C", "D_I", "I_C", "I_I")

# Elements of the (tokens, pairs) table in memory at a time: few enough for the cache.
_CHUNK_ELEMENTS = 2**16


class TokenSemantics(NamedTuple):
    """The figures of one image and one label map. Entropies are in nats.

    Attributes:
        S: mean entropy of the label distributions of the active tokens; NaN without an active token.
        D: entropy of the mean of these distributions; NaN without an active token.
        I: D - S, the mutual information between a uniformly drawn active token and the label.
        label_entropy: entropy of the image's own label distribution; NaN without a labelled pixel.
        num_active: number of tokens with at least ``min_mass``.
        num_tokens: K.
        overlap: fraction of the mass of all regions that is not in the largest region of its cell, from 0 (no cell has
            two regions) to 1 - 1/K (all regions are equal); NaN without mass.
    """

    S: float
    D: float
    I: float  # noqa: E741 - the usual symbol of mutual information
    label_entropy: float
    num_active: int
    num_tokens: int
    overlap: float = math.nan

    @property
    def is_labelled(self) -> bool:
        """Whether the image has a labelled pixel."""
        return not math.isnan(self.label_entropy)

    def normalized(self) -> tuple[float, float, float]:
        """S, D and I, each divided by ``label_entropy``; NaN if the image has fewer than two labels."""
        if not self.label_entropy > 0:
            return math.nan, math.nan, math.nan
        return self.S / self.label_entropy, self.D / self.label_entropy, self.I / self.label_entropy


class LabelMasses(NamedTuple):
    """How the region of each token is distributed over the labels of one image.

    Attributes:
        ids: (N,) the labels present, ascending, without the ignored one.
        pixels: (N,) the number of pixels of each.
        masses: (K, N) float64, the sum of each region over the pixels of each label.
        num_pixels: H * W, ignored pixels included.
        overlap: as in `TokenSemantics`.
    """

    ids: np.ndarray
    pixels: np.ndarray
    masses: np.ndarray
    num_pixels: int
    overlap: float

    def active(self, min_mass: float) -> np.ndarray:
        """(K,) bool: which tokens have labelled mass, and at least a fraction ``min_mass`` of all pixels."""
        totals = self.masses.sum(axis=1)
        return (totals > 0) & (totals >= min_mass * self.num_pixels)


def token_semantics(
    regions: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    *,
    ignore_label: int | None = None,
    num_labels: int | None = None,
    extent: tuple[float, float] | None = None,
    min_mass: float = 1e-4,
) -> TokenSemantics:
    """Measure how pure and how diverse the regions of one image are with respect to a label map.

    Time is linear in K, in the number of pixels and in the number of (cell, label) pairs that occur, and hence at most
    linear in the number of labels.

    Args:
        regions: (K, h, w) finite values >= 0, for instance probabilities, of any model.
        labels: (H, W) integers of any magnitude: classes, components or instance ids. H and W need not fit h and w; a
            region is constant within a cell.
        ignore_label: label of ignored pixels (0 for component maps).
        num_labels: if given, every label must lie in [0, num_labels) or be ``ignore_label``.
        extent: (rows, columns) of the grid that the image covers; by default all of it, (h, w). The pixel (y, x) lies
            in cell ``(floor((y + 0.5) / H * rows), floor((x + 0.5) / W * columns))``.
        min_mass: tokens whose labelled mass is less than this fraction of the H * W pixels, or zero, are inactive.

    Raises:
        ValueError: for no token, cell or pixel, wrong dimensions or types, values or labels out of range, or an extent
            that is not positive or larger than the grid.
    """
    found = label_masses(regions, labels, ignore_label=ignore_label, num_labels=num_labels, extent=extent)
    num_tokens = len(found.masses)
    if not found.ids.size:
        return TokenSemantics(math.nan, math.nan, math.nan, math.nan, 0, num_tokens)
    label_entropy = float(_entropy(found.pixels / found.pixels.sum()))

    active = found.active(min_mass)
    if not active.any():
        return TokenSemantics(math.nan, math.nan, math.nan, label_entropy, 0, num_tokens, found.overlap)
    distributions = found.masses[active] / found.masses[active].sum(axis=1, keepdims=True)
    s = float(_entropy(distributions).mean())
    d = float(_entropy(distributions.mean(axis=0)))
    # Entropy is concave, so d >= s up to rounding errors of 1e-16.
    return TokenSemantics(s, d, max(0.0, d - s), label_entropy, int(active.sum()), num_tokens, found.overlap)


def label_masses(
    regions: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    *,
    ignore_label: int | None = None,
    num_labels: int | None = None,
    extent: tuple[float, float] | None = None,
) -> LabelMasses:
    """Sum each region over the pixels of each label; arguments and errors as in ``token_semantics``."""
    regions = _as_regions(regions)
    labels = _as_labels(labels)
    num_tokens, *grid = regions.shape
    cells = cell_of_pixels(labels.shape, tuple(grid), extent)
    index = index_labels(labels, ignore_label)
    _check_ids(index.ids, num_labels, ignore_label)
    if not index.ids.size:
        return LabelMasses(index.ids, index.pixels, np.zeros((num_tokens, 0)), labels.size, math.nan)
    pairs = count_label_cells(index, cells, grid[0] * grid[1])
    regions = regions.reshape(num_tokens, -1)
    masses = _label_masses(regions, pairs)
    return LabelMasses(index.ids, index.pixels, masses, labels.size, _overlap(regions, pairs, masses.sum()))


def _overlap(regions: np.ndarray, pairs: LabelCells, mass: float) -> float:
    """Overlap of (K, cells) regions whose total mass over the labelled pixels is ``mass``."""
    largest = (regions.max(axis=0).take(pairs.cell) * pairs.pixels.astype(np.float64)).sum()
    return max(0.0, float(1 - largest / mass)) if mass > 0 else math.nan


def _entropy(probs: np.ndarray) -> np.ndarray:
    """Entropy in nats over the last axis: (..., N) -> (...)."""
    terms = np.log(probs, out=np.zeros_like(probs), where=probs > 0)
    return np.maximum(0.0, -(probs * terms).sum(axis=-1))  # maximum: avoids minus zero


def _as_regions(regions: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(regions, Tensor):
        regions = regions.detach().float().cpu().numpy()
    regions = np.asarray(regions)
    if regions.dtype != np.float64:
        regions = regions.astype(np.float32, copy=False)
    if regions.ndim != 3 or not regions.size:
        raise ValueError(f"regions must be (K, h, w) with at least one token and one cell, got {regions.shape}")
    # NaN makes both comparisons false.
    low, high = float(regions.min()), float(regions.max())
    if not (low >= 0 and high < math.inf):
        raise ValueError(
            f"regions must be finite and not negative, got values from {low} to {high}; pass probabilities, not logits"
        )
    return regions


def _as_labels(labels: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    labels = np.asarray(labels)
    if labels.ndim != 2 or not labels.size:
        raise ValueError(f"labels must be (H, W) with at least one pixel, got {labels.shape}")
    if labels.dtype.kind not in "iub":
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    return labels.astype(np.int64, copy=False)


def _check_ids(ids: np.ndarray, num_labels: int | None, ignore_label: int | None) -> None:
    if num_labels is None or not ids.size or (ids[0] >= 0 and ids[-1] < num_labels):
        return
    outside = first_few(ids[(ids < 0) | (ids >= num_labels)], 5)
    raise ValueError(f"labels {outside} are neither in [0, {num_labels}) nor the ignore label {ignore_label}")


def _label_masses(regions: np.ndarray, pairs: LabelCells) -> np.ndarray:
    """Mass of every token on every label: (K, cells) -> (K, N) float64.

    Sums in a fixed order in one thread, so that, unlike that of a matrix product, the result does not depend on the
    number of threads.
    """
    weights = pairs.pixels.astype(np.float64)
    masses = np.empty((len(regions), len(pairs.starts)))
    step = max(1, _CHUNK_ELEMENTS // len(weights))
    for first in range(0, len(regions), step):
        chunk = regions[first : first + step].take(pairs.cell, axis=1) * weights  # (step, M)
        masses[first : first + step] = np.add.reduceat(chunk, pairs.starts, axis=1)
    return masses
