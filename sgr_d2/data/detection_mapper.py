"""From a record with instance annotations to the input of a detector, with the instances as SGR's components.

Shape legend: H x W the image after augmentation.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from detectron2.data.detection_utils import (
    SizeMismatchError,
    annotations_to_instances,
    filter_empty_instances,
    transform_instance_annotations,
)
from detectron2.structures import BitMasks, Instances, PolygonMasks
from fvcore.transforms.transform import CropTransform

from sgr_d2.data.augmentation import build_augmentations
from sgr_d2.data.components import ComponentLimits, component_targets
from sgr_d2.data.datasets.things import thing_metadata_of
from sgr_d2.data.detection_records import refuse_run_lengths
from sgr_d2.data.instance_maps import NO_INSTANCE, has_mask, paint_instances, polygons_of, to_rle
from sgr_d2.data.reading import read_image

Annotation = dict[str, Any]


class DetectionMapper:
    """Map a record {file_name, annotations, ...} of Detectron2's format to model input.

    The result has the keys of the record except ``annotations``, and also

    * ``image``: (3, H, W) uint8, channels in the order of INPUT.FORMAT;
    * ``height``, ``width``: size of the image in its file;

    and in training

    * ``instances``: Detectron2's Instances with gt_boxes, gt_classes and, with ``masks``, gt_masks. Crowds, boxes
      without area and, with ``masks``, instances without a mask are left out;
    * with ``components``, the instances as components, whether or not the detector itself has masks: those of
      `component_targets`, where pixels of no instance or of a crowd are 0.
    """

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        augmentations: list[T.Augmentation | T.Transform],
        image_format: str = "BGR",
        classes: Sequence[str] = (),
        masks: bool = True,
        mask_format: str = "polygon",
        components: bool = True,
        limits: ComponentLimits = ComponentLimits(),
    ) -> None:
        """``classes`` and all arguments after it are only used in training.

        Raises:
            ValueError: if ``mask_format`` is neither "polygon" nor "bitmask".
        """
        if mask_format not in ("polygon", "bitmask"):
            raise ValueError(f"INPUT.MASK_FORMAT must be polygon or bitmask; got {mask_format!r}.")
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.classes = list(classes)
        self.masks = masks
        self.mask_format = mask_format
        self.components = components
        self.limits = limits

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True, components: bool = True) -> dict[str, Any]:
        """Take the classes from the data sets' metadata; ``components``: whether their annotations have masks."""
        options: dict[str, Any] = {"is_train": is_train, "image_format": cfg.INPUT.FORMAT}
        options["augmentations"] = build_augmentations(cfg, is_train, crop_first=True)
        if not is_train:
            return options
        if cfg.INPUT.CROP.ENABLED and cfg.INPUT.MASK_FORMAT == "polygon" and find_spec("shapely") is None:
            raise ValueError(
                "INPUT.CROP.ENABLED: cropping polygons needs the package shapely, which is not installed. Install it, "
                "or set INPUT.MASK_FORMAT bitmask."
            )
        return options | {
            "classes": thing_metadata_of([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]).classes,
            "masks": cfg.MODEL.MASK_ON,
            "mask_format": cfg.INPUT.MASK_FORMAT,
            "components": components and cfg.MODEL.SGR.ENABLED,
            "limits": ComponentLimits.from_config(cfg, is_train=True),
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Return a new dict; see the class docstring.

        Raises:
            FileNotFoundError, ValueError: if a file is missing or invalid, or an annotation is invalid.
        """
        image = read_image(dataset_dict["file_name"], self.image_format)
        _check_size(dataset_dict, image)
        augmented = T.AugInput(image)
        transforms = self.augmentations(augmented)
        pixels = torch.from_numpy(np.array(augmented.image.transpose(2, 0, 1), order="C"))
        output = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        output |= {"height": image.shape[0], "width": image.shape[1], "image": pixels}
        if not self.is_train:
            return output
        size = tuple(pixels.shape[-2:])
        usable, file_name = self._usable(dataset_dict), dataset_dict["file_name"]
        moved = [self._transformed(file_name, a, transforms, image.shape[:2], size) for a in usable]
        instances = self._instances(moved, size)
        if self.masks and any(isinstance(t, CropTransform) for t in transforms.transforms):
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()  # a cropped object has a smaller box
        output["instances"] = filter_empty_instances(instances)
        return output | self._component_targets(moved, size) if self.components else output

    def _usable(self, record: dict[str, Any]) -> list[Annotation]:
        usable = []
        for annotation in record.get("annotations", ()):
            category = annotation["category_id"]
            if not 0 <= category < len(self.classes):
                raise ValueError(
                    f"Image {record['file_name']} has an annotation of category {category}, but the metadata name "
                    f"{len(self.classes)} classes (0..{len(self.classes) - 1}). Correct the annotation or the metadata."
                )
            if annotation.get("iscrowd", 0) or (self.masks and not has_mask(annotation)):
                continue
            if self.masks and self.mask_format == "polygon":
                refuse_run_lengths(record, [annotation])
            usable.append(annotation)
        return usable

    def _transformed(
        self,
        file_name: str,
        annotation: Annotation,
        transforms: T.TransformList,
        before: tuple[int, int],
        size: tuple[int, int],
    ) -> Annotation:
        annotation = {key: value for key, value in annotation.items() if key != "keypoints"}
        if not has_mask(annotation):
            annotation.pop("segmentation", None)
        elif self.mask_format == "bitmask":
            try:
                annotation["segmentation"] = to_rle(annotation["segmentation"], before)
            except ValueError as error:
                raise ValueError(f"Image {file_name}: {error}") from error
        elif isinstance(annotation["segmentation"], list):
            annotation["segmentation"] = polygons_of(annotation["segmentation"])
        return transform_instance_annotations(annotation, transforms, size)

    def _instances(self, annotations: list[Annotation], size: tuple[int, int]) -> Instances:
        if not self.masks:
            annotations = [{key: a[key] for key in a if key != "segmentation"} for a in annotations]
        instances = annotations_to_instances(annotations, size, mask_format=self.mask_format)
        if self.masks and not annotations:
            polygons = self.mask_format == "polygon"
            instances.gt_masks = PolygonMasks([]) if polygons else BitMasks(torch.zeros(0, *size, dtype=torch.bool))
        return instances

    def _component_targets(self, annotations: list[Annotation], size: tuple[int, int]) -> dict[str, Any]:
        painted = [a for a in annotations if "segmentation" in a]
        maps = paint_instances([a["segmentation"] for a in painted], [a["category_id"] for a in painted], size)
        return component_targets(self.limits.label(maps.labels, ignore_label=NO_INSTANCE, instances=maps.ids))


def _check_size(record: dict[str, Any], image: np.ndarray) -> None:
    """Raise SizeMismatchError if the annotations are for an image of another size."""
    wanted = (record.get("height", image.shape[0]), record.get("width", image.shape[1]))
    if wanted != image.shape[:2]:
        raise SizeMismatchError(
            f"Image {record['file_name']} has {image.shape[1]}x{image.shape[0]} pixels (width x height), but its "
            f"annotations are for {wanted[1]}x{wanted[0]}; they must agree."
        )
