"""Colours of tokens, chosen to be distinct for colour-blind readers too, and of classes.

Shape legend: K tokens, C classes, N colours.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

# For pixels that are ignored or belong to no class.
IGNORE_COLOR = (226, 226, 226)
# The number of token colours; beyond, they repeat.
MAX_TOKEN_COLORS = 1024

# Linear RGB to the cone response of OKLab and on to its axes (B. Ottosson, "A perceptual color space", 2020).
_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
# What red-blind and green-blind readers see (Machado, Oliveira, Fernandes, 2009, severity 1), for linear RGB.
_PROTAN = np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]])
_DEUTAN = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]])
# Lightness and chroma of token colours: visible on dark and light images, neither grey nor glaring.
_LIGHTNESS = (0.50, 0.90)
_CHROMA = (0.07, 0.19)
# Token k + 1 has to differ from token k by this factor more than from the others.
_NEIGHBOUR_FACTOR = 2.5


def token_colors(num_tokens: int) -> np.ndarray:
    """Return (K, 3) uint8 RGB colours of tokens.

    They are chosen one after the other, each as distinct as possible from all previous ones for readers with normal,
    red-blind and green-blind vision. So token k has the same colour for every K, and small K get the clearest colours.

    Raises:
        ValueError: if ``num_tokens`` is negative.
    """
    if num_tokens < 0:
        raise ValueError(f"num_tokens is {num_tokens}; a picture has 0 tokens or more.")
    return _token_color_table()[np.arange(num_tokens) % MAX_TOKEN_COLORS]


def class_colors(num_classes: int, colors: Sequence[Sequence[int]] | None = None) -> np.ndarray:
    """Return (C, 3) uint8 RGB colours of classes: ``colors`` of the metadata, or if it has none those of tokens.

    Raises:
        ValueError: if ``colors`` is not a list of ``num_classes`` RGB triples in 0..255.
    """
    if colors is None or len(colors) == 0:
        return token_colors(num_classes)
    table = np.asarray(colors)
    if table.shape != (num_classes, 3) or table.min() < 0 or table.max() > 255:
        raise ValueError(
            f"class colors have shape {table.shape}; {num_classes} classes need {num_classes} RGB triples in 0..255."
        )
    return table.astype(np.uint8)


def colorize(labels: np.ndarray, colors: np.ndarray, ignore_label: int) -> np.ndarray:
    """Paint a label map (H, W) with (C, 3) colours: (H, W, 3) uint8; pixels of no class get ``IGNORE_COLOR``."""
    num_classes = len(colors)
    table = np.concatenate([colors, np.array([IGNORE_COLOR])]).astype(np.uint8)
    known = (labels >= 0) & (labels < num_classes) & (labels != ignore_label)
    return table[np.where(known, labels, num_classes)]


def oklab(colors: np.ndarray) -> np.ndarray:
    """Convert (N, 3) sRGB in 0..255 to OKLab (N, 3), in which distances are approximately those perceived."""
    return _oklab(_linear(colors))


def _linear(colors: np.ndarray) -> np.ndarray:
    c = np.asarray(colors, dtype=np.float64) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def _oklab(linear: np.ndarray) -> np.ndarray:
    return np.cbrt(linear @ _LMS.T) @ _LAB.T


@lru_cache(maxsize=1)
def _token_color_table() -> np.ndarray:
    candidates = _candidates()
    linear = _linear(candidates)
    simulated = [_oklab(np.clip(linear @ matrix.T, 0, 1)) for matrix in (_PROTAN, _DEUTAN)]
    seen = np.concatenate([_oklab(linear), *simulated], axis=1)  # (N, 9)

    chosen = [int(np.argmax(np.hypot(seen[:, 1], seen[:, 2])))]
    nearest = np.full(len(candidates), np.inf)
    while len(chosen) < MAX_TOKEN_COLORS:
        to_last = np.linalg.norm(seen - seen[chosen[-1]], axis=1)
        nearest = np.minimum(nearest, to_last)
        chosen.append(int(np.argmax(np.minimum(nearest, to_last / _NEIGHBOUR_FACTOR))))
    table = candidates[chosen].astype(np.uint8)
    table.setflags(write=False)
    return table


def _candidates() -> np.ndarray:
    steps = np.linspace(0, 255, 18).round()
    colors = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness, a, b = oklab(colors).T
    chroma = np.hypot(a, b)
    keep = (lightness >= _LIGHTNESS[0]) & (lightness <= _LIGHTNESS[1]) & (chroma >= _CHROMA[0]) & (chroma <= _CHROMA[1])
    return colors[keep]
