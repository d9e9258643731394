"""From a record of a data set to the input of the model: read, augment, label the components.

Shape legend: H x W the image after augmentation.
"""

from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.modeling import META_ARCH_REGISTRY
from fvcore.transforms.transform import Transform

from sgr_d2.data.augmentation import build_augmentations
from sgr_d2.data.components import ComponentLimits, component_targets
from sgr_d2.data.datasets import metadata_of
from sgr_d2.data.reading import read_image, read_label, size_hint


class SemanticMapper:
    """Map a record {file_name, sem_seg_file_name, ...} to model input; it may have a ``label_map`` (`map_values`).

    The result has the keys of the record, and also

    * ``image``: (3, H, W) uint8, channels in the order of INPUT.FORMAT;
    * ``height``, ``width``: size of the image in its file;

    and in training

    * ``sem_seg``: (H, W) classes and the ignore label, uint8, or int32 if that is too small; int64 with
      ``long_labels``, as Detectron2's own meta-architectures need;

    and with ``components``, the supervision of SGR, computed after the augmentation, those of `component_targets`.
    """

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        augmentations: list[T.Augmentation | Transform],
        image_format: str = "RGB",
        num_classes: int = 0,
        ignore_label: int = 255,
        long_labels: bool = False,
        components: bool = True,
        limits: ComponentLimits = ComponentLimits(),
    ) -> None:
        """``num_classes`` and all arguments after it are only used in training."""
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.long_labels = long_labels
        self.components = components
        self.limits = limits

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Take classes and ignore label from the metadata of the data sets."""
        options: dict[str, Any] = {"is_train": is_train, "image_format": cfg.INPUT.FORMAT}
        if not is_train:
            return options | {"augmentations": build_augmentations(cfg, False)}
        metadata = metadata_of([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
        name = cfg.MODEL.META_ARCHITECTURE
        # without a model yet, as in a program that only reads data, labels have the 64 bits that any model takes
        architecture = META_ARCH_REGISTRY.get(name) if name in META_ARCH_REGISTRY else None
        return options | {
            "augmentations": build_augmentations(cfg, True, ignore_label=metadata.ignore_label),
            "num_classes": len(metadata.classes),
            "ignore_label": metadata.ignore_label,
            "long_labels": not getattr(architecture, "takes_small_labels", False),
            "components": cfg.MODEL.SGR.ENABLED,
            "limits": ComponentLimits.from_config(cfg, is_train=True),
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Return a new dict; see the class docstring.

        Raises:
            FileNotFoundError, ValueError: if a file is missing or invalid, or image and label differ in size.
        """
        image = read_image(dataset_dict["file_name"], self.image_format)
        labels = self._read_label(dataset_dict, image.shape[:2]) if self.is_train else None
        augmented = _LabelledInput(image, sem_seg=labels)
        self.augmentations(augmented)
        # np.array makes a copy: a flip gives negative strides, which torch rejects, Pillow's resize a read-only array
        pixels = torch.from_numpy(np.array(augmented.image.transpose(2, 0, 1), order="C"))
        output = {**dataset_dict, "height": image.shape[0], "width": image.shape[1], "image": pixels}
        return output | self._targets(augmented.sem_seg) if self.is_train else output

    def _read_label(self, record: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
        path = record.get("sem_seg_file_name")
        if path is None:
            raise ValueError(f"The record of {record['file_name']} has no sem_seg_file_name; training needs labels.")
        labels = read_label(
            path, num_classes=self.num_classes, ignore_label=self.ignore_label, label_map=record.get("label_map")
        )
        if labels.shape != size:
            hint = size_hint(record["file_name"], size, labels.shape)
            raise SizeMismatchError(
                f"Image {record['file_name']} has {size[1]}x{size[0]} pixels (width x height), but its label {path} "
                f"has {labels.shape[1]}x{labels.shape[0]}; they must agree.{hint}"
            )
        return labels

    def _targets(self, labels: np.ndarray) -> dict[str, Any]:
        small = np.uint8 if labels.dtype == np.uint8 else np.int32
        sem_seg = labels.astype(np.int64 if self.long_labels else small, order="C")
        targets = {"sem_seg": torch.from_numpy(sem_seg)}
        if not self.components:
            return targets
        return targets | component_targets(self.limits.label(labels, ignore_label=self.ignore_label))


class _LabelledInput(T.AugInput):
    """An AugInput whose label map may have more than 8 bits.

    Detectron2 would resize such a map with torch, which has no nearest neighbour for integers and picks other pixels
    than Pillow does for 8 bits; so the bytes of each label are transformed as channels.
    """

    def transform(self, tfm: Transform) -> None:
        labels, self.sem_seg = self.sem_seg, None
        super().transform(tfm)
        if labels is None or labels.dtype == np.uint8:
            self.sem_seg = labels if labels is None else tfm.apply_segmentation(labels)
            return
        channels = np.ascontiguousarray(labels)[..., None].view(np.uint8)  # (H, W, bytes of a label)
        self.sem_seg = np.ascontiguousarray(tfm.apply_segmentation(channels)).view(labels.dtype)[..., 0]
