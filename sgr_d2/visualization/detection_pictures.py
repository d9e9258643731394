"""Pictures of some test images for a detector, drawn during the evaluation, without a second pass of the model."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.structures import Instances

from sgr_d2.structures import ComponentMap
from sgr_d2.visualization.detections import Detections, draw_detection_sheet
from sgr_d2.visualization.palette import class_colors as checked_class_colors
from sgr_d2.visualization.panels import resize_image
from sgr_d2.visualization.pictures import SheetWriter
from sgr_d2.visualization.sheet import Classes

# Detections below this score are not drawn.
MIN_SCORE = 0.5


class InstanceTruth(NamedTuple):
    """The instances of an image: as detections, as the class of each pixel (H, W), and as components."""

    detections: Detections
    labels: np.ndarray
    components: ComponentMap


class DetectionPictureWriter(SheetWriter):
    """The pictures of a detector."""

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
            output_dir, num_images, file_names: see `SheetWriter`.
            read_image: path -> (H, W, 3) uint8 RGB.
            truth_of: path -> its instances, in pixels of the image file.
            class_names: C names.
            class_colors: C RGB triples, or None for generated colours.
            ignore_label: value of ``InstanceTruth.labels`` where there is no instance.

        Raises:
            ValueError: if ``num_images`` is negative or the colours do not fit the names.
        """
        super().__init__(output_dir=output_dir, num_images=num_images, file_names=file_names)
        self._read_image = read_image
        self._truth_of = truth_of
        self._classes = Classes(class_names, checked_class_colors(len(class_names), class_colors), ignore_label)

    def draw(self, file_name: str, output: dict) -> np.ndarray:
        """Draw ``instances`` and, for a model with SGR, the ``ImageTokens`` ``sgr``."""
        image, truth = self._read_image(file_name), self._truth_of(file_name)
        prediction = shown_detections(output["instances"])
        size = output["instances"].image_size
        image = image if image.shape[:2] == size else resize_image(image, size)
        return draw_detection_sheet(
            image, truth.detections, prediction, self._classes, output.get("sgr"), truth.labels, truth.components
        )


def shown_detections(instances: Instances) -> Detections:
    """The detections with a score of at least ``MIN_SCORE``."""
    instances = instances[instances.scores >= MIN_SCORE].to("cpu")
    masks = instances.pred_masks.numpy().astype(bool) if instances.has("pred_masks") else None
    boxes, classes = instances.pred_boxes.tensor.numpy(), instances.pred_classes.numpy()
    return Detections(boxes, classes, instances.scores.numpy(), masks)
