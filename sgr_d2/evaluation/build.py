"""Evaluators by the ``evaluator_type`` of a data set's metadata."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator

from sgr_d2.evaluation.cityscapes_evaluator import CityscapesEvaluator, check_official_truth
from sgr_d2.evaluation.context_evaluator import ContextEvaluator
from sgr_d2.evaluation.error_kinds import ErrorKindsEvaluator
from sgr_d2.evaluation.sem_seg_evaluator import StreamingSemSegEvaluator
from sgr_d2.evaluation.token_semantics_evaluator import TokenSemanticsEvaluator

logger = logging.getLogger(__name__)


def build_sem_seg_evaluators(
    dataset_name: str,
    *,
    read_label: Callable[[str], np.ndarray],
    components_of: Callable[..., np.ndarray],
    read_instances: Callable[[str], np.ndarray] | None = None,
    min_mass: float = 1e-4,
    segments_of: Callable[[np.ndarray], np.ndarray] | None = None,
    error_radius: int = 3,
    full_size: bool = True,
    distributed: bool = True,
) -> list[DatasetEvaluator]:
    """Build the evaluators of segmentation metrics and token semantics.

    Args:
        dataset_name: name of the registered data set.
        read_label: label file -> (H, W) integers.
        read_instances: instance file -> (H, W) instance ids, 0 for none, for inputs that have ``instance_file_name``;
            None to measure connected components everywhere.
        segments_of, error_radius: for `ErrorKindsEvaluator`, which is not used without ``segments_of``.
        components_of, min_mass, full_size, distributed: see the evaluators.
    """
    read_once = _keep_last(read_label)
    arguments = {"read_label": read_once, "full_size": full_size, "distributed": distributed}
    if segments_of is None:
        sem_seg = StreamingSemSegEvaluator(dataset_name, **arguments)
    else:
        sem_seg = ErrorKindsEvaluator(dataset_name, segments_of=segments_of, radius=error_radius, **arguments)
    metadata = MetadataCatalog.get(dataset_name)

    def maps_of(image: dict[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
        instance_file = image.get("instance_file_name") if read_instances else None
        labels = read_once(sem_seg.input_file_to_gt_file[image["file_name"]])
        return labels, read_instances(instance_file) if instance_file else None

    tokens = TokenSemanticsEvaluator(
        maps_of=maps_of,
        components_of=components_of,
        num_classes=len(metadata.stuff_classes),
        ignore_label=metadata.ignore_label,
        min_mass=min_mass,
        full_size=full_size,
        distributed=distributed,
    )
    return [sem_seg, tokens]


def _keep_last(read_label: Callable[[str], np.ndarray]) -> Callable[[str], np.ndarray]:
    """Keep the labels of the last file, so that with test batches of one image, the default, each is read once."""

    @lru_cache(maxsize=1)
    def read(path: str) -> np.ndarray:
        labels = np.array(read_label(path))
        labels.setflags(write=False)  # several evaluators get this array
        return labels

    return read


def build_cityscapes_evaluators(dataset_name: str, *, full_size: bool = True, **arguments) -> list[DatasetEvaluator]:
    """The same plus Cityscapes' official IoU and iIoU, if at full size and cityscapesScripts is installed."""
    evaluators = build_sem_seg_evaluators(dataset_name, full_size=full_size, **arguments)
    if not full_size:
        logger.warning("%s: TEST.FULL_SIZE is False: no official Cityscapes metrics.", dataset_name)
        return evaluators
    names = MetadataCatalog.get(dataset_name).stuff_classes
    try:
        return [*evaluators, CityscapesEvaluator(class_names=names, distributed=arguments.get("distributed", True))]
    except ImportError as error:
        logger.warning("%s: no official IoU and iIoU. %s", dataset_name, error)
        return evaluators


def build_context_evaluators(dataset_name: str, *, full_size: bool = True, **arguments) -> list[DatasetEvaluator]:
    """The same plus, at full size, accuracy against distance for ``shapes_context``."""
    evaluators = build_sem_seg_evaluators(dataset_name, full_size=full_size, **arguments)
    if not full_size:
        logger.warning("%s: TEST.FULL_SIZE is False: no accuracy against distance.", dataset_name)
        return evaluators
    labels = MetadataCatalog.get(dataset_name).context_labels
    return [*evaluators, ContextEvaluator(context_labels=labels, distributed=arguments.get("distributed", True))]


# To evaluate another kind of data set, add its evaluator_type and a factory with the arguments above.
EVALUATORS: dict[str, Callable[..., list[DatasetEvaluator]]] = {
    "sem_seg": build_sem_seg_evaluators,
    "cityscapes_sem_seg": build_cityscapes_evaluators,
    "shapes_context": build_context_evaluators,
}


def evaluators_of(dataset_name: str, **arguments) -> list[DatasetEvaluator]:
    """Build the evaluators of a data set by the ``evaluator_type`` of its metadata, a key of ``EVALUATORS``.

    Args:
        dataset_name: name of the registered data set.
        arguments: of the factory, see ``build_sem_seg_evaluators``.

    Raises:
        ValueError: see `check_evaluator_type`.
    """
    check_evaluator_type(dataset_name)
    return EVALUATORS[MetadataCatalog.get(dataset_name).evaluator_type](dataset_name, **arguments)


def check_evaluator_type(dataset_name: str) -> None:
    """Raise ValueError, listing the choices, if there are no evaluators for the data set's ``evaluator_type``."""
    evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if evaluator_type not in EVALUATORS:
        raise ValueError(
            f"data set {dataset_name!r}: unknown evaluator_type {evaluator_type!r} in its metadata; set it to one of "
            f"{sorted(EVALUATORS)} where you register it"
        )


def check_truth(dataset_name: str, records: Sequence[Mapping[str, Any]], *, full_size: bool) -> None:
    """Raise ValueError if files are missing that the evaluators of the data set read beside its labels."""
    if full_size and MetadataCatalog.get(dataset_name).evaluator_type == "cityscapes_sem_seg":
        check_official_truth(dataset_name, records)
