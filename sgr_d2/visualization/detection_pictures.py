"""Pictures of some images of a test set of a detector, drawn while it is evaluated: no second pass of the model."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from PIL import Image

from sgr_d2.structures import ComponentMap
from sgr_d2.visualization.detections import Detections, draw_detection_sheet
from sgr_d2.visualization.palette import class_colors as checked_class_colors
from sgr_d2.visualization.panels import resize_image
from sgr_d2.visualization.pictures import picture_names
from sgr_d2.visualization.sheet import Classes

logger = logging.getLogger(__name__)

# Detections below it are not drawn.
MIN_SCORE = 0.5


class InstanceTruth(NamedTuple):
    """The instances of an image: as detections, as the class of each pixel (H, W), and as components."""

    detections: Detections
    labels: np.ndarray
    components: ComponentMap


class DetectionPictureWriter(DatasetEvaluator):
    """Writes ``output_dir/<stem of the image file>.png`` for ``num_images`` images, evenly spread over the data set."""

    def __init__(
        self,
        *,
        output_dir: str | Path,
        num_images: int,
        read_image: Callable[[str], np.ndarray],
        truth_of: Callable[[str], InstanceTruth],
        file_names: Sequence[str],
        class_names: Sequence[str],
        class_colors: Sequence[Sequence[int]] | None,
        ignore_label: int,
    ):
        """
        Args:
            output_dir: created if missing; pictures of the same name are replaced.
            num_images: how many; at most all.
            read_image: path -> (H, W, 3) uint8 RGB.
            truth_of: path -> its instances, in pixels of the image's file.
            file_names: all images, in the order of the data set.
            class_names: C names.
            class_colors: C RGB triples, or None for colours of our own.
            ignore_label: value of ``InstanceTruth.labels`` where there is no instance.

        Raises:
            ValueError: if ``num_images`` is negative or the colours do not fit the names.
        """
        if num_images < 0:
            raise ValueError(f"num_images (TEST.NUM_PICTURES) is {num_images}; give 0 for no pictures.")
        self._output_dir = Path(output_dir)
        self._read_image = read_image
        self._truth_of = truth_of
        self._classes = Classes(class_names, checked_class_colors(len(class_names), class_colors), ignore_label)
        self._names = picture_names(list(file_names), num_images)
        self._num_written = 0

    def reset(self) -> None:
        """Begin an evaluation; earlier pictures stay until they are replaced."""
        self._num_written = 0

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Draw the chosen images of a batch: dicts with ``file_name``, and with ``instances`` and perhaps ``sgr``."""
        for item, output in zip(inputs, outputs, strict=True):
            name = self._names.get(item["file_name"])
            if name is not None:
                self._write(item["file_name"], output, self._output_dir / name)

    def evaluate(self) -> None:
        """Report where the pictures are; there is no figure to return."""
        if self._num_written:
            logger.info("Wrote %d pictures to %s", self._num_written, self._output_dir)

    def _write(self, file_name: str, output: dict, path: Path) -> None:
        image, truth = self._read_image(file_name), self._truth_of(file_name)
        prediction = shown_detections(output["instances"])
        size = output["instances"].image_size
        image = image if image.shape[:2] == size else resize_image(image, size)
        sheet = draw_detection_sheet(
            image, truth.detections, prediction, self._classes, output.get("sgr"), truth.labels, truth.components
        )
        self._output_dir.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(path)
        self._num_written += 1


def shown_detections(instances: Instances) -> Detections:
    """The detections of a model that are sure enough to be shown."""
    instances = instances[instances.scores >= MIN_SCORE].to("cpu")
    masks = instances.pred_masks.numpy().astype(bool) if instances.has("pred_masks") else None
    boxes, classes = instances.pred_boxes.tensor.numpy(), instances.pred_classes.numpy()
    return Detections(boxes, classes, instances.scores.numpy(), masks)
