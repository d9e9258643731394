import random

import numpy as np
import pytest
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform

from sgr_d2.config import get_sgr_cfg
from sgr_d2.data.augmentation import TabulatedColorAugSSD, build_augmentations
from sgr_d2.data.loader import seeded_randomness


@pytest.fixture
def cfg():
    cfg = get_sgr_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN = (20,)
    cfg.INPUT.RANDOM_FLIP = "none"
    return cfg


def augment(augmentations, image, labels, seed=0):
    augmented = T.AugInput(image, sem_seg=labels)
    with seeded_randomness(seed):
        T.AugmentationList(augmentations)(augmented)
    return augmented.image, augmented.sem_seg


def gradient(height, width):
    image = np.stack([np.indices((height, width))[0], np.indices((height, width))[1], np.zeros((height, width))], -1)
    return image.astype(np.uint8), np.indices((height, width))[0].astype(np.uint8)


def test_order_is_scale_crop_colour_flip(cfg):
    cfg.INPUT.CROP.ENABLED = cfg.INPUT.COLOR_AUG_SSD = True
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    names = [type(x).__name__ for x in build_augmentations(cfg, True)]
    assert names == ["ResizeShortestEdge", "RandomCrop_CategoryAreaConstraint", "TabulatedColorAugSSD", "RandomFlip"]


def test_detectors_crop_first_as_in_detectron2(cfg):
    cfg.INPUT.CROP.ENABLED = True
    names = [type(x).__name__ for x in build_augmentations(cfg, True, crop_first=True)]
    assert names == ["RandomCrop", "ResizeShortestEdge"]
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 0.75
    with pytest.raises(ValueError, match=r"SINGLE_CATEGORY_MAX_AREA = 0.75 is for segmentation"):
        build_augmentations(cfg, True, crop_first=True)


def test_scale(cfg):
    image, labels = gradient(10, 15)
    scaled, _ = augment(build_augmentations(cfg, True), image, labels)
    assert scaled.shape == (20, 30, 3)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = (8, 12), "range"
    sizes = {augment(build_augmentations(cfg, True), image, labels, seed)[0].shape[0] for seed in range(60)}
    assert sizes == {8, 9, 10, 11, 12}
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "choice"
    sizes = {augment(build_augmentations(cfg, True), image, labels, seed)[0].shape[0] for seed in range(30)}
    assert sizes == {8, 12}
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (20,), 24
    assert augment(build_augmentations(cfg, True), image, labels)[0].shape == (16, 24, 3)


def test_absolute_crop_is_clipped_to_the_image(cfg):
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", [100, 12]
    image, labels = gradient(20, 31)
    cropped, cropped_labels = augment(build_augmentations(cfg, True), image, labels)
    assert cropped.shape == (20, 12, 3)
    assert cropped_labels.tolist() == cropped[..., 0].tolist()  # red is the row, and so is the label


def test_a_single_category_may_not_fill_the_crop(cfg):
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", [20, 20]
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 0.75
    labels = np.zeros((20, 40), np.uint8)
    labels[:, 20:] = 1
    labels[:16] = 7  # ignored: it fills four fifths of every crop and does not count
    image = np.zeros((20, 40, 3), np.uint8)
    for seed in range(30):
        _, cropped = augment(build_augmentations(cfg, True, ignore_label=7), image, labels, seed)
        counts = np.bincount(cropped[cropped != 7], minlength=2)
        assert counts.max() < 0.75 * counts.sum()


def test_colours_change_alike_in_both_channel_orders(cfg):
    cfg.INPUT.COLOR_AUG_SSD = True
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    labels, changed = np.zeros((20, 20), np.uint8), 0
    for seed in range(12):
        cfg.INPUT.FORMAT = "RGB"
        rgb, _ = augment(build_augmentations(cfg, True), image, labels, seed)
        cfg.INPUT.FORMAT = "BGR"
        bgr, _ = augment(build_augmentations(cfg, True), np.ascontiguousarray(image[..., ::-1]), labels, seed)
        assert bgr[..., ::-1].tolist() == rgb.tolist()
        changed += not np.array_equal(rgb, image)
    assert changed > 6


