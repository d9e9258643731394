"""Evaluates a model on a data set: one pass for metrics, token metrics and pictures."""

import logging

import torch
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, inference_on_dataset
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from sgr_d2.data.datasets import get_dataset_records
from sgr_d2.data.image_files import require_images
from sgr_d2.evaluation import ERROR_KINDS, metrics_path, write_metrics
from sgr_d2.files import appearing_whole
from sgr_d2.visualization import draw_error_kinds

from .inference.protocol import with_protocol
from .tasks import task_of

logger = logging.getLogger(__name__)


def check_evaluation(cfg: CfgNode, model: nn.Module, *, own_evaluators: bool = False, own_loader: bool = False) -> None:
    """Detect before training what would make its first evaluation fail.

    Args:
        own_evaluators: whether the trainer has its own `build_evaluator`, which may need less than `build_evaluator`:
            then a data set that cannot be evaluated by the latter is a warning.
        own_loader: whether it has its own `build_test_loader`, which may read images from elsewhere.

    Raises:
        FileNotFoundError: if image files do not exist.
        ValueError: if TEST.SLIDING_WINDOW or TEST.AUG cannot work with this model, a data set has an unknown
            evaluator_type, or the model does not return what is evaluated.
    """
    if cfg.DATASETS.TEST:
        with_protocol(cfg, model)
    for name in cfg.DATASETS.TEST:
        try:
            task_of([name]).check_evaluation(cfg, name)
        except ValueError as error:
            if not own_evaluators:
                raise
            logger.warning("The evaluation fails if your build_evaluator calls that of Trainer: %s", error)
        if not own_loader:
            require_images(get_dataset_records(name), name)


def build_test_loader(cfg: CfgNode, dataset_name: str) -> DataLoader:
    """The test loader of the data set's task."""
    return task_of([dataset_name]).build_test_loader(cfg, dataset_name)


def build_evaluator(cfg: CfgNode, dataset_name: str) -> DatasetEvaluators:
    """The evaluators (metrics and pictures) of the data set's task. Raises ValueError if it cannot be evaluated."""
    task = task_of([dataset_name])
    task.check_evaluation(cfg, dataset_name)
    return task.build_evaluators(cfg, dataset_name, task.metadata_of([dataset_name]))


def evaluate(
    cfg: CfgNode,
    model: nn.Module,
    dataset_name: str,
    *,
    loader: DataLoader | None = None,
    evaluator: DatasetEvaluator | None = None,
) -> dict:
    """Evaluate ``model`` and write ``metrics.json`` and ``config.yaml`` into ``OUTPUT_DIR/evaluation/<dataset>``.

    Args:
        loader, evaluator: used instead of `build_test_loader` and `build_evaluator`.

    Returns:
        On the main process {"sem_seg": {...}, "token_semantics": {...}}, or for a detector {"bbox": {...}, "segm": ...,
        "token_semantics": ...}; on the other processes {}.
    """
    if isinstance(model, DistributedDataParallel):
        model = model.module  # `with_protocol` needs its head and sizes
    evaluator = build_evaluator(cfg, dataset_name) if evaluator is None else evaluator
    share_buffers(model)
    loader = build_test_loader(cfg, dataset_name) if loader is None else loader
    results = inference_on_dataset(with_protocol(cfg, model), loader, evaluator)
    if comm.is_main_process():
        path = metrics_path(cfg.OUTPUT_DIR, dataset_name)
        write_metrics(results, path)
        with appearing_whole(path.with_name("config.yaml")) as temporary:
            temporary.write_text(cfg.dump(), encoding="utf-8")
        task = task_of([dataset_name])
        classes = task.metadata_of([dataset_name]).classes
        if errors := results.get("error_kinds"):
            title = f"{dataset_name}: where the IoU is lost"
            draw_error_kinds(errors, ERROR_KINDS, classes, title, path.with_name("error_kinds.png"))
        logger.info("%s (%s):\n%s", dataset_name, path, task.format_table(results, classes))
    return results


def share_buffers(model: nn.Module) -> None:
    """Copy the buffers (BatchNorm statistics) of rank 0, which are those that checkpoints hold, to every rank."""
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)
