"""The prediction for one image.

Shape legend: H x W the image, C classes, K tokens, D token channels, h x w token grid.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from sgr_d2.data.datasets import SemanticMetadata
from sgr_d2.evaluation import label_masses
from sgr_d2.messages import NO_SGR
from sgr_d2.structures import ImageTokens
from sgr_d2.visualization.palette import class_colors, colorize
from sgr_d2.visualization.regions import RegionMaps

from .image_input import ImageLike, as_image


@dataclass(frozen=True)
class Prediction:
    """
    Attributes:
        labels: (H, W) uint8, or uint16 for more than 256 classes: the class of each pixel.
        scores: (C, H, W) float32, whose argmax is the label: logits for per-pixel heads, sums of probabilities for
            mask-classification heads. None if not requested.
        regions: (K, h, w) float32 probabilities on the token grid; None for a model without SGR.
        tokens: (K, D) float32; None for a model without SGR.
        extent: (rows, columns) of the grid that the image covers, see `sgr_d2.structures.ImageTokens`, or None.
        metadata: names and colours of the classes.
    """

    labels: np.ndarray
    scores: np.ndarray | None
    regions: np.ndarray | None
    tokens: np.ndarray | None
    extent: tuple[float, float] | None
    metadata: SemanticMetadata

    @property
    def classes(self) -> list[str]:
        """The C class names."""
        return self.metadata.classes

    def class_areas(self) -> dict[str, float]:
        """The fraction of the image that each class covers, 0..1, for the classes that occur, largest first."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes))
        order = np.argsort(-counts, kind="stable")
        return {self.classes[c]: float(counts[c] / self.labels.size) for c in order if counts[c]}

    def color_map(self) -> np.ndarray:
        """The labels in the colours of their classes: (H, W, 3) uint8 RGB."""
        return colorize(self.labels, class_colors(len(self.classes), self.metadata.colors), self.metadata.ignore_label)

    def overlay(self, image: ImageLike, opacity: float = 0.5, *, channels: str = "RGB") -> np.ndarray:
        """Blend the colour map over the image that was predicted.

        Args:
            image: a path, a PIL image or an array, as `SGRPredictor` takes it; files are read again.
            opacity: 0 shows only the image, 1 only the colours.
            channels: channel order of an array, "RGB" or "BGR".

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            FileNotFoundError, ValueError, TypeError: if the image cannot be read, is not an image, or has another size;
                ValueError also if ``opacity`` is out of its range.
        """
        if not 0 <= opacity <= 1:
            raise ValueError(f"opacity = {opacity}: give a number from 0 (only the image) to 1 (only the colours).")
        pixels = as_image(image, channels)
        if pixels.shape[:2] != self.labels.shape:
            raise ValueError(_other_size(pixels.shape, self.labels.shape))
        return cv2.addWeighted(pixels, 1 - opacity, self.color_map(), opacity, 0)

    def region_map(self, token: int) -> np.ndarray:
        """The region of ``token``, resized bilinearly to the size of the image: (H, W) float32, 0..1.

        Raises:
            ValueError: if the model has no SGR.
            IndexError: if there is no such token.
        """
        maps = self.region_maps()
        self._check(token)
        return maps.map_of(token)

    def token_classes(self, token: int) -> dict[str, float]:
        """What ``token`` covers in this prediction: the share of its region's mass on each predicted class.

        Returns:
            {class name: share}, largest first, without classes that its region does not touch; the shares, 0..1, add up
            to 1. Empty if the region is 0 everywhere.

        Raises:
            ValueError: if the model has no SGR.
            IndexError: if there is no such token.
        """
        regions = self.image_tokens().regions
        self._check(token)
        found = label_masses(regions[token : token + 1], self.labels, extent=self.extent)
        masses = found.masses[0]
        order = np.argsort(-masses, kind="stable")
        return {self.classes[found.ids[i]]: float(masses[i] / masses.sum()) for i in order if masses[i] > 0}

    def region_maps(self) -> RegionMaps:
        """All regions, to be read one by one at the size of the image. Raises ValueError without SGR."""
        return RegionMaps(self.image_tokens(), self.labels.shape)

    def image_tokens(self) -> ImageTokens:
        """Regions and tokens in the form that metrics and pictures take. Raises ValueError without SGR."""
        if self.regions is None or self.tokens is None or self.extent is None:
            raise ValueError(f"The model {NO_SGR}: there are no regions and no tokens.")
        return ImageTokens(torch.from_numpy(self.regions), torch.from_numpy(self.tokens), self.extent)

    def _check(self, token: int) -> None:
        """Raise IndexError if there is no such token."""
        if not 0 <= token < len(self.regions):
            raise IndexError(f"token {token}: the model has the tokens 0..{len(self.regions) - 1}.")


def _other_size(found: tuple[int, ...], size: tuple[int, int]) -> str:
    text = f"image is {found}, the prediction is of an image {(*size, 3)}."
    if found[:2] != size[::-1]:
        return text
    return (
        f"{text} Height and width are swapped: the file probably has an EXIF orientation, by which files and PIL "
        "images are turned upright, and arrays are not. Give its path, or turn it with PIL.ImageOps.exif_transpose "
        "before it becomes an array."
    )
