"""Street scenes to measure on: CamVid if available, otherwise generated scenes of the same layout, size and classes."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from sgr_d2.data.datasets import dataset_root, register_all
from sgr_d2.data.datasets.catalog import ROOT_VARIABLE

HEIGHT, WIDTH = 360, 480
NUM_CLASSES, IGNORE_LABEL = 11, 255
# The median map of CamVid's training labels has 46 components of at least 16 pixels, and 5 percent ignored pixels.
IGNORED_SHARE = 0.05


@contextmanager
def street_scenes(num_generated: int = 8) -> Iterator[str]:
    """Make ``camvid_train`` and ``camvid_val`` usable, and yield what they are, in words.

    If $DETECTRON2_DATASETS has no CamVid, ``num_generated`` scenes per split are written to a temporary folder.
    """
    register_all()
    if all((dataset_root() / "camvid" / "labels" / split).is_dir() for split in ("train", "val")):
        yield "CamVid"
        return
    former = os.environ.get(ROOT_VARIABLE)
    with tempfile.TemporaryDirectory() as folder:
        for number, split in enumerate(("train", "val")):
            write_split(Path(folder) / "camvid", split, num_generated, seed=number)
        os.environ[ROOT_VARIABLE] = folder
        try:
            register_all()
            yield "generated scenes"
        finally:
            os.environ.pop(ROOT_VARIABLE)
            if former is not None:
                os.environ[ROOT_VARIABLE] = former
            register_all()


def write_split(root: Path, split: str, count: int, seed: int) -> None:
    """Write ``count`` scenes to ``root``/{images,labels}/``split``."""
    for kind in ("images", "labels"):
        (root / kind / split).mkdir(parents=True)
    for index in range(count):
        image, labels = draw_street(np.random.default_rng([seed, index]))
        Image.fromarray(image).save(root / "images" / split / f"{index:04d}.png")
        Image.fromarray(labels).save(root / "labels" / split / f"{index:04d}.png")


def draw_street(rng: np.random.Generator, height: int = HEIGHT, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    """Draw blobs of 11 classes of unequal size, about 60 components, with a twentieth of the pixels ignored.

    Returns:
        (H, W, 3) uint8 image and (H, W) uint8 labels.
    """
    fields = [_smooth(rng, height, width, cells) - 0.05 * cells for cells in np.linspace(2, 9, NUM_CLASSES)]
    classes = np.argmax(fields, axis=0).astype(np.uint8)
    tone = rng.integers(30, 220, (NUM_CLASSES, 3))
    image = tone[classes] + rng.normal(0, 12, (height, width, 3))
    hidden = _smooth(rng, height, width, 10)
    labels = np.where(hidden > np.quantile(hidden, 1 - IGNORED_SHARE), np.uint8(IGNORE_LABEL), classes)
    return np.clip(image, 0, 255).astype(np.uint8), labels


def _smooth(rng: np.random.Generator, height: int, width: int, cells: float) -> np.ndarray:
    """A random field with about ``cells`` bumps along the height."""
    rows = max(2, round(cells))
    coarse = rng.standard_normal((rows, max(2, round(cells * width / height))), np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
