"""The instance annotations of a data set, in the forms that metrics and pictures need."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
from detectron2.structures import BoxMode

from sgr_d2.data.components import ComponentLimits
from sgr_d2.data.detection_records import objects_of
from sgr_d2.data.instance_maps import NO_INSTANCE, InstanceMaps, has_mask, paint_instances, to_rle
from sgr_d2.visualization import Detections, InstanceTruth


class Truth:
    """Looks up the annotations of an image by its file name, without crowds."""

    def __init__(self, records: Sequence[dict[str, Any]], limits: ComponentLimits):
        """
        Args:
            records: in Detectron2's format.
            limits: on the size and number of components.

        Raises:
            ValueError: if two records have the same image.
        """
        self.records = {record["file_name"]: record for record in records}
        check_images(records)
        self._components = partial(limits.label, ignore_label=NO_INSTANCE)

    def maps_of(self, file_name: str) -> InstanceMaps:
        """Maps (H, W) of the categories and ids of the instances that have a mask."""
        masked = [a for a in objects_of(self.records[file_name]) if has_mask(a)]
        categories = [a["category_id"] for a in masked]
        return paint_instances([a["segmentation"] for a in masked], categories, self._size(file_name))

    def components_of(self, labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Component ids (H, W) of the instances within the limits."""
        return self._components(labels, instances=ids).ids

    def of(self, file_name: str) -> InstanceTruth:
        """The annotations as pictures show them."""
        maps = self.maps_of(file_name)
        components = self._components(maps.labels, instances=maps.ids)
        return InstanceTruth(self._detections(file_name), maps.labels, components)

    def _detections(self, file_name: str) -> Detections:
        annotations, size = objects_of(self.records[file_name]), self._size(file_name)
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
        masks = [coco_mask.decode(to_rle(a.get("segmentation") or [], size)).astype(bool) for a in annotations]
        return Detections(
            boxes=np.array(boxes, np.float64).reshape(-1, 4),
            classes=np.array([a["category_id"] for a in annotations], np.int64),
            masks=np.array(masks, bool).reshape(-1, *size),
        )

    def _size(self, file_name: str) -> tuple[int, int]:
        record = self.records[file_name]
        return record["height"], record["width"]


def check_images(records: Sequence[dict[str, Any]]) -> None:
    """Raise ValueError if two records have the same image, whose annotations are looked up by its name."""
    (file, times), *_ = Counter(record["file_name"] for record in records).most_common(1) or [("", 0)]
    if times > 1:
        raise ValueError(
            f"{times} records of a data set of DATASETS.TEST have the image {file}; token metrics and pictures need "
            "one record an image: join their annotations."
        )
