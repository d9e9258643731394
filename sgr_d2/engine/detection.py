"""Detection and instance segmentation as a task: config, loaders, evaluators."""

import logging
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from detectron2.config import CfgNode, get_cfg
from detectron2.evaluation import COCOEvaluator, DatasetEvaluators
from torch.utils.data import DataLoader

from sgr_d2.data.coco_annotations import check_coco_annotations
from sgr_d2.data.components import ComponentLimits
from sgr_d2.data.datasets import SemanticMetadata, get_dataset_records
from sgr_d2.data.detection_mapper import DetectionMapper
from sgr_d2.data.detection_records import any_mask, trainable_records
from sgr_d2.data.image_files import require_images
from sgr_d2.data.instance_maps import NO_INSTANCE
from sgr_d2.data.loader import build_test_loader, build_train_loader
from sgr_d2.data.reading import read_image
from sgr_d2.evaluation import TokenSemanticsEvaluator
from sgr_d2.messages import first_few
from sgr_d2.visualization import DetectionPictureWriter

from .instance_truth import Truth, check_images

logger = logging.getLogger(__name__)


def use_thing_classes(cfg: CfgNode, names: Sequence[str], info: SemanticMetadata) -> None:
    """Set the number of classes of all heads from the data sets' metadata.

    Raises:
        ValueError: if the config names another number of classes, or needs inputs that this training does not provide.
    """
    if not cfg.TEST.FULL_SIZE:
        raise ValueError("TEST.FULL_SIZE False is for segmentation; detections are evaluated at the size of the file.")
    _refuse_unknown_inputs(cfg)
    number, defaults = len(info.classes), get_cfg().MODEL
    for key in ("ROI_HEADS", "RETINANET"):
        node = cfg.MODEL[key]
        if node.NUM_CLASSES not in (defaults[key].NUM_CLASSES, number):
            raise ValueError(
                f"MODEL.{key}.NUM_CLASSES = {node.NUM_CLASSES}, but {', '.join(names)} has {number} classes "
                f"({first_few(info.classes, 5)}). Leave the key out to take the number from the data set."
            )
        node.NUM_CLASSES = number


def _refuse_unknown_inputs(cfg: CfgNode) -> None:
    """Raise ValueError for models that need, or return, other things than boxes, masks and components."""
    if cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork":
        raise ValueError(
            "MODEL.META_ARCHITECTURE = ProposalNetwork returns proposals, which this evaluation does not know. Choose "
            "a detector, such as SGRGeneralizedRCNN."
        )
    if cfg.MODEL.MASK_ON and cfg.MODEL.META_ARCHITECTURE in ("SGRRetinaNet", "RetinaNet"):
        raise ValueError(
            f"MODEL.MASK_ON is True, but {cfg.MODEL.META_ARCHITECTURE} (MODEL.META_ARCHITECTURE) predicts boxes alone. "
            "Set it to False."
        )
    for key, on in (("MODEL.KEYPOINT_ON", cfg.MODEL.KEYPOINT_ON), ("MODEL.LOAD_PROPOSALS", cfg.MODEL.LOAD_PROPOSALS)):
        if on:
            raise ValueError(f"{key} is True: this training only provides boxes and masks. Set it to False.")


def check_detection_evaluation(cfg: CfgNode, dataset_name: str) -> None:
    """Raise ValueError for evaluations that segmentation alone has, and for annotations that COCO's cannot read."""
    if cfg.TEST.ERROR_KINDS.ENABLED:
        raise ValueError(
            f"TEST.ERROR_KINDS is for semantic segmentation, but {dataset_name} is for detection: turn it off."
        )
    check_images(get_dataset_records(dataset_name))
    check_coco_annotations(dataset_name, masks=cfg.MODEL.MASK_ON)


def build_detection_train_loader(cfg: CfgNode, *, start_iter: int = 0) -> DataLoader:
    """The endless loader of DATASETS.TRAIN, only of annotated images if DATALOADER.FILTER_EMPTY_ANNOTATIONS is True.

    Raises:
        FileNotFoundError: if image files do not exist.
        ValueError: if nothing is left to train on, or no annotation has a mask and MODEL.MASK_ON or the class loss of
            SGR needs some.
    """
    names = ", ".join(cfg.DATASETS.TRAIN)
    records = list(chain.from_iterable(get_dataset_records(name) for name in cfg.DATASETS.TRAIN))
    records = trainable_records(
        records,
        names,
        masks=cfg.MODEL.MASK_ON,
        mask_format=cfg.INPUT.MASK_FORMAT,
        keep_empty=not cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
    )
    require_images(records, names)
    masks = any_mask(records)
    if cfg.MODEL.SGR.ENABLED and cfg.MODEL.SGR.CLASS_WEIGHT and not masks:
        raise ValueError(
            f"MODEL.SGR.CLASS_WEIGHT = {cfg.MODEL.SGR.CLASS_WEIGHT}, but no annotation of {names} has a mask: tokens "
            "get their classes from masks, and the layer of this loss would not learn. Set it to 0."
        )
    if cfg.MODEL.SGR.ENABLED and not masks:
        logger.info("%s has boxes but no masks: the losses of SGR (component, diversity) are off.", names)
    mapper = DetectionMapper(cfg, is_train=True, components=masks)
    return build_train_loader(cfg, start_iter=start_iter, mapper=mapper, records=records)


def build_detection_test_loader(cfg: CfgNode, dataset_name: str) -> DataLoader:
    return build_test_loader(cfg, dataset_name, mapper=DetectionMapper(cfg, is_train=False))


def build_detection_evaluators(cfg: CfgNode, dataset_name: str, info: SemanticMetadata) -> DatasetEvaluators:
    """COCO's metrics, token metrics and pictures."""
    folder = Path(cfg.OUTPUT_DIR) / "evaluation" / dataset_name
    truth = Truth(get_dataset_records(dataset_name), ComponentLimits.from_config(cfg, is_train=False))
    tasks = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
    evaluators = [
        COCOEvaluator(dataset_name, tasks=tasks, output_dir=str(folder), allow_cached_coco=False),
        TokenSemanticsEvaluator(
            maps_of=lambda image: truth.maps_of(image["file_name"]),
            components_of=truth.components_of,
            num_classes=len(info.classes),
            ignore_label=NO_INSTANCE,
            min_mass=cfg.TEST.TOKEN_SEMANTICS.MIN_MASS,
        ),
    ]
    if cfg.TEST.NUM_PICTURES:
        evaluators.append(
            DetectionPictureWriter(
                output_dir=folder / "pictures",
                num_images=cfg.TEST.NUM_PICTURES,
                read_image=read_image,
                truth_of=truth.of,
                file_names=list(truth.records),
                class_names=info.classes,
                class_colors=info.colors,
                ignore_label=NO_INSTANCE,
            )
        )
    return DatasetEvaluators(evaluators)
