"""The tasks, segmentation and detection, chosen by the ``evaluator_type`` of the data sets' metadata."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluators
from torch.utils.data import DataLoader

from sgr_d2.data.datasets import SemanticMetadata, metadata_of, thing_metadata_of
from sgr_d2.data.loader import build_train_loader
from sgr_d2.evaluation import format_detection_table, format_table

from . import detection, semantic


class Task(NamedTuple):
    """
    Attributes:
        name: for messages.
        models: the meta-architectures of Detectron2 and sgr_d2 that are only for this task.
        metadata_of: names of data sets -> their classes.
        use_classes: (cfg, names, metadata) writes the number of classes into the config.
        build_train_loader: (cfg, start_iter=...) -> the loader of DATASETS.TRAIN.
        build_test_loader: (cfg, name) -> the loader of a data set.
        check_evaluation: (cfg, name) raises ValueError if the data set cannot be evaluated with this config.
        build_evaluators: (cfg, name, metadata) -> metrics and pictures.
        format_table: (results, class names) -> text.
    """

    name: str
    models: tuple[str, ...]
    metadata_of: Callable[[Sequence[str]], SemanticMetadata]
    use_classes: Callable[[CfgNode, Sequence[str], SemanticMetadata], None]
    build_train_loader: Callable[..., DataLoader]
    build_test_loader: Callable[[CfgNode, str], DataLoader]
    check_evaluation: Callable[[CfgNode, str], None]
    build_evaluators: Callable[[CfgNode, str, SemanticMetadata], DatasetEvaluators]
    format_table: Callable[[dict[str, Any], Sequence[str]], str]


SEMANTIC = Task(
    name="segmentation",
    models=("SGRSegmentor", "PeerSegmentor", "SemanticSegmentor"),
    metadata_of=metadata_of,
    use_classes=semantic.use_semantic_classes,
    build_train_loader=build_train_loader,
    build_test_loader=semantic.build_semantic_test_loader,
    check_evaluation=semantic.check_semantic_evaluation,
    build_evaluators=semantic.build_semantic_evaluators,
    format_table=format_table,
)
DETECTION = Task(
    name="detection",
    models=("SGRGeneralizedRCNN", "SGRRetinaNet", "GeneralizedRCNN", "RetinaNet"),
    metadata_of=thing_metadata_of,
    use_classes=detection.use_thing_classes,
    build_train_loader=detection.build_detection_train_loader,
    build_test_loader=detection.build_detection_test_loader,
    check_evaluation=detection.check_detection_evaluation,
    build_evaluators=detection.build_detection_evaluators,
    format_table=format_detection_table,
)
# All other types are segmentation.
TASKS = {"coco": DETECTION}


def task_of(names: Sequence[str]) -> Task:
    """The task of these data sets, ignoring names that are not registered (`Task.metadata_of` rejects those).

    Raises:
        ValueError: if they belong to several tasks.
    """
    types = {name: _type_of(name) for name in names if name in DatasetCatalog}
    tasks = {name: TASKS.get(kind, SEMANTIC) for name, kind in types.items()}
    if len(set(tasks.values())) > 1:
        kinds = ", ".join(f"{name} ({kind})" for name, kind in types.items())
        raise ValueError(f"DATASETS.TRAIN and DATASETS.TEST mix segmentation and detection: {kinds}.")
    return next(iter(tasks.values()), SEMANTIC)


def _type_of(name: str) -> str:
    """The ``evaluator_type``; without one "coco" for data sets that have things alone, as in Detectron2's tutorial."""
    metadata = MetadataCatalog.get(name)
    things = metadata.get("thing_classes") and not metadata.get("stuff_classes")
    return metadata.get("evaluator_type", "coco" if things else "")


def check_model(cfg: CfgNode, names: Sequence[str]) -> None:
    """Raise ValueError if MODEL.META_ARCHITECTURE is known to be for another task than these data sets."""
    architecture, task = cfg.MODEL.META_ARCHITECTURE, task_of(names)
    for other in (SEMANTIC, DETECTION):
        if other is not task and architecture in other.models:
            raise ValueError(
                f"MODEL.META_ARCHITECTURE = {architecture} is for {other.name}, but DATASETS.TRAIN and DATASETS.TEST, "
                f"{', '.join(names)}, are for {task.name}. Name data sets for {other.name}, or one of the "
                f"meta-architectures {', '.join(task.models)}."
            )
