"""Data sets of drawn scenes: splits ``train`` and ``val``, images and label maps as PNG files, generated on first use.

<root>/<name>/{images,labels}/{train,val}/0000.png     RGB images; label-id PNGs with every pixel labelled
<root>/<name>/generator.json                           the stamp: what made these files, written last
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sgr_d2.data.datasets.catalog import register_semantic
from sgr_d2.data.datasets.generated import generate_once

SPLITS = ("train", "val")
IGNORE_LABEL = 255


class SceneNotes(NamedTuple):
    """Information about scenes in addition to their pixels.

    Attributes:
        stem: the notes of a split are stored as ``<stem>_<split>.json``, a list with one entry per scene.
        key: of the entry in a record of the data set.
        of: scene -> entry, of plain data.
    """

    stem: str
    key: str
    of: Callable[[Any], Any]


@dataclass(frozen=True)
class GeneratedSplits:
    """A data set of drawn scenes, which can be registered and generated.

    Attributes:
        name: of the folder; the registered names are ``<name>_train`` and ``<name>_val``, their owner ``name``.
        classes, colors: names and RGB triples.
        size: height and width of every image in pixels.
        version: increase it whenever scenes or layout change; folders of another version are set aside.
        draw: (random number generator, index) -> a scene with ``image`` and ``labels``, both (H, W, ...) uint8.
        notes: what else to store about each scene.
        metadata: further arguments of ``register_semantic``.
    """

    name: str
    classes: Sequence[str]
    colors: Sequence[Sequence[int]]
    size: tuple[int, int]
    version: int
    draw: Callable[[np.random.Generator, int], Any]
    notes: SceneNotes | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def register(self, root: Path, *, num_train: int, num_val: int, seed: int) -> None:
        """Register both splits under ``root``; a further call replaces the arguments.

        Nothing is read or written before a data set is used. Each record has ``file_name``, ``sem_seg_file_name``,
        ``image_id``, ``height`` and ``width`` (pixels).

        Raises:
            ValueError: if a name belongs to another data set.
        """
        generate = partial(self.generate, Path(root), num_train=num_train, num_val=num_val, seed=seed)
        for split, count in zip(SPLITS, (num_train, num_val), strict=True):
            name = f"{self.name}_{split}"
            register_semantic(
                name,
                partial(self._load_split, generate, split, count),
                owner=self.name,
                classes=self.classes,
                colors=self.colors,
                ignore_label=IGNORE_LABEL,
                image_root=Path(root) / self.name / "images" / split,
                sem_seg_root=Path(root) / self.name / "labels" / split,
                **self.metadata,
            )

    def generate(self, root: Path, *, num_train: int, num_val: int, seed: int) -> Path:
        """Generate the data set unless it exists already, and return its folder ``<root>/<name>``.

        Several processes may call this at once, see `generate_once`. A scene depends only on ``seed``, its split and
        its index.

        Args:
            root: the parent of the folder ``<name>``; created if missing.
            num_train, num_val: number of scenes in each split, at least 1.
            seed: a non-negative integer.

        Raises:
            ValueError: if a count or the seed is out of range.
            FileExistsError: if the folder was not made by this generator, or with other arguments.
        """
        counts = {"num_train": num_train, "num_val": num_val}
        for key, value, least in (*((key, value, 1) for key, value in counts.items()), ("seed", seed, 0)):
            if value < least:
                raise ValueError(f"generate_{self.name}: {key}={value}; it must be at least {least}")
        height, width = self.size
        wanted = {"version": self.version, **counts, "seed": seed, "height": height, "width": width}

        def write(folder: Path) -> None:
            for index, (split, count) in enumerate(zip(SPLITS, counts.values(), strict=True)):
                self._write_split(folder, split, count, (seed, index))

        return generate_once(Path(root) / self.name, wanted, write)

    def _write_split(self, folder: Path, split: str, count: int, seed: tuple[int, int]) -> None:
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        notes = []
        for i in range(count):
            scene = self.draw(np.random.default_rng([*seed, i]), i)
            Image.fromarray(scene.image).save(images / f"{i:04d}.png")
            Image.fromarray(scene.labels).save(labels / f"{i:04d}.png")
            if self.notes is not None:
                notes.append(self.notes.of(scene))
        if self.notes is not None:
            self._notes_file(folder, split).write_text(json.dumps(notes) + "\n", encoding="utf-8")

    def _load_split(self, generate: Callable[[], Path], split: str, count: int) -> list[dict]:
        folder = generate()
        height, width = self.size
        records = [
            {
                "file_name": str(folder / "images" / split / f"{i:04d}.png"),
                "sem_seg_file_name": str(folder / "labels" / split / f"{i:04d}.png"),
                "image_id": f"{split}_{i:04d}",
                "height": height,
                "width": width,
            }
            for i in range(count)
        ]
        if self.notes is None:
            return records
        notes = json.loads(self._notes_file(folder, split).read_text(encoding="utf-8"))
        return [record | {self.notes.key: note} for record, note in zip(records, notes, strict=True)]

    def _notes_file(self, folder: Path, split: str) -> Path:
        return folder / f"{self.notes.stem}_{split}.json"
