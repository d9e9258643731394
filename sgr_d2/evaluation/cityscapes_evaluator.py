"""Cityscapes' official IoU and iIoU, computed image by image, exact for any number of processes and machines."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from PIL import Image

from sgr_d2.evaluation.cityscapes_script import CityscapesScript, InstanceStats
from sgr_d2.evaluation.exact_sum import ExactSum
from sgr_d2.labels import labels_of

_INSTANCE_SUFFIX, _LABEL_SUFFIX = "_gtFine_instanceIds.png", "_gtFine_labelIds.png"
_FIGURES = ("tp", "fn", "tpWeighted", "fnWeighted")


class CityscapesTotals:
    """Sums over images of the official script's counts. Merging is exact, in any order. Can be pickled.

    Attributes:
        num_images: number of images added.
    """

    def __init__(self) -> None:
        self.num_images = 0
        self._matrix: np.ndarray | int = 0
        self._sums: dict[tuple[str, str, str], ExactSum] = {}

    def add(self, matrix: np.ndarray, stats: InstanceStats) -> None:
        """Add one image."""
        self.num_images += 1
        self._matrix = self._matrix + matrix
        for kind, entries in stats.items():
            for name, figures in entries.items():
                for figure in _FIGURES:
                    self._sums.setdefault((kind, name, figure), ExactSum()).add(figures[figure])

    def merge(self, other: "CityscapesTotals") -> None:
        """Add all images of ``other``."""
        self.num_images += other.num_images
        self._matrix = self._matrix + other._matrix
        for key, value in other._sums.items():
            self._sums.setdefault(key, ExactSum()).merge(value)

    def scores(self, script: CityscapesScript) -> dict[str, float]:
        """Return the official scores, see ``CityscapesScript.scores``."""
        stats = script.empty_stats()
        for (kind, name, figure), value in self._sums.items():
            stats[kind][name][figure] = value.total()
        return script.scores(self._matrix, stats)


class CityscapesEvaluator(DatasetEvaluator):
    """``{"cityscapes": {IoU, iIoU, IoU_sup, iIoU_sup, IoU-<class>, iIoU-<thing>}}``, percent, by cityscapesScripts.

    Every process passes its own images to the official code, one at a time, and the counts are summed. So no shared
    folder is needed. Detectron2's evaluator, which passes all images at once, gives the same numbers.
    """

    def __init__(self, *, class_names: Sequence[str], distributed: bool = True) -> None:
        """
        Args:
            class_names: Cityscapes' names of the classes that the model scores.
            distributed: gather the results of all processes.

        Raises:
            ImportError: if cityscapesScripts is not installed.
            ValueError: if Cityscapes has no class of such a name.
        """
        self._script = CityscapesScript()
        self._ids = self._script.label_ids(class_names)
        self._distributed = distributed
        self.reset()

    def reset(self) -> None:
        self._totals = CityscapesTotals()

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Count a batch. Inputs need ``instance_file_name``; predictions must have the size of the label file.

        Raises:
            ValueError: if an image has no instance ids, a file cannot be read, or sizes differ.
        """
        for image, output in zip(inputs, outputs, strict=True):
            truth = _truth_of(image)
            if truth is None:
                raise ValueError(
                    f"{image['file_name']}: the official Cityscapes metrics need its *{_INSTANCE_SUFFIX} "
                    "(gtFine_trainvaltest.zip)."
                )
            predicted = self._ids[labels_of(output["sem_seg"])]  # (H, W)
            self._add(predicted, truth)

    def _add(self, predicted: np.ndarray, truth: str) -> None:
        matrix, stats = self._script.empty_matrix(), self._script.empty_stats()
        with tempfile.TemporaryDirectory(prefix="cityscapes_") as folder:  # the official code reads files
            path = Path(folder) / "prediction.png"
            Image.fromarray(predicted).save(path, compress_level=1)
            self._script.add_pair(str(path), truth, matrix, stats)
        self._totals.add(matrix, stats)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Return the figures on the main process ({} if there was no image), None on the others."""
        gathered = comm.all_gather(self._totals) if self._distributed else [self._totals]
        if self._distributed and not comm.is_main_process():
            return None
        total = CityscapesTotals()
        for totals in gathered:
            total.merge(totals)
        return {"cityscapes": total.scores(self._script)} if total.num_images else {}


def check_official_truth(dataset_name: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError if an image lacks the instance or label ids that the official metrics read.

    Without cityscapesScripts these metrics are left out, and there is nothing to check.
    """
    try:
        CityscapesScript()
    except ImportError:
        return
    bare = [r["file_name"] for r in records if (truth := _truth_of(r)) is None or not Path(truth).is_file()]
    if bare:
        raise ValueError(
            f"{dataset_name}: {len(bare)} of {len(records)} images have no *{_INSTANCE_SUFFIX} or no *{_LABEL_SUFFIX}, "
            f"e.g. {bare[0]}, but the official Cityscapes metrics need both. Unpack gtFine_trainvaltest.zip again, or "
            "set TEST.FULL_SIZE False, which leaves these metrics out."
        )


def _truth_of(image: Mapping[str, Any]) -> str | None:
    """The file of label ids beside that of instance ids, or None if the image has none of the latter."""
    instances = str(image.get("instance_file_name", ""))
    if not instances.endswith(_INSTANCE_SUFFIX):
        return None
    return instances.removesuffix(_INSTANCE_SUFFIX) + _LABEL_SUFFIX
