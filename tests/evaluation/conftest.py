"""A registered data set of label PNGs, as the evaluators meet it."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

CLASSES = ["road", "sky", "tree"]
IGNORE = 255


@dataclass
class LabelledImages:
    """Name of the data set, inputs as a loader gives them, and the label maps (H, W) uint8."""

    name: str
    inputs: list[dict]
    labels: list[np.ndarray]


@pytest.fixture
def read_png():
    return lambda path: cv2.imread(path, cv2.IMREAD_UNCHANGED)


@pytest.fixture
def make_dataset(tmp_path: Path):
    """Return a function that writes label maps as PNG files and registers them; they are unregistered at the end."""
    names = []

    def make(labels: list[np.ndarray], **metadata) -> LabelledImages:
        name = f"test_evaluation_{len(names)}"
        records = []
        for index, label in enumerate(labels):
            path = tmp_path / f"{name}_{index}.png"
            cv2.imwrite(str(path), label)
            records.append({"file_name": f"{index}.jpg", "sem_seg_file_name": str(path)})
        names.append(name)
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(
            **{"evaluator_type": "sem_seg", "stuff_classes": CLASSES, "ignore_label": IGNORE, **metadata}
        )
        return LabelledImages(name, [{"file_name": record["file_name"]} for record in records], labels)

    yield make
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def make_labels():
    """Return a function: sizes -> random label maps with some ignored pixels."""

    def make(*sizes: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        return [rng.choice([0, 1, 2, IGNORE], size).astype(np.uint8) for size in sizes]

    return make


@pytest.fixture
def scores_of():
    """Return a function: class map (H, W) -> one-hot scores (3, H, W)."""
    return lambda classes: torch.eye(len(CLASSES))[torch.from_numpy(np.asarray(classes, dtype=np.int64))].permute(
        2, 0, 1
    )
