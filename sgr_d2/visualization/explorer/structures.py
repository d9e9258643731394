"""The explorer's input: images and runs. It does not compute metrics itself.

Shape legend: H x W image, C classes, K tokens, N layers of the encoder.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from sgr_d2.structures import ImageTokens


class Photograph(NamedTuple):
    """One image of the gallery, the same for every run.

    Attributes:
        name: shown to the reader; need not be unique.
        pixels: (H, W, 3) uint8 RGB.
        truth: (H, W) integer labels, or None if unknown.
    """

    name: str
    pixels: np.ndarray
    truth: np.ndarray | None


class ExploredImage(NamedTuple):
    """The results of one run for one image.

    Attributes:
        prediction: (H, W) integer labels.
        figures: metrics of this image, by name; undefined ones are NaN or absent.
        tokens: regions and tokens; None for a model without SGR.
        masses: (K, C) labelled mass of each token on each class; None without SGR.
        active: (K,) bool, the tokens that count in the metrics; None without SGR.
        attention: (N, K, K) attention of token i (row) to token j (column), averaged over heads; rows add up to 1. None
            without SGR or without an encoder.
    """

    prediction: np.ndarray
    figures: Mapping[str, float]
    tokens: ImageTokens | None = None
    masses: np.ndarray | None = None
    active: np.ndarray | None = None
    attention: np.ndarray | None = None


class ExploredRun(NamedTuple):
    """The overall results of a run.

    Attributes:
        name: shown to the reader.
        figures: metrics over all images, by name.
        class_iou: IoU of each class in percent, by class name; empty if no truth is known.
        note: one line on where the model comes from.
    """

    name: str
    figures: Mapping[str, float]
    class_iou: Mapping[str, float]
    note: str = ""
