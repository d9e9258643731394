"""What each token means over all images: sums as images are added, means at the end.

Shape legend: K tokens, C classes, D token channels, N layers of the encoder.
"""

from typing import Any

import numpy as np

from .encode import matrix
from .structures import ExploredImage

NUM_NEAREST = 6


class TokenSums:
    """Means over the images in which a token is active; cover and attention are means over all images."""

    def __init__(self) -> None:
        self._number = 0
        self._active: np.ndarray | None = None  # (K,) images
        self._cover: np.ndarray | float = 0.0  # (K,)
        self._histogram: np.ndarray | float = 0.0  # (K, C)
        self._vectors: np.ndarray | float = 0.0  # (K, D)
        self._attention: np.ndarray | float | None = None  # (N, K, K)

    @property
    def is_empty(self) -> bool:
        return self._active is None

    def add(self, image: ExploredImage, cover: np.ndarray) -> None:
        """Add an image that has tokens, and the fraction of it that each region covers (K,)."""
        active = image.active.astype(np.float64)
        totals = image.masses.sum(axis=1, keepdims=True)
        distributions = np.divide(image.masses, totals, out=np.zeros_like(image.masses), where=totals > 0)
        vectors = image.tokens.tokens.detach().cpu().double().numpy()
        self._number += 1
        self._active = active if self._active is None else self._active + active
        self._cover = self._cover + cover
        self._histogram = self._histogram + active[:, None] * distributions
        self._vectors = self._vectors + active[:, None] * vectors
        if image.attention is not None:
            self._attention = image.attention.astype(np.float64) + (0 if self._attention is None else self._attention)

    def content(self) -> dict[str, Any]:
        """The means, in the form that the page reads."""
        counts = np.maximum(self._active, 1)[:, None]
        histogram = self._histogram / counts
        vectors = self._vectors / counts
        content = {
            "active": self._active / self._number,
            "cover": self._cover / self._number,
            "histogram": histogram,
            "purity": histogram.max(axis=1),
            "means": np.where(self._active > 0, histogram.argmax(axis=1), -1),
            "nearest": nearest(vectors, self._active > 0),
        }
        if self._attention is not None:
            mean = self._attention / self._number
            content["attention"] = {"layers": len(mean), **matrix(mean)}
        return content


def nearest(vectors: np.ndarray, known: np.ndarray) -> list[list[list[float]]]:
    """The known tokens nearest to each token by the cosine of their mean vectors, with the common mean subtracted.

    Args:
        vectors: (K, D).
        known: (K,) bool; the others neither have neighbours nor are neighbours.

    Returns:
        For each token, a list of at most ``NUM_NEAREST`` pairs [token, cosine], nearest first.
    """
    centred = vectors - vectors[known].mean(axis=0) if known.any() else vectors
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > 1e-12)
    cosine = unit @ unit.T
    result = []
    for token in range(len(vectors)):
        others = [k for k in np.argsort(-cosine[token], kind="stable") if k != token and known[k] and known[token]]
        result.append([[int(k), float(cosine[token, k])] for k in others[:NUM_NEAREST]])
    return result