@pytest.mark.parametrize("format", ["RGB", "BGR"])
def test_colours_are_those_of_detectron2(format):
    theirs, ours = ColorAugSSDTransform(format), TabulatedColorAugSSD(format)
    image = np.random.default_rng(0).integers(0, 256, (67, 51, 3)).astype(np.uint8)[3:, 1:-2]  # a view, as of a crop
    before = image.copy()
    for seed in range(200):  # each of the five steps has two branches
        random.seed(seed)
        expected, state = theirs.apply_image(image), random.getstate()
        random.seed(seed)
        assert np.array_equal(ours.apply_image(image), expected)
        assert random.getstate() == state
    assert np.array_equal(image, before)
    assert ours.apply_segmentation(image) is image


def test_flip(cfg):
    image, labels = gradient(20, 30)
    for direction, axis in (("horizontal", 1), ("vertical", 0)):
        cfg.INPUT.RANDOM_FLIP = direction
        results = [augment(build_augmentations(cfg, True), image, labels, seed)[0].tolist() for seed in range(12)]
        assert {str(x) for x in results} == {str(image.tolist()), str(np.flip(image, axis).tolist())}


def test_at_test_the_image_is_scaled_at_most(cfg):
    image, _ = gradient(10, 15)
    cfg.INPUT.CROP.ENABLED = cfg.INPUT.COLOR_AUG_SSD = True
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 20, 24
    assert augment(build_augmentations(cfg, False), image, None)[0].shape == (16, 24, 3)
    cfg.INPUT.MIN_SIZE_TEST = 0
    assert build_augmentations(cfg, False) == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("RANDOM_FLIP", "both", r"INPUT\.RANDOM_FLIP = 'both': choose from \['horizontal', 'vertical', 'none'\]"),
        ("MIN_SIZE_TRAIN_SAMPLING", "all", r"\.MIN_SIZE_TRAIN_SAMPLING = 'all': choose from \['choice', 'range'\]"),
        ("MIN_SIZE_TRAIN", (), r"INPUT\.MIN_SIZE_TRAIN must be"),
        ("MIN_SIZE_TRAIN", (-8, 8), r"INPUT\.MIN_SIZE_TRAIN must be pixels.* got \(-8, 8\)"),
        ("FORMAT", "L", r"INPUT\.FORMAT = 'L': choose from \['RGB', 'BGR'\]"),
        ("CROP.TYPE", "square", r"INPUT\.CROP\.TYPE = 'square': choose from \['relative_range', .*\]"),
        ("CROP.SIZE", [1.5, 1], r"INPUT\.CROP\.SIZE must be two fractions .* 'relative_range'; got \(1\.5, 1\)"),
        ("CROP.SIZE", [0.5, 0.5, 0.5], r"INPUT\.CROP\.SIZE must be two fractions"),
    ],
)
def test_bad_keys(cfg, key, value, message):
    cfg.INPUT.CROP.ENABLED = cfg.INPUT.COLOR_AUG_SSD = True
    node, name = (cfg.INPUT.CROP, key.split(".")[1]) if "." in key else (cfg.INPUT, key)
    node[name] = value
    with pytest.raises(ValueError, match=message):
        build_augmentations(cfg, True)


@pytest.mark.parametrize(("key", "value"), [("MIN_SIZE_TEST", -5), ("MAX_SIZE_TEST", 0)])
def test_bad_sizes_at_test(cfg, key, value):
    cfg.INPUT[key] = value
    with pytest.raises(ValueError, match=rf"INPUT\.{key} = {value}\b"):
        build_augmentations(cfg, False)


def test_absolute_crop_size_is_in_pixels(cfg):
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE = True, "absolute"  # with the default size of 0.9 x 0.9
    with pytest.raises(ValueError, match=r"two whole numbers of pixels for INPUT\.CROP\.TYPE 'absolute'"):
        build_augmentations(cfg, True)
    cfg.INPUT.CROP.SIZE = [16.0, 8.0]
    cropped, _ = augment(build_augmentations(cfg, True), *gradient(20, 30))
    assert cropped.shape == (16, 8, 3)
