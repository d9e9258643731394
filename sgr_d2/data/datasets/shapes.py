"""The data set ``shapes``: small, seeded, generated on first use, so that SGR trains within minutes and no download.

    <root>/shapes/{images,labels}/{train,val}/0000.png     RGB images; label-id PNGs with every pixel labelled
    <root>/shapes/generator.json                           the stamp: what made these files, written last

The registered names are ``shapes_train`` and ``shapes_val``. ``shapes_scene`` draws the scenes.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from sgr_d2.data.datasets.catalog import register_semantic
from sgr_d2.data.datasets.generated import STAMP, generate_once
from sgr_d2.data.datasets.shapes_scene import CLASSES, draw_scene

__all__ = ["CLASSES", "COLORS", "STAMP", "draw_scene", "generate_shapes", "register_shapes"]

# Raise this whenever draw_scene or the layout changes: folders of another version are set aside and generated anew.
VERSION = 1
NUM_TRAIN, NUM_VAL, SEED = 400, 80, 0
HEIGHT, WIDTH = 144, 192
IGNORE_LABEL = 255
OWNER = "shapes"
SPLITS = ("train", "val")

# One RGB colour a class, after Okabe and Ito's colour-blind safe set (jfly.uni-koeln.de/color); grey stands for black.
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
    """Register ``shapes_train`` and ``shapes_val`` under ``root``; a further call moves them to its own arguments.

    Nothing is read or written before a data set is asked for. Each record has ``file_name``, ``sem_seg_file_name``,
    ``image_id``, ``height`` and ``width`` (pixels); the metadata is that of ``register_semantic``.

    Raises:
        ValueError: a name belongs to another data set.
    """
    generate = partial(generate_shapes, Path(root), num_train=num_train, num_val=num_val, seed=seed)
    for split, count in zip(SPLITS, (num_train, num_val), strict=True):
        name = f"shapes_{split}"
        if name in DatasetCatalog and MetadataCatalog.get(name).get("registered_by") == OWNER:
            # The metadata does not tell counts and seed: without this, register_semantic would keep the old ones.
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        register_semantic(
            name,
            partial(_load_split, generate, split, count),
            owner=OWNER,
            classes=CLASSES,
            colors=COLORS,
            ignore_label=IGNORE_LABEL,
            image_root=Path(root) / "shapes" / "images" / split,
            sem_seg_root=Path(root) / "shapes" / "labels" / split,
        )


def _load_split(generate: Callable[[], Path], split: str, count: int) -> list[dict]:
    folder = generate()
    return [
        {
            "file_name": str(folder / "images" / split / f"{i:04d}.png"),
            "sem_seg_file_name": str(folder / "labels" / split / f"{i:04d}.png"),
            "image_id": f"{split}_{i:04d}",
            "height": HEIGHT,
            "width": WIDTH,
        }
        for i in range(count)
    ]


def generate_shapes(root: Path, *, num_train: int = NUM_TRAIN, num_val: int = NUM_VAL, seed: int = SEED) -> Path:
    """Generate the data set unless it is there already, and return its folder ``<root>/shapes``.

    Several processes may call this at once: each draws into a hidden folder of its own beside the target, and the
    first to finish moves it into place whole. A scene depends on ``seed``, its split and its index alone.

    Args:
        root: the folder to hold ``shapes``; made if missing.
        num_train, num_val: scenes of each split, at least 1.
        seed: a non-negative integer.

    Raises:
        ValueError: a count or the seed is out of range.
        FileExistsError: ``<root>/shapes`` was not made by this generator, or with other arguments.
    """
    wanted = {"version": VERSION, "num_train": num_train, "num_val": num_val, "seed": seed}
    wanted |= {"height": HEIGHT, "width": WIDTH}
    for key, least in (("num_train", 1), ("num_val", 1), ("seed", 0)):
        if wanted[key] < least:
            raise ValueError(f"generate_shapes: {key}={wanted[key]}; it must be at least {least}")

    def write(folder: Path) -> None:
        for index, (split, count) in enumerate(zip(SPLITS, (num_train, num_val), strict=True)):
            _write_split(folder, split, count, (seed, index))

    return generate_once(Path(root) / "shapes", wanted, write)


def _write_split(folder: Path, split: str, count: int, seed: tuple[int, int]) -> None:
    images, labels = folder / "images" / split, folder / "labels" / split
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for i in range(count):
        scene = draw_scene(np.random.default_rng([*seed, i]), HEIGHT, WIDTH)
        Image.fromarray(scene.image).save(images / f"{i:04d}.png")
        Image.fromarray(scene.labels).save(labels / f"{i:04d}.png")
