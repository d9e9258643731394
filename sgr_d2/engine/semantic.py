"""Semantic segmentation as a task: config, loaders, evaluators."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluators
from torch.utils.data import DataLoader

from sgr_d2.data.components import ComponentLimits, label_components
from sgr_d2.data.datasets import SemanticMetadata, get_dataset_records
from sgr_d2.data.loader import build_test_loader
from sgr_d2.data.mapper import SemanticMapper
from sgr_d2.data.reading import read_image, read_instances, read_label
from sgr_d2.evaluation import check_evaluator_type, check_truth, evaluators_of
from sgr_d2.messages import first_few
from sgr_d2.visualization import PictureWriter

from .inference.protocol import loader_config


def use_semantic_classes(cfg: CfgNode, names: Sequence[str], info: SemanticMetadata) -> None:
    """Set the number of classes and the ignore label from the data sets' metadata.

    Raises:
        ValueError: if the config names another number of classes, or another ignore label.
    """
    number = len(info.classes)
    for node, key in ((cfg.MODEL.SEM_SEG_HEAD, "SEM_SEG_HEAD"), (cfg.MODEL.POINT_HEAD, "POINT_HEAD")):
        if node.NUM_CLASSES not in (0, number):
            raise ValueError(
                f"MODEL.{key}.NUM_CLASSES = {node.NUM_CLASSES}, but {', '.join(names)} has {number} classes "
                f"({first_few(info.classes, 5)}). Leave the key out (0) to take the number from the data set."
            )
        node.NUM_CLASSES = number
    head = cfg.MODEL.SEM_SEG_HEAD
    if head.IGNORE_VALUE not in (get_cfg().MODEL.SEM_SEG_HEAD.IGNORE_VALUE, info.ignore_label):
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.IGNORE_VALUE = {head.IGNORE_VALUE}, but the ignore label of {', '.join(names)} is "
            f"{info.ignore_label}. Leave the key out to take it from the data set, or set it where the data set is "
            "registered (IGNORE_LABEL of DATASETS.FOLDERS, ignore_label of the metadata)."
        )
    head.IGNORE_VALUE = info.ignore_label


def build_semantic_test_loader(cfg: CfgNode, dataset_name: str) -> DataLoader:
    mapper = SemanticMapper(loader_config(cfg), is_train=False)
    return build_test_loader(
        cfg, dataset_name, mapper=mapper if cfg.TEST.FULL_SIZE else partial(_at_input_size, mapper)
    )


def check_semantic_evaluation(cfg: CfgNode, dataset_name: str) -> None:
    """
    Raises:
        ValueError: if there is no evaluator for the data set, a record has no label or another file that its evaluators
            read, or the model returns no semantic scores.
    """
    check_evaluator_type(dataset_name)
    if cfg.TEST.ERROR_KINDS.RADIUS < 0:
        raise ValueError(f"TEST.ERROR_KINDS.RADIUS = {cfg.TEST.ERROR_KINDS.RADIUS}: give 0 or more pixels.")
    otherwise = "leave the data set out of DATASETS.TEST; tools/predict.py needs no labels"
    records = get_dataset_records(dataset_name)
    require_labels(dataset_name, records, otherwise)
    check_truth(dataset_name, records, full_size=cfg.TEST.FULL_SIZE)
    if cfg.MODEL.SEM_SEG_HEAD.NAME == "MaskFormerHead" and not cfg.MODEL.MASK_FORMER.TEST.SEMANTIC_ON:
        raise ValueError(
            f"MODEL.MASK_FORMER.TEST.SEMANTIC_ON is False, but {dataset_name} is evaluated by semantic scores. Set it "
            "to True, or DATASETS.TEST to ()."
        )


def require_labels(dataset_name: str, records: Sequence[dict[str, Any]], otherwise: str) -> None:
    """Raise ValueError if a record has no label file; ``otherwise``: what to do if it cannot be given one."""
    bare = [record["file_name"] for record in records if "sem_seg_file_name" not in record]
    if bare:
        raise ValueError(
            f"{dataset_name}: {len(bare)} records have no sem_seg_file_name, e.g. that of {bare[0]}, but an evaluation "
            f"needs labels. Give them one, or {otherwise}."
        )


def build_semantic_evaluators(cfg: CfgNode, dataset_name: str, info: SemanticMetadata) -> DatasetEvaluators:
    """The evaluators for the data set's type, and the one that draws pictures."""
    first_id = MetadataCatalog.get(dataset_name).get("first_instance_id", 1)
    records = get_dataset_records(dataset_name)
    read = _label_reader(records, info)
    segments_of = partial(label_components, ignore_label=info.ignore_label, min_area=0, max_components=2**31 - 1)
    limits = ComponentLimits.from_config(cfg, is_train=False)
    components_of = partial(limits.label, ignore_label=info.ignore_label)
    evaluators = evaluators_of(
        dataset_name,
        read_label=read,
        components_of=lambda labels, instances=None: components_of(labels, instances=instances).ids,
        read_instances=partial(read_instances, first_id=first_id),
        min_mass=cfg.TEST.TOKEN_SEMANTICS.MIN_MASS,
        segments_of=(lambda labels: segments_of(labels).ids) if cfg.TEST.ERROR_KINDS.ENABLED else None,
        error_radius=cfg.TEST.ERROR_KINDS.RADIUS,
        full_size=cfg.TEST.FULL_SIZE,
    )
    if not cfg.TEST.NUM_PICTURES:
        return DatasetEvaluators(evaluators)
    pictures = PictureWriter(
        output_dir=Path(cfg.OUTPUT_DIR) / "evaluation" / dataset_name / "pictures",
        num_images=cfg.TEST.NUM_PICTURES,
        read_image=read_image,
        read_label=read,
        components_of=components_of,
        label_files={record["file_name"]: record["sem_seg_file_name"] for record in records},
        class_names=info.classes,
        class_colors=info.colors,
        ignore_label=info.ignore_label,
    )
    return DatasetEvaluators([*evaluators, pictures])


def _label_reader(records: Sequence[dict[str, Any]], info: SemanticMetadata) -> Callable[[str], np.ndarray]:
    """A function from label file to (H, W) labels that applies the ``label_map`` of the record, as in training."""
    label_maps = {record["sem_seg_file_name"]: record.get("label_map") for record in records}
    read = partial(read_label, num_classes=len(info.classes), ignore_label=info.ignore_label)
    return lambda path: read(path, label_map=label_maps[path])


def _at_input_size(mapper: SemanticMapper, record: dict) -> dict:
    """Move the file's size to "file_size", for evaluators: without it, the output has the size of the input."""
    mapped = mapper(record)
    return mapped | {"file_size": (mapped.pop("height"), mapped.pop("width"))}
