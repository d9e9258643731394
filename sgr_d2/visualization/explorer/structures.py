"""What the explorer is told about images and runs. It computes no metric of its own.

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
        truth: (H, W) integer labels, or None where they are not known.
    """

    name: str
    pixels: np.ndarray
    truth: np.ndarray | None


class ExploredImage(NamedTuple):
    """What one run made of one image.

    Attributes:
        prediction: (H, W) integer labels.
        figures: metrics of this image alone, by name; a figure that is not defined is NaN or absent.
        tokens: regions and tokens; None for a model without SGR.
        masses: (K, C) labelled mass of each token on each class; None without SGR.
        active: (K,) bool, the tokens that count for the metrics; None without SGR.
        attention: (N, K, K) how much token i (row) attends to token j (column), mean of the heads; rows add up to 1.
            None without SGR or without an encoder.
    """

    prediction: np.ndarray
    figures: Mapping[str, float]
    tokens: ImageTokens | None = None
    masses: np.ndarray | None = None
    active: np.ndarray | None = None
    attention: np.ndarray | None = None


class ExploredRun(NamedTuple):
    """A run as a whole.

    Attributes:
        name: shown to the reader.
        figures: metrics over all images, by name.
        class_iou: IoU of each class in percent, by class name; empty where no truth is known.
        note: where the model comes from, one line.
    """

    name: str
    figures: Mapping[str, float]
    class_iou: Mapping[str, float]
    note: str = ""
