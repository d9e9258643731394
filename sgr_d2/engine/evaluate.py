"""Evaluate a model on a data set: one pass for metrics, token metrics and pictures."""

import logging

import torch
from detectron2.config import CfgNode
from detectron2.evaluation import inference_on_dataset
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sgr_d2.evaluation import metrics_path, write_metrics

from .protocol import with_protocol
from .tasks import task_of

logger = logging.getLogger(__name__)


def check_evaluation(cfg: CfgNode, model: nn.Module) -> None:
    """Find out before training what would stop its first evaluation.

    Raises:
        ValueError: TEST.SLIDING_WINDOW or TEST.AUG cannot work with this model, a data set has an unknown
            evaluator_type, or the model does not return what is evaluated.
    """
    if cfg.DATASETS.TEST:
        with_protocol(cfg, model)
    for name in cfg.DATASETS.TEST:
        task_of([name]).check_evaluation(cfg, name)


def evaluate(cfg: CfgNode, model: nn.Module, dataset_name: str) -> dict:
    """Evaluate ``model`` and write ``OUTPUT_DIR/evaluation/<dataset>/metrics.json``.

    Returns:
        {"sem_seg": {...}, "token_semantics": {...}} on the main process, or of a detector {"bbox": {...}, "segm": ...,
        "token_semantics": ...}; {} on the other processes.
    """
    if isinstance(model, DistributedDataParallel):
        model = model.module  # whose head and sizes `with_protocol` asks for
    task = task_of([dataset_name])
    task.check_evaluation(cfg, dataset_name)
    info = task.metadata_of([dataset_name])
    share_buffers(model)
    loader = task.build_test_loader(cfg, dataset_name)
    results = inference_on_dataset(with_protocol(cfg, model), loader, task.build_evaluators(cfg, dataset_name, info))
    if comm.is_main_process():
        path = metrics_path(cfg.OUTPUT_DIR, dataset_name)
        write_metrics(results, path)
        logger.info("%s (%s):\n%s", dataset_name, path, task.format_table(results, info.classes))
    return results


def share_buffers(model: nn.Module) -> None:
    """Give every rank the buffers (BatchNorm statistics) of rank 0, which are the ones that checkpoints hold."""
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)
