"""What token metrics add to an evaluation."""

from collections.abc import Sequence
from functools import partial

import torch
from detectron2.evaluation import DatasetEvaluator

from sgr_d2.data.datasets import get_dataset_records, metadata_of
from sgr_d2.data.mapper import SemanticMapper
from sgr_d2.data.reading import read_label
from sgr_d2.engine import Trainer, load_config
from sgr_d2.engine.semantic import build_semantic_evaluators
from sgr_d2.evaluation import StreamingSemSegEvaluator

from .measure import median, paired_ratio, time_runs
from .report import Report
from .settings import CONFIGS, Settings
from .street_scenes import street_scenes

DATA_SET = "camvid_val"


def benchmark_token_metrics(settings: Settings) -> Report:
    """evaluation of an image of 480x360: model and segmentation metrics, with and without token metrics"""
    with street_scenes(2 if settings.quick else 16) as source:
        options = ["MODEL.TIMM.WEIGHTS", "", "MODEL.DEVICE", settings.device]
        cfg = load_config(str(CONFIGS / "camvid" / "fpn_sgr_effnet_lite0.yaml"), options)
        torch.manual_seed(0)
        model = Trainer.build_model(cfg).eval()
        mapper = SemanticMapper(cfg, is_train=False)
        images = [mapper(record) for record in get_dataset_records(DATA_SET)[: 2 if settings.quick else 16]]
        info = metadata_of([DATA_SET])
        read = partial(read_label, num_classes=len(info.classes), ignore_label=info.ignore_label)
        runs = {
            "without token metrics": Evaluation(model, images, StreamingSemSegEvaluator(DATA_SET, read_label=read)),
            "with token metrics": Evaluation(model, images, build_semantic_evaluators(cfg, DATA_SET, info)),
        }
        times = time_runs(runs, 48, settings)
    return Report(
        what=(
            f"{len(images)} images of {source}, 480x360, EfficientNet-Lite0 + FPN + SGR with "
            f"{cfg.MODEL.SGR.NUM_TOKENS} tokens: the model, reading the label file, and the metrics. The image itself "
            "is read before the clock starts."
        ),
        rows=[{"evaluation": name, "ms per image": median(values)} for name, values in times.items()],
        ratios={
            "token_metrics_time": paired_ratio(times["with token metrics"], times["without token metrics"], "<= 1.15")
        },
    )


class Evaluation:
    """A call runs the model on the next image and passes the result to the evaluator."""

    def __init__(self, model: torch.nn.Module, images: Sequence[dict], evaluator: DatasetEvaluator):
        self.model = model
        self.images = images
        self.evaluator = evaluator
        evaluator.reset()

    def __call__(self, number: int) -> None:
        batch = [self.images[number % len(self.images)]]
        with torch.no_grad():
            self.evaluator.process(batch, self.model(batch))
