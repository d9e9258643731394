"""The data set ``shapes``: small, seeded, generated on first use, so that SGR trains in minutes without a download.

    <root>/shapes/{images,labels}/{train,val}/0000.png     RGB images; label-id PNGs with every pixel labelled
    <root>/shapes/generator.json                           the stamp: what made these files, written last

The registered names are ``shapes_train`` and ``shapes_val``. ``shapes_scene`` draws the scenes.
"""

from pathlib import Path

import numpy as np

from sgr_d2.data.datasets.generated import STAMP
from sgr_d2.data.datasets.generated_splits import IGNORE_LABEL, SPLITS, GeneratedSplits
from sgr_d2.data.datasets.shapes_scene import CLASSES, Scene, draw_scene

__all__ = ["CLASSES", "COLORS", "IGNORE_LABEL", "SPLITS", "STAMP", "draw_scene", "generate_shapes", "register_shapes"]

# Increase this whenever draw_scene or the layout changes: folders of another version are set aside and regenerated.
VERSION = 1
NUM_TRAIN, NUM_VAL, SEED = 400, 80, 0
HEIGHT, WIDTH = 144, 192

# One RGB colour per class, after Okabe and Ito's colour-blind safe set (jfly.uni-koeln.de/color); grey replaces black.
COLORS = [
    (0, 114, 178),
    (95, 95, 95),
    (230, 159, 0),
    (204, 121, 167),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
]


def register_shapes(root: Path, *, num_train: int = NUM_TRAIN, num_val: int = NUM_VAL, seed: int = SEED) -> None:
    """Register ``shapes_train`` and ``shapes_val`` under ``root``, see `GeneratedSplits.register`."""
    _splits().register(root, num_train=num_train, num_val=num_val, seed=seed)


def generate_shapes(root: Path, *, num_train: int = NUM_TRAIN, num_val: int = NUM_VAL, seed: int = SEED) -> Path:
    """Generate the data set unless it exists, and return ``<root>/shapes``, see `GeneratedSplits.generate`."""
    return _splits().generate(root, num_train=num_train, num_val=num_val, seed=seed)


def _splits() -> GeneratedSplits:
    return GeneratedSplits("shapes", CLASSES, COLORS, (HEIGHT, WIDTH), VERSION, _draw)


def _draw(generator: np.random.Generator, index: int) -> Scene:
    return draw_scene(generator, HEIGHT, WIDTH)
