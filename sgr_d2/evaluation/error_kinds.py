"""Where the IoU is lost: wrong pixels, classified by what it would take to get them right. Ours."""

from collections.abc import Callable

import cv2
import numpy as np
from detectron2.utils import comm

from sgr_d2.evaluation.sem_seg_evaluator import StreamingSemSegEvaluator

# In the order in which they are checked: each wrong pixel is of the first kind that fits.
ERROR_KINDS = ("segment", "boundary", "elsewhere", "absent")


def error_kinds(
    predicted: np.ndarray, truth: np.ndarray, segments: np.ndarray, *, ignore_label: int, radius: int
) -> np.ndarray:
    """Classify the wrong pixels of an image.

    * ``segment``: the pixel's segment is more than half wrong: it was overlooked, or mistaken for something else.
    * ``boundary``: the predicted class occurs within ``radius`` pixels, in a square window: an inexact contour.
    * ``elsewhere``: the predicted class occurs in the image, but farther away.
    * ``absent``: the predicted class does not occur in the image.

    Args:
        predicted: (H, W) classes.
        truth: (H, W) classes, or ``ignore_label`` where unknown.
        segments: (H, W) ids of the segments, from 1; 0 for pixels in none.
        radius: 0 or more.

    Returns:
        (H, W) uint8, 0 where the prediction is right or the truth unknown, else 1 + the index in `ERROR_KINDS`.

    Raises:
        ValueError: if the shapes differ, or the radius is negative.
    """
    if predicted.ndim != 2 or not predicted.shape == truth.shape == segments.shape:
        raise ValueError(
            f"predicted {predicted.shape}, truth {truth.shape} and segments {segments.shape} must be maps of equal size"
        )
    if radius < 0:
        raise ValueError(f"radius {radius}: give 0 or more pixels")
    wrong = (predicted != truth) & (truth != ignore_label)
    kinds = np.zeros(truth.shape, np.uint8)
    kinds[wrong & _of_lost_segments(wrong, segments)] = 1
    rest = wrong & (kinds == 0)
    window = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    for label in np.unique(predicted[rest]):
        mine = rest & (predicted == label)
        there = (truth == label) & (truth != ignore_label)
        if not there.any():
            kinds[mine] = 4
            continue
        near = cv2.dilate(there.view(np.uint8), window).astype(bool)
        kinds[mine & near] = 2
        kinds[mine & ~near] = 3
    return kinds


def _of_lost_segments(wrong: np.ndarray, segments: np.ndarray) -> np.ndarray:
    areas = np.bincount(segments.ravel())
    lost = 2 * np.bincount(segments[wrong], minlength=len(areas)) > areas
    lost[:1] = False  # pixels of no segment
    return lost[segments]


class ErrorKindsEvaluator(StreamingSemSegEvaluator):
    """Divides what each class lacks of an IoU of 100 % among the kinds of errors.

    What a class lacks is its false negative and false positive pixels over the union of prediction and truth. Each of
    them has one kind (`error_kinds`), so the IoU and the percentages of the kinds add up to 100. A wrong pixel counts
    for two classes, the predicted and the true one.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        segments_of: Callable[[np.ndarray], np.ndarray],
        radius: int = 3,
        **arguments,
    ) -> None:
        """
        Args:
            dataset_name, arguments: see `StreamingSemSegEvaluator`.
            segments_of: labels (H, W) -> ids (H, W) of their segments, 0 for none.
            radius: maximum distance of ``boundary`` errors, in pixels of the label file.
        """
        super().__init__(dataset_name, **arguments)
        self.segments_of, self.radius = segments_of, radius

    def reset(self) -> None:
        super().reset()
        # per kind: wrong pixels by (prediction, truth)
        self._wrong = np.zeros((len(ERROR_KINDS), self._num_classes, self._num_classes), np.int64)

    def _count(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        segments = self.segments_of(truth)
        kinds = error_kinds(predicted, truth, segments, ignore_label=self._ignore_label, radius=self.radius)
        places = kinds > 0
        index = np.ravel_multi_index(
            (kinds[places].astype(np.int64) - 1, predicted[places], truth[places].astype(np.int64)), self._wrong.shape
        )
        self._wrong += np.bincount(index, minlength=self._wrong.size).reshape(self._wrong.shape)
        super()._count(predicted, truth)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Return the parent's figures and ``{"error_kinds": ...}``, in percent.

        ``segment`` and so on are means over the classes that occur, and add up to 100 - mIoU; ``segment-NAME`` is the
        value for a class, and ``pixels-segment`` the percentage of all labelled pixels.
        """
        wrong = np.sum(comm.all_gather(self._wrong) if self._distributed else [self._wrong], axis=0)
        results = super().evaluate()
        if results is None:
            return None
        return results | {"error_kinds": self._shares(wrong)}

    def _shares(self, wrong: np.ndarray) -> dict[str, float]:
        matrix = self._conf_matrix[:-1, :-1]  # of all processes, since the parent's evaluate
        truth, union = matrix.sum(0), matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
        lost = 100 * (wrong.sum(1) + wrong.sum(2)) / np.where(truth > 0, union, np.nan)  # (kinds, classes)
        figures = {}
        for kind, of_classes, pixels in zip(ERROR_KINDS, lost, wrong.sum((1, 2)), strict=True):
            occurring = of_classes[truth > 0]
            figures[kind] = float(occurring.mean()) if occurring.size else float("nan")
            figures[f"pixels-{kind}"] = float(100 * pixels / matrix.sum()) if matrix.sum() else float("nan")
            figures |= {f"{kind}-{name}": float(v) for name, v in zip(self._class_names, of_classes, strict=True)}
        return figures
