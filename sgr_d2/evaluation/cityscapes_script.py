"""A wrapper of the functions that we call of cityscapesScripts' official pixel-level evaluation.

The package is optional (pip install cityscapesscripts) and written as a program: it prints, and exits on errors.
"""

import contextlib
import copy
import importlib
import io
from collections.abc import Sequence
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

InstanceStats = dict[str, dict[str, dict[str, Any]]]


class CityscapesScript:
    """The official code with our settings. Raises ImportError if cityscapesScripts is not installed."""

    def __init__(self) -> None:
        self._module = _load()
        self._args = copy.copy(self._module.args)
        self._args.evalInstLevelScore = True
        self._args.evalPixelAccuracy = False
        self._args.JSONOutput = False
        self._args.quiet = True
        self.empty_matrix()  # fills args.evalLabels, which the scores read

    def label_ids(self, class_names: Sequence[str]) -> np.ndarray:
        """Return the (C,) uint8 label ids of classes by their Cityscapes names. Raises ValueError for unknown names."""
        unknown = [name for name in class_names if name not in self._module.name2label]
        if unknown:
            raise ValueError(f"Cityscapes has no class {', '.join(unknown)}; its official metrics cannot be computed.")
        return np.array([self._module.name2label[name].id for name in class_names], np.uint8)

    def empty_matrix(self) -> np.ndarray:
        """Return a zero confusion matrix (ids, ids) of truth and prediction."""
        return self._module.generateMatrix(self._args)

    def empty_stats(self) -> InstanceStats:
        """Return zero true positives and false negatives, plain and weighted by size, of classes and categories."""
        return self._module.generateInstanceStats(self._args)

    def add_pair(self, prediction: str, truth: str, matrix: np.ndarray, stats: InstanceStats) -> None:
        """Count a predicted label-id PNG against ``*_gtFine_labelIds.png``, with its instance ids next to it.

        Raises:
            ValueError: if a file cannot be read, or their sizes differ.
        """
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                self._module.evaluatePair(prediction, truth, matrix, stats, {}, self._args)
        except SystemExit as error:
            raise ValueError(f"{truth}: {said.getvalue().strip() or 'cityscapesScripts stopped'}") from error

    def scores(self, matrix: np.ndarray, stats: InstanceStats) -> dict[str, float]:
        """Return IoU, iIoU, IoU_sup, iIoU_sup (classes, then categories), and both of each class, in percent."""
        module, args = self._module, self._args
        labels = [module.id2label[number] for number in args.evalLabels]
        labels = [label for label in labels if not label.ignoreInEval]
        iou = {label.name: module.getIouScoreForLabel(label.id, matrix, args) for label in labels}
        inst = {label.name: module.getInstanceIouScoreForLabel(label.id, matrix, stats, args) for label in labels}
        figures = {"IoU": iou, "iIoU": inst}
        for key, score, more in (
            ("IoU_sup", module.getIouScoreForCategory, ()),
            ("iIoU_sup", module.getInstanceIouScoreForCategory, (stats,)),
        ):
            figures[key] = {name: score(name, matrix, *more, args) for name in module.category2labels}
        result = {key: 100.0 * module.getScoreAverage(values, args) for key, values in figures.items()}
        result |= {f"IoU-{name}": 100.0 * value for name, value in iou.items()}
        things = [label.name for label in labels if label.hasInstances]
        return result | {f"iIoU-{name}": 100.0 * inst[name] for name in things}


@cache
def _load() -> ModuleType:
    """Import the official script, and restore a function that newer numpy versions have removed."""
    try:
        script = importlib.import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    except ImportError as error:
        raise ImportError(
            "The official Cityscapes metrics need cityscapesScripts: pip install cityscapesscripts"
        ) from error
    if not hasattr(np, "in1d"):  # gone since numpy 2.4; cityscapesScripts 2.3.0 calls it
        script.np = SimpleNamespace(**{**vars(np), "in1d": np.isin})
    return script
