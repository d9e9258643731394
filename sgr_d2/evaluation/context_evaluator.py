"""Accuracy on objects whose class depends on another object, against the distance between the two. Ours."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from sgr_d2.labels import labels_of

# Lower edges of the distance bins, in pixels of the label file; the last bin is open.
EDGES = (0, 60, 120, 200, 300)


class ContextEvaluator(DatasetEvaluator):
    """The percentage of context objects, and of their pixels, that get the right class, by distance.

    An object counts as right if more pixels of its box are predicted as its class than as any other class that context
    objects may have, and as half right in case of a tie. With two such classes, a model that cannot see the deciding
    object is right half of the time.
    """

    def __init__(self, *, context_labels: Sequence[int], edges: Sequence[float] = EDGES, distributed: bool = True):
        """
        Args:
            context_labels: the classes that context objects may have, two or more.
            edges: lower edges of the bins, ascending from 0.
            distributed: gather the sums of all processes.

        Raises:
            ValueError: if there are fewer than two ``context_labels``.
        """
        if len(set(context_labels)) < 2:
            raise ValueError(f"context_labels = {list(context_labels)}: give two classes or more.")
        self.context_labels = list(context_labels)
        self.edges = np.asarray(edges, float)
        self.distributed = distributed
        self.reset()

    def reset(self) -> None:
        # per bin: objects, right objects, pixels, right pixels
        self.sums = np.zeros((len(self.edges), 4))

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Count a batch: records with ``context_objects``, and scores (C, H, W) at the size of the label file.

        Raises:
            KeyError: if a record has no ``context_objects``.
            ValueError: if the scores have another size.
        """
        for image, output in zip(inputs, outputs, strict=True):
            if "context_objects" not in image:
                raise KeyError(f"{image['file_name']}: the record has no context_objects")
            predicted = labels_of(output["sem_seg"])
            if predicted.shape != (image["height"], image["width"]):
                raise ValueError(f"{image['file_name']}: prediction {predicted.shape}; TEST.FULL_SIZE must be True")
            for item in image["context_objects"]:
                place = np.searchsorted(self.edges, item["distance"], side="right") - 1
                self.sums[place] += self._judge(predicted, item)

    def _judge(self, predicted: np.ndarray, item: dict[str, Any]) -> tuple[float, float, float, float]:
        top, left, bottom, right = item["box"]
        votes = np.bincount(predicted[top:bottom, left:right].ravel(), minlength=max(self.context_labels) + 1)
        mine = votes[item["label"]]
        others = [votes[label] for label in self.context_labels if label != item["label"]]
        verdict = 0.5 if mine == max(others) else float(mine > max(others))
        return 1, verdict, mine + sum(others), mine

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Return ``{"context": figures}`` in percent on the main process; NaN for bins without objects.

        ``objects`` is the percentage of objects that are right, ``pixels`` that of the pixels predicted as any class of
        context objects that have the right one. ``objects_0_60`` and so on are those of a bin, ``count_0_60`` is its
        number of objects.
        """
        sums = comm.all_gather(self.sums) if self.distributed else [self.sums]
        if self.distributed and not comm.is_main_process():
            return None
        bins = np.sum(sums, axis=0)
        figures = _shares("", bins.sum(axis=0))
        names = [f"_{low:g}_{high:g}" for low, high in pairwise(self.edges)] + [f"_{self.edges[-1]:g}_up"]
        for name, row in zip(names, bins, strict=True):
            figures |= _shares(name, row)
        return {"context": figures}


def _shares(name: str, row: np.ndarray) -> dict[str, float]:
    objects, right_objects, pixels, right_pixels = (float(value) for value in row)
    return {
        f"objects{name}": 100 * right_objects / objects if objects else float("nan"),
        f"pixels{name}": 100 * right_pixels / pixels if pixels else float("nan"),
        f"count{name}": int(objects),
    }
