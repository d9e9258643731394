"""Pictures of some test images, drawn during the evaluation, without a second pass of the model."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from PIL import Image

from sgr_d2.labels import labels_of, resize_nearest
from sgr_d2.structures import ComponentMap
from sgr_d2.visualization.palette import class_colors as checked_class_colors
from sgr_d2.visualization.panels import resize_image
from sgr_d2.visualization.sheet import Classes, draw_sheet

logger = logging.getLogger(__name__)


class SheetWriter(DatasetEvaluator):
    """Writes ``output_dir/<stem of the image file>.png`` for ``num_images`` images, evenly spread over the data set.

    The images are chosen by file name in advance, so each of several processes draws those that it evaluates, and two
    evaluations of a data set draw the same images.
    """

    def __init__(self, *, output_dir: str | Path, num_images: int, file_names: Sequence[str]):
        """
        Args:
            output_dir: created if missing; other .png files in it are removed.
            num_images: number of images to draw; may exceed the number of images.
            file_names: all images, in the order of the data set.

        Raises:
            ValueError: if ``num_images`` is negative.
        """
        if num_images < 0:
            raise ValueError(f"num_images (TEST.NUM_PICTURES) is {num_images}; give 0 for no pictures.")
        self._output_dir = Path(output_dir)
        self._names = picture_names(list(file_names), num_images)
        self._num_written = 0

    def draw(self, file_name: str, output: dict) -> np.ndarray:
        """The picture of an image from the model's output for it: (H, W, 3) uint8 RGB."""
        raise NotImplementedError

    def reset(self) -> None:
        """Start an evaluation, and remove other pictures of an earlier one, which may be of another model."""
        self._num_written = 0
        for path in self._output_dir.glob("*.png"):
            if path.name not in self._names.values():
                path.unlink(missing_ok=True)  # another process may have been faster

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Draw the chosen images of a batch: data set dicts with ``file_name``, and the model's outputs for them."""
        for item, output in zip(inputs, outputs, strict=True):
            name = self._names.get(item["file_name"])
            if name is not None:
                sheet = self.draw(item["file_name"], output)
                self._output_dir.mkdir(parents=True, exist_ok=True)
                Image.fromarray(sheet).save(self._output_dir / name)
                self._num_written += 1

    def evaluate(self) -> None:
        """Log where the pictures are; there are no figures to return."""
        if self._num_written:
            logger.info("Wrote %d pictures to %s", self._num_written, self._output_dir)


class PictureWriter(SheetWriter):
    """The pictures of a segmentor.

    Args:
        output_dir, num_images: see `SheetWriter`.
        read_image: path -> (H, W, 3) uint8 RGB.
        read_label: path -> (H, W) integer labels.
        components_of: labels -> their components; None to draw no contours.
        label_files: {image path: label path, or None without truth}, in the order of the data set.
        class_names: C names.
        class_colors: C RGB triples, or None for generated colours.
        ignore_label: the label of pixels that belong to no class.

    Raises:
        ValueError: if ``num_images`` is negative or the colours do not fit the names.
    """

    def __init__(
        self,
        *,
        output_dir: str | Path,
        num_images: int,
        read_image: Callable[[str], np.ndarray],
        read_label: Callable[[str], np.ndarray],
        components_of: Callable[[np.ndarray], ComponentMap] | None,
        label_files: Mapping[str, str | None],
        class_names: Sequence[str],
        class_colors: Sequence[Sequence[int]] | None,
        ignore_label: int,
    ):
        super().__init__(output_dir=output_dir, num_images=num_images, file_names=list(label_files))
        self._read_image = read_image
        self._read_label = read_label
        self._components_of = components_of
        self._label_files = label_files
        self._classes = Classes(class_names, checked_class_colors(len(class_names), class_colors), ignore_label)

    def draw(self, file_name: str, output: dict) -> np.ndarray:
        """Draw ``sem_seg`` (C, H, W) scores and, for a model with SGR, the ``ImageTokens`` ``sgr``.

        The picture has the size of the scores; image and truth are resized to it.
        """
        prediction = labels_of(output["sem_seg"])
        size = prediction.shape
        image = self._read_image(file_name)
        label_file = self._label_files[file_name]
        truth = components = None
        if label_file is not None:
            truth = resize_nearest(self._read_label(label_file), size)
            components = self._components_of(truth) if self._components_of else None
        image = image if image.shape[:2] == size else resize_image(image, size)
        return draw_sheet(image, truth, prediction, self._classes, output.get("sgr"), components)


def picture_names(file_names: Sequence[str], num_images: int) -> dict[str, str]:
    """Choose at most ``num_images`` files, evenly spread, and name their pictures: {file name: "<stem>.png"}.

    Files of the same stem, from different folders, get their position as a prefix: "12_frame.png".
    """
    total = len(file_names)
    number = min(num_images, total)
    positions = [(2 * i + 1) * total // (2 * number) for i in range(number)]
    stems = [Path(file_names[position]).stem for position in positions]
    return {
        file_names[position]: f"{position}_{stem}.png" if stems.count(stem) > 1 else f"{stem}.png"
        for position, stem in zip(positions, stems, strict=True)
    }
