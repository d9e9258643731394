"""Evaluate a model on a data set: one pass for segmentation, token metrics and pictures."""

import logging
from functools import partial
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluators, inference_on_dataset
from detectron2.utils import comm
from torch import nn

from sgr_d2.data.components import label_components
from sgr_d2.data.datasets import SemanticMetadata, get_dataset_records, metadata_of
from sgr_d2.data.loader import build_test_loader
from sgr_d2.data.mapper import SemanticMapper
from sgr_d2.data.reading import read_image, read_label
from sgr_d2.evaluation import build_evaluator, format_table, metrics_path, write_metrics
from sgr_d2.visualization import PictureWriter

logger = logging.getLogger(__name__)


def evaluate(cfg: CfgNode, model: nn.Module, dataset_name: str) -> dict:
    """Evaluate ``model`` and write ``OUTPUT_DIR/evaluation/<dataset>/metrics.json``.

    Returns:
        {"sem_seg": {...}, "token_semantics": {...}} on the main process, {} on the others.
    """
    info = metadata_of([dataset_name])
    share_buffers(model)
    loader = build_test_loader(cfg, dataset_name, mapper=_mapper(cfg))
    results = inference_on_dataset(model, loader, build_evaluators(cfg, dataset_name, info))
    if comm.is_main_process():
        path = metrics_path(cfg.OUTPUT_DIR, dataset_name)
        write_metrics(results, path)
        logger.info("%s (%s):\n%s", dataset_name, path, format_table(results, info.classes))
    return results


def build_evaluators(cfg: CfgNode, dataset_name: str, info: SemanticMetadata) -> DatasetEvaluators:
    """The evaluator of the data set's type, and the one that draws pictures."""
    read = partial(read_label, num_classes=len(info.classes), ignore_label=info.ignore_label)
    components_of = partial(
        label_components,
        ignore_label=info.ignore_label,
        min_area=cfg.INPUT.COMPONENTS.MIN_AREA,
        max_components=cfg.INPUT.COMPONENTS.MAX_COMPONENTS,
    )
    metrics = build_evaluator(
        MetadataCatalog.get(dataset_name).evaluator_type,
        dataset_name,
        read_label=read,
        components_of=lambda labels: components_of(labels).ids,
        min_mass=cfg.TEST.TOKEN_SEMANTICS.MIN_MASS,
        full_size=cfg.TEST.FULL_SIZE,
    )
    if not cfg.TEST.NUM_PICTURES:
        return metrics
    pictures = PictureWriter(
        output_dir=Path(cfg.OUTPUT_DIR) / "evaluation" / dataset_name / "pictures",
        num_images=cfg.TEST.NUM_PICTURES,
        read_image=read_image,
        read_label=read,
        components_of=components_of,
        label_files={r["file_name"]: r["sem_seg_file_name"] for r in get_dataset_records(dataset_name)},
        class_names=info.classes,
        class_colors=info.colors,
        ignore_label=info.ignore_label,
    )
    return DatasetEvaluators([metrics, pictures])


def share_buffers(model: nn.Module) -> None:
    """Give every rank the buffers (BatchNorm statistics) of rank 0, which are the ones that checkpoints hold."""
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)


def _mapper(cfg: CfgNode):
    mapper = SemanticMapper(cfg, is_train=False)
    return mapper if cfg.TEST.FULL_SIZE else partial(_at_input_size, mapper)


def _at_input_size(mapper: SemanticMapper, record: dict) -> dict:
    """Without the size of the file the model's output keeps the size of its input."""
    return {key: value for key, value in mapper(record).items() if key not in ("height", "width")}
