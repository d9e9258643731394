"""The data set ``shapes_context``: the class of rings depends on an object elsewhere; generated on first use.

    <root>/shapes_context/{images,labels}/{train,val}/0000.png     RGB strips; label-id PNGs, every pixel labelled
    <root>/shapes_context/rings_{train,val}.json                   per image the rings: class, box, distance to the key
    <root>/shapes_context/generator.json                           the stamp: what made these files, written last

The registered names are ``shapes_context_train`` and ``shapes_context_val``. ``shapes_context_scene`` draws the scenes
and says why no local model can be right. Half of the scenes of a split have either key.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from sgr_d2.data.datasets.catalog import register_semantic
from sgr_d2.data.datasets.generated import generate_once
from sgr_d2.data.datasets.shapes import COLORS, SPLITS
from sgr_d2.data.datasets.shapes_context_scene import CLASSES, KEYS, RINGS, draw_context_scene

# Raise this whenever draw_context_scene or the layout changes.
VERSION = 1
NUM_TRAIN, NUM_VAL, SEED = 600, 120, 0
HEIGHT, WIDTH = 64, 516
IGNORE_LABEL = 255
NAME = "shapes_context"


def register_shapes_context(
    root: Path, *, num_train: int = NUM_TRAIN, num_val: int = NUM_VAL, seed: int = SEED
) -> None:
    """Register ``shapes_context_train`` and ``shapes_context_val``; a further call moves them to its own arguments.

    Nothing is read or written before a data set is asked for. Each record has ``file_name``, ``sem_seg_file_name``,
    ``image_id``, ``height``, ``width`` and ``context_objects``: a list of {"label", "box", "distance"}, see
    ``ContextObject``. The metadata has ``context_labels``, the classes that such objects may have.

    Raises:
        ValueError: a name belongs to another data set.
    """
    generate = partial(generate_shapes_context, Path(root), num_train=num_train, num_val=num_val, seed=seed)
    for split, count in zip(SPLITS, (num_train, num_val), strict=True):
        name = f"{NAME}_{split}"
        if name in DatasetCatalog and MetadataCatalog.get(name).get("registered_by") == NAME:
            # The metadata does not tell counts and seed: without this, register_semantic would keep the old ones.
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        register_semantic(
            name,
            partial(_load_split, generate, split, count),
            owner=NAME,
            classes=CLASSES,
            colors=COLORS,
            ignore_label=IGNORE_LABEL,
            image_root=Path(root) / NAME / "images" / split,
            sem_seg_root=Path(root) / NAME / "labels" / split,
            evaluator_type=NAME,
            extra={"context_labels": list(RINGS)},
        )


def _load_split(generate: Callable[[], Path], split: str, count: int) -> list[dict]:
    folder = generate()
    rings = json.loads((folder / f"rings_{split}.json").read_text(encoding="utf-8"))
    return [
        {
            "file_name": str(folder / "images" / split / f"{i:04d}.png"),
            "sem_seg_file_name": str(folder / "labels" / split / f"{i:04d}.png"),
            "image_id": f"{split}_{i:04d}",
            "height": HEIGHT,
            "width": WIDTH,
            "context_objects": rings[i],
        }
        for i in range(count)
    ]


def generate_shapes_context(
    root: Path, *, num_train: int = NUM_TRAIN, num_val: int = NUM_VAL, seed: int = SEED
) -> Path:
    """Generate the data set unless it is there already, and return its folder ``<root>/shapes_context``.

    A scene depends on ``seed``, its split and its index alone. Several processes may call this at once.

    Args:
        root: the folder to hold ``shapes_context``; made if missing.
        num_train, num_val: scenes of each split, at least 1.
        seed: a non-negative integer.

    Raises:
        ValueError: a count or the seed is out of range.
        FileExistsError: the folder was not made by this generator, or with other arguments.
    """
    wanted = {"version": VERSION, "num_train": num_train, "num_val": num_val, "seed": seed}
    wanted |= {"height": HEIGHT, "width": WIDTH}
    for key, least in (("num_train", 1), ("num_val", 1), ("seed", 0)):
        if wanted[key] < least:
            raise ValueError(f"generate_shapes_context: {key}={wanted[key]}; it must be at least {least}")

    def write(folder: Path) -> None:
        for index, (split, count) in enumerate(zip(SPLITS, (num_train, num_val), strict=True)):
            _write_split(folder, split, count, (seed, index))

    return generate_once(Path(root) / NAME, wanted, write)


def _write_split(folder: Path, split: str, count: int, seed: tuple[int, int]) -> None:
    images, labels = folder / "images" / split, folder / "labels" / split
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    rings = []
    for i in range(count):
        scene = draw_context_scene(np.random.default_rng([*seed, i]), HEIGHT, WIDTH, key=i % len(KEYS))
        Image.fromarray(scene.image).save(images / f"{i:04d}.png")
        Image.fromarray(scene.labels).save(labels / f"{i:04d}.png")
        rings.append([ring._asdict() for ring in scene.rings])
    (folder / f"rings_{split}.json").write_text(json.dumps(rings) + "\n", encoding="utf-8")
