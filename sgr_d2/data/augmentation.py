"""The augmentations of training and test, from Detectron2's own parts and keys."""

import random

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform

from sgr_d2.checks import check_choice
from sgr_d2.data.reading import IMAGE_FORMATS


def build_augmentations(
    cfg: CfgNode, is_train: bool, *, ignore_label: int = 255, crop_first: bool = False
) -> list[T.Augmentation | T.Transform]:
    """Return what ``INPUT`` asks for, in order: scale, crop, colour, flip; at test the scale alone.

    Args:
        cfg: read for INPUT.{MIN,MAX}_SIZE_*, CROP, COLOR_AUG_SSD, FORMAT and RANDOM_FLIP.
        is_train: for training or for test.
        ignore_label: labels of this value do not count for INPUT.CROP.SINGLE_CATEGORY_MAX_AREA.
        crop_first: crop before the scale, and regardless of labels, as Detectron2 does for detectors.

    Raises:
        ValueError: a key has a value that cannot be obeyed.
    """
    if not is_train:
        size = cfg.INPUT.MIN_SIZE_TEST  # 0: leave the image as it is
        return [T.ResizeShortestEdge(size, cfg.INPUT.MAX_SIZE_TEST)] if size else []
    augmentations = [_random_scale(cfg)]
    if cfg.INPUT.CROP.ENABLED:
        augmentations.insert(0 if crop_first else 1, _random_crop(cfg, ignore_label, by_labels=not crop_first))
    if cfg.INPUT.COLOR_AUG_SSD:
        check_choice("INPUT.FORMAT", cfg.INPUT.FORMAT, IMAGE_FORMATS)
        augmentations.append(TabulatedColorAugSSD(cfg.INPUT.FORMAT))
    check_choice("INPUT.RANDOM_FLIP", cfg.INPUT.RANDOM_FLIP, ("horizontal", "vertical", "none"))
    if cfg.INPUT.RANDOM_FLIP != "none":
        vertical = cfg.INPUT.RANDOM_FLIP == "vertical"
        augmentations.append(T.RandomFlip(horizontal=not vertical, vertical=vertical))
    return augmentations


class TabulatedColorAugSSD(ColorAugSSDTransform):
    """Detectron2's transform, equal bit for bit and in its random draws, in a third of the time.

    It computes the 256 results that a byte can have instead of each pixel's, and leaves the swap of channels to OpenCV.
    """

    def __init__(self, img_format: str) -> None:
        """``img_format``: "RGB" or "BGR"."""
        super().__init__("BGR")
        self.img_format = img_format

    def apply_image(self, img: np.ndarray, interp: str | None = None) -> np.ndarray:
        """Return an image (H, W, 3) uint8 with other colours."""
        if self.img_format == "BGR":
            return super().apply_image(img)
        return cv2.cvtColor(super().apply_image(cv2.cvtColor(img, cv2.COLOR_RGB2BGR)), cv2.COLOR_BGR2RGB)

    def convert(self, img: np.ndarray, alpha: float = 1, beta: float = 0) -> np.ndarray:
        """Return ``alpha * img + beta``, clipped to uint8."""
        return cv2.LUT(img, super().convert(np.arange(256, dtype=np.uint8), alpha, beta))

    def hue(self, img: np.ndarray) -> np.ndarray:
        """Shift the hue, or leave it, at random."""
        if not random.randrange(2):
            return img
        hsv = cv2.cvtColor(img, cv2.COLOR_BGR2HSV)
        shift = random.randint(-self.hue_delta, self.hue_delta)
        hsv[..., 0] = cv2.LUT(hsv[..., 0], ((np.arange(256) + shift) % 180).astype(np.uint8))
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


def _random_scale(cfg: CfgNode) -> T.Augmentation:
    sizes, style = cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
    sizes = (sizes, sizes) if isinstance(sizes, int) else tuple(sizes)
    check_choice("INPUT.MIN_SIZE_TRAIN_SAMPLING", style, ("choice", "range"))
    if not sizes or (style == "range" and (len(sizes) != 2 or sizes[0] > sizes[1])):
        raise ValueError(
            f"INPUT.MIN_SIZE_TRAIN must be [smallest, largest] for sampling 'range', a list for 'choice'; got {sizes}."
        )
    return T.ResizeShortestEdge(sizes, cfg.INPUT.MAX_SIZE_TRAIN, style)


def _random_crop(cfg: CfgNode, ignore_label: int, by_labels: bool) -> T.Augmentation:
    crop = cfg.INPUT.CROP
    kinds = ("relative_range", "relative", "absolute", "absolute_range")
    check_choice("INPUT.CROP.TYPE", crop.TYPE, kinds)
    size = tuple(crop.SIZE)
    pixels = crop.TYPE.startswith("absolute")
    valid = all(x == int(x) >= 1 for x in size) if pixels else all(0 < x <= 1 for x in size)
    if len(size) != 2 or not valid:
        unit = "two whole numbers of pixels" if pixels else "two shares of the image in (0, 1]"
        raise ValueError(f"INPUT.CROP.SIZE must be {unit} for INPUT.CROP.TYPE {crop.TYPE!r}; got {size}.")
    if pixels:
        size = tuple(int(x) for x in size)
    if not by_labels:
        if crop.SINGLE_CATEGORY_MAX_AREA < 1:
            raise ValueError(
                f"INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = {crop.SINGLE_CATEGORY_MAX_AREA} is for segmentation; detectors "
                "have no label map to look at. Set it to 1.0."
            )
        return T.RandomCrop(crop.TYPE, size)
    return T.RandomCrop_CategoryAreaConstraint(crop.TYPE, size, crop.SINGLE_CATEGORY_MAX_AREA, ignore_label)
