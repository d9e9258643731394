"""Regions at picture resolution: which token owns a pixel, how much a token covers, which class it mostly means.

Shape legend: K tokens, H x W token grid, h x w picture, C classes.
"""

from typing import NamedTuple

import numpy as np

from sgr_d2.structures import ImageTokens

# Regions that cover a smaller fraction of the image are not shown one by one.
MIN_COVER = 1e-3


class RegionSummary(NamedTuple):
    """The information in the title of a region.

    Attributes:
        token: index of the token.
        cover: mean of the region over the image, 0..1.
        label: the class with the largest share, or None if no truth is known.
        share: its fraction of the region's mass on labelled pixels, 0..1.
    """

    token: int
    cover: float
    label: int | None
    share: float


class RegionMaps:
    """The regions of one image, read at any resolution; the grid may extend beyond the image (``ImageTokens.extent``).

    Args:
        tokens: the model's output for the image.
        size: (h, w) of the picture, in pixels.

    Raises:
        ValueError: if the regions are not (K, H, W) or the extent does not fit them.
    """

    def __init__(self, tokens: ImageTokens, size: tuple[int, int]):
        regions = np.nan_to_num(tokens.regions.detach().cpu().float().numpy(), posinf=1, neginf=0).clip(0, 1)
        if regions.ndim != 3:
            raise ValueError(f"regions have shape {regions.shape}; expected (K, H, W) probabilities of one image.")
        for extent, cells in zip(tokens.extent, regions.shape[1:], strict=True):
            if not 0 < extent <= cells:
                raise ValueError(f"extent {tokens.extent} does not fit into a token grid of {regions.shape[1:]} cells.")
        self._regions = regions
        self._rows = _interpolation(size[0], regions.shape[1], tokens.extent[0])  # (h, H)
        self._columns = _interpolation(size[1], regions.shape[2], tokens.extent[1])  # (w, W)

    def __len__(self) -> int:
        return len(self._regions)

    def map_of(self, token: int) -> np.ndarray:
        """Return region ``token`` at picture resolution, bilinear: (h, w) float32."""
        return self._rows @ self._regions[token] @ self._columns.T

    def owners(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the token with the highest probability at each pixel (h, w) and that probability (h, w).

        Without tokens the probability is 0 everywhere.
        """
        size = (len(self._rows), len(self._columns))
        owner = np.zeros(size, dtype=np.int64)
        strength = np.zeros(size, dtype=np.float32)
        for token in range(len(self)):  # one at a time: K maps at full size would take too much memory
            probability = self.map_of(token)
            higher = probability > strength
            owner[higher] = token
            strength[higher] = probability[higher]
        return owner, strength

    def cover(self) -> np.ndarray:
        """Return the mean of each region over the image: (K,) float32."""
        return np.einsum("khw,h,w->k", self._regions, self._rows.mean(axis=0), self._columns.mean(axis=0))

    def strongest(self, number: int, labels: np.ndarray | None, num_classes: int) -> list[RegionSummary]:
        """Return the ``number`` largest regions, largest first; those that cover less than ``MIN_COVER`` are left out.

        Args:
            labels: (h, w) truth at picture resolution, values outside 0..C-1 are ignored; None if unknown.
        """
        cover = self.cover()
        order = np.argsort(-cover, kind="stable")[:number]
        return [
            RegionSummary(int(k), float(cover[k]), *_dominant(self.map_of(k), labels, num_classes))
            for k in order
            if cover[k] >= MIN_COVER
        ]


def _interpolation(size: int, cells: int, extent: float) -> np.ndarray:
    """Bilinear weights (size, cells) from the cells of one axis to ``size`` pixels that span ``extent`` cells."""
    position = np.clip((np.arange(size) + 0.5) / size * extent - 0.5, 0, cells - 1)
    lower = np.floor(position).astype(np.int64)
    upper = np.minimum(lower + 1, cells - 1)
    weights = np.zeros((size, cells), dtype=np.float32)
    pixels = np.arange(size)
    np.add.at(weights, (pixels, lower), 1 - (position - lower))
    np.add.at(weights, (pixels, upper), position - lower)
    return weights


def _dominant(region: np.ndarray, labels: np.ndarray | None, num_classes: int) -> tuple[int | None, float]:
    if labels is None:
        return None, 0.0
    labelled = (labels >= 0) & (labels < num_classes)
    mass = np.bincount(labels[labelled].astype(np.int64), weights=region[labelled], minlength=num_classes)
    if num_classes == 0 or mass.sum() <= 0:
        return None, 0.0
    label = int(mass.argmax())
    return label, float(mass[label] / mass.sum())
