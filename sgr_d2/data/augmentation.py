"""The augmentations for training and test, built from Detectron2's own classes and keys."""

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
    """Return the augmentations of ``INPUT``, in order: scale, crop, colour, flip; for test only the scale.

    Args:
        cfg: config with INPUT.{MIN,MAX}_SIZE_*, CROP, COLOR_AUG_SSD, FORMAT and RANDOM_FLIP.
        is_train: for training or for test.
        ignore_label: label that is not counted for INPUT.CROP.SINGLE_CATEGORY_MAX_AREA.
        crop_first: crop before scaling, and regardless of labels, as Detectron2 does for detectors.

    Raises:
        ValueError: if a key has an invalid value.
    """
    if not is_train:
        size, largest = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST  # 0: leave the image as it is
        if size < 0 or largest < 1:
            raise ValueError(
                f"INPUT.MIN_SIZE_TEST = {size}, INPUT.MAX_SIZE_TEST = {largest}: give pixels; MIN_SIZE_TEST 0 keeps "
                "the size of the file."
            )
        return [T.ResizeShortestEdge(size, largest)] if size else []
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
    """Detectron2's transform, with the same random draws and bit for bit the same results, in a third of the time.

    It computes the results for the 256 values of a byte instead of for each pixel, and swaps channels with OpenCV.
    """

    def __init__(self, img_format: str) -> None:
        """``img_format``: "RGB" or "BGR"."""
        super().__init__("BGR")
        self.img_format = img_format

    def apply_image(self, img: np.ndarray, interp: str | None = None) -> np.ndarray:
        """Return an image (H, W, 3) uint8 with changed colours."""
        if self.img_format == "BGR":
            return super().apply_image(img)
        return cv2.cvtColor(super().apply_image(cv2.cvtColor(img, cv2.COLOR_RGB2BGR)), cv2.COLOR_BGR2RGB)

    def convert(self, img: np.ndarray, alpha: float = 1, beta: float = 0) -> np.ndarray:
        """Return ``alpha * img + beta``, clipped to uint8."""
        return cv2.LUT(img, super().convert(np.arange(256, dtype=np.uint8), alpha, beta))

    def hue(self, img: np.ndarray) -> np.ndarray:
        """Shift the hue at random, or leave it."""
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
    if not sizes or min(sizes) < 0 or (style == "range" and (len(sizes) != 2 or sizes[0] > sizes[1])):
        raise ValueError(
            f"INPUT.MIN_SIZE_TRAIN must be pixels: [smallest, largest] for sampling 'range', a list for 'choice'; got "
            f"{sizes}."
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
        unit = "two whole numbers of pixels" if pixels else "two fractions of the image in (0, 1]"
        raise ValueError(f"INPUT.CROP.SIZE must be {unit} for INPUT.CROP.TYPE {crop.TYPE!r}; got {size}.")
    if pixels:
        size = tuple(int(x) for x in size)
    if not by_labels:
        if crop.SINGLE_CATEGORY_MAX_AREA < 1:
            raise ValueError(
                f"INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = {crop.SINGLE_CATEGORY_MAX_AREA} is for segmentation; detectors "
                "have no label map. Set it to 1.0."
            )
        return T.RandomCrop(crop.TYPE, size)
    return T.RandomCrop_CategoryAreaConstraint(crop.TYPE, size, crop.SINGLE_CATEGORY_MAX_AREA, ignore_label)
