"""Warns of images that a model sees at another scale than those of its training."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from detectron2.config import CfgNode

from sgr_d2.data.check_hints import far_apart

logger = logging.getLogger(__name__)


@dataclass
class ScaleWarning:
    """Warns of the first image whose scale is far from that of the training; says nothing of later ones.

    Attributes:
        train_edges: INPUT.MIN_SIZE_TRAIN, lengths of the shorter side in training, in pixels; () if unknown.
        max_size: INPUT.MAX_SIZE_TEST, pixels.
        told: whether it has warned.
    """

    train_edges: Sequence[int] = ()
    max_size: int = 0
    told: bool = False

    @classmethod
    def of(cls, cfg: CfgNode) -> "ScaleWarning":
        """For the model of ``cfg``; silent if TEST.AUG is on, which has scales of its own."""
        edges = [] if cfg.TEST.AUG.ENABLED else np.atleast_1d(cfg.INPUT.MIN_SIZE_TRAIN).tolist()
        return cls(edges, cfg.INPUT.MAX_SIZE_TEST)

    def look_at(self, size: tuple[int, int], resized: tuple[int, int]) -> None:
        """Warn if need be of an image of ``size`` (height, width) that the model gets as ``resized``, in pixels."""
        if self.told or not far_apart(self.train_edges, min(resized)):
            return
        self.told = True
        smallest, largest, options = min(self.train_edges), max(self.train_edges), self._options(size)
        logger.warning(
            "An image of %dx%d pixels (width x height) goes into the model with a shorter side of %d; in training it "
            "was %s (INPUT.MIN_SIZE_TRAIN). A model is worse at other scales than those of its training: unless the "
            "image is a cut-out at the scale of the training, set %s with opts=[%s] or --opts %s. Further images are "
            "not reported.",
            *(size[1], size[0], min(resized)),
            smallest if smallest == largest else f"{smallest} to {largest}",
            " and ".join(options),
            ", ".join(f'"{key}", {value}' for key, value in options.items()),
            " ".join(f"{key} {value}" for key, value in options.items()),
        )

    def _options(self, size: tuple[int, int]) -> dict[str, int]:
        """The options with which the shorter side becomes the median of those in training."""
        edge = round(median(self.train_edges))
        longer = math.ceil(edge * max(size) / min(size))
        return {"INPUT.MIN_SIZE_TEST": edge} | ({"INPUT.MAX_SIZE_TEST": longer} if longer > self.max_size else {})
