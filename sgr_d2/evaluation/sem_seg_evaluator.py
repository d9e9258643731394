"""Detectron2's semantic segmentation evaluator with constant memory and early, readable errors."""

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from detectron2.utils import comm

from sgr_d2.labels import labels_of, resize_nearest
from sgr_d2.messages import first_few

logger = logging.getLogger(__name__)


class StreamingSemSegEvaluator(SemSegEvaluator):
    """mIoU, fwIoU, mACC, pACC, IoU and accuracy per class, in percent, from one confusion matrix; counts the images.

    Unlike its parent it keeps no predictions, writes no files and computes no boundary IoU (Detectron2's value for
    class 0 is unreliable).
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        read_label: Callable[[str], np.ndarray],
        full_size: bool = True,
        distributed: bool = True,
        warn_of_absent: bool = True,
    ) -> None:
        """
        Args:
            dataset_name: registered data set whose metadata has ``stuff_classes`` and ``ignore_label``.
            read_label: label file -> (H, W) integers. (The parent's own reader does not work with numpy 2.)
            full_size: compare at the size of the label file, which the prediction must have; otherwise the labels are
                resized to the prediction by nearest neighbour.
            distributed: gather the results of all processes.
            warn_of_absent: log the classes without a labelled pixel; not if only a part of the data set is evaluated.

        Raises:
            ValueError: if the metadata lacks one of these keys.
        """
        metadata = MetadataCatalog.get(dataset_name)
        for key in ("stuff_classes", "ignore_label"):
            if metadata.get(key) is None:
                raise ValueError(
                    f"data set {dataset_name!r}: its metadata has no {key!r}; set it where you register it"
                )
        super().__init__(dataset_name, distributed, output_dir=None)
        self._compute_boundary_iou = False
        self._read_label = read_label
        self._full_size = full_size
        self._warn_of_absent = warn_of_absent

    def reset(self) -> None:
        super().reset()
        self._num_images = 0

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Count a batch. Raises ValueError, naming the file, if scores, sizes or label values do not fit."""
        for image, output in zip(inputs, outputs, strict=True):
            if "sem_seg" not in output:
                raise ValueError(
                    f"{image['file_name']}: the model returns {sorted(output)} and no 'sem_seg'. The dict for an image "
                    "(for a head, what its `postprocess` returns) must contain the scores, (C, height, width), there."
                )
            channels, *size = output["sem_seg"].shape
            if channels != self._num_classes:
                raise ValueError(
                    f"{image['file_name']}: the model scores {channels} classes, "
                    f"data set {self._dataset_name!r} has {self._num_classes}"
                )
            if output["sem_seg"].amax(0).isnan().any():
                raise ValueError(
                    f"{image['file_name']}: the scores are NaN, which would count as class 0. The training diverged, "
                    "or float16 overflowed: look at the losses in metrics.json, or predict in float32."
                )
            file_size = None if self._full_size else image.get("file_size")
            truth = self._truth(self.input_file_to_gt_file[image["file_name"]], tuple(size), file_size)
            self._count(labels_of(output["sem_seg"]), truth)
            self._num_images += 1

    def _count(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Add an image to the parent's matrix of (prediction, truth), whose last row and column are ignored pixels."""
        truth = truth.astype(np.int64)
        truth[truth == self._ignore_label] = self._num_classes
        pairs = (self._num_classes + 1) * predicted + truth
        self._conf_matrix += np.bincount(pairs.ravel(), minlength=self._conf_matrix.size).reshape(
            self._conf_matrix.shape
        )

    def _truth(self, path: str, size: tuple[int, int], file_size: tuple[int, int] | None) -> np.ndarray:
        """Read the labels for a prediction of ``size``; ``file_size`` is that of the image file, if it is checked."""
        labels = np.asarray(self._read_label(path))
        if labels.ndim != 2:
            raise ValueError(f"{path}: labels must have one channel, got an array of shape {labels.shape}")
        if file_size is not None and labels.shape != tuple(file_size):
            raise ValueError(
                f"{path}: the label map is {labels.shape[0]}x{labels.shape[1]} (height x width), the image "
                f"{file_size[0]}x{file_size[1]}; image and label file must have the same size"
            )
        if not self._full_size:
            labels = resize_nearest(labels, size)
        if labels.shape != size:
            raise ValueError(
                f"{path}: the label map is {labels.shape[0]}x{labels.shape[1]} (height x width), the prediction "
                f"{size[0]}x{size[1]}; image and label file must have the same size"
            )
        # A value outside the classes would count as another class.
        outside = ((labels < 0) | (labels >= self._num_classes)) & (labels != self._ignore_label)
        if outside.any():
            raise ValueError(
                f"{path}: labels {first_few(np.unique(labels[outside]), 5)} are neither in [0, {self._num_classes}) "
                f"nor the ignore label {self._ignore_label}"
            )
        return labels

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Return ``{"sem_seg": figures}`` in percent on the main process; NaN if there is no labelled pixel for one.

        ``num_images`` is the number of images of all processes.
        """
        num_images = sum(comm.all_gather(self._num_images) if self._distributed else [self._num_images])
        with np.errstate(divide="ignore", invalid="ignore"):  # without a labelled pixel, 0 / 0 gives the NaN we want
            results = super().evaluate()
        if results is None:
            return None
        figures = {name: float(value) for name, value in results["sem_seg"].items()}
        if math.isnan(figures["mIoU"]):
            figures["fwIoU"] = math.nan  # the parent's sum over no class is 0
        absent = [name for name in self._class_names if math.isnan(figures[f"IoU-{name}"])]
        if absent and self._warn_of_absent:
            names = first_few(absent, 5)
            logger.warning("%s: no pixel is labelled as %s, which does not count.", self._dataset_name, names)
        return {"sem_seg": figures | {"num_images": num_images}}
