"""Evaluators by the ``evaluator_type`` of a data set's metadata."""

from collections.abc import Callable

import numpy as np
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from sgr_d2.evaluation.label_files import LastFileCache
from sgr_d2.evaluation.sem_seg_evaluator import StreamingSemSegEvaluator
from sgr_d2.evaluation.token_semantics_evaluator import TokenSemanticsEvaluator


def build_sem_seg_evaluators(
    dataset_name: str,
    *,
    read_label: Callable[[str], np.ndarray],
    components_of: Callable[[np.ndarray], np.ndarray],
    min_mass: float = 1e-4,
    full_size: bool = True,
    distributed: bool = True,
) -> DatasetEvaluators:
    """Segmentation metrics and token semantics in one pass; arguments as in the two evaluators."""
    read_once = LastFileCache(read_label)
    sem_seg = StreamingSemSegEvaluator(dataset_name, read_label=read_once, full_size=full_size, distributed=distributed)
    tokens = TokenSemanticsEvaluator(
        read_label=read_once,
        components_of=components_of,
        label_files=sem_seg.input_file_to_gt_file,
        num_classes=sem_seg._num_classes,
        ignore_label=sem_seg._ignore_label,
        min_mass=min_mass,
        full_size=full_size,
        distributed=distributed,
    )
    return DatasetEvaluators([sem_seg, tokens])


# To evaluate another kind of data set, add its evaluator_type here; the factory takes the arguments above.
EVALUATORS: dict[str, Callable[..., DatasetEvaluator]] = {
    "sem_seg": build_sem_seg_evaluators,
    # Detectron2 registers Cityscapes' labelTrainIds files under this type: 19 classes, 255 ignored.
    "cityscapes_sem_seg": build_sem_seg_evaluators,
}


def build_evaluator(evaluator_type: str, dataset_name: str, **arguments) -> DatasetEvaluator:
    """Build the evaluator of a data set.

    Args:
        evaluator_type: a key of ``EVALUATORS``; Detectron2 keeps it in the data set's metadata.
        dataset_name: name of the registered data set.
        arguments: those of the factory, see ``build_sem_seg_evaluators``.

    Raises:
        ValueError: ``evaluator_type`` is unknown; the message lists the choices.
    """
    if evaluator_type not in EVALUATORS:
        raise ValueError(
            f"data set {dataset_name!r}: unknown evaluator_type {evaluator_type!r}; choose one of {sorted(EVALUATORS)}"
        )
    return EVALUATORS[evaluator_type](dataset_name, **arguments)
