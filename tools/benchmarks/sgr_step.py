"""What SGR adds to a training step: time and peak memory with and without it."""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage

from sgr_d2.data.loader import build_train_loader
from sgr_d2.engine import Trainer, load_config
from sgr_d2.engine.loop import TrainLoop

from .measure import Ratio, live_bytes, median, mib, paired_ratio, peak_bytes, time_runs
from .report import Report
from .settings import CONFIGS, Settings
from .street_scenes import street_scenes

COMMON = ("MODEL.TIMM.WEIGHTS", "", "DATALOADER.NUM_WORKERS", 0, "SEED", 0)
# Detectron2's own FPN on ResNet-50 as in its panoptic baseline: FrozenBN, stem and first stage frozen.
R50 = (
    *("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"),
    *("MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"]),
    *("MODEL.FPN.OUT_CHANNELS", 256, "MODEL.FPN.NORM", "", "MODEL.SEM_SEG_HEAD.CONVS_DIM", 128),
    *("SOLVER.IMS_PER_BATCH", 2, "INPUT.CROP.SIZE", [512, 512], "INPUT.MIN_SIZE_TRAIN", (512, 576, 640, 768)),
)
QUICK = (
    *("SOLVER.IMS_PER_BATCH", 1, "INPUT.CROP.SIZE", [64, 64], "INPUT.MIN_SIZE_TRAIN", (64,)),
    *("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.SGR.NUM_TOKENS", 8),
)


class Case(NamedTuple):
    """A model to measure: title of its rows, options on top of the config files, rounds, and targets."""

    title: str
    options: tuple
    rounds: int
    time_limit: str
    memory_limit: str


CASES = {
    "lite0": Case("EfficientNet-Lite0 + FPN, 6 crops of 320x240", (), 20, "<= 1.12", "<= 1.10"),
    "lite0_layer_norm": Case("the same with MODEL.SGR.NORM LN", ("MODEL.SGR.NORM", "LN"), 20, "", ""),
    "lite0_places": Case("the same with MODEL.SGR.NUM_PLACES 64", ("MODEL.SGR.NUM_PLACES", 64), 20, "", ""),
    "r50": Case("ResNet-50 + FPN, 2 crops of 512x512", R50, 12, "<= 1.05", "<= 1.05"),
}


def benchmark_sgr_step(settings: Settings) -> Report:
    """time and peak memory of a training step with SGR relative to without it: Lite0 and ResNet-50 with FPN"""
    report = Report("")
    with street_scenes(4 if settings.quick else 16) as source:
        for name, case in CASES.items():
            _measure_case(name, case, settings, report)
    report.what = (
        f"A step of train_net.py on {source} (forward, all losses, backward, clipping, AdamW), random initial weights, "
        "both models fed the same batches in turn. Peak memory: parameters, buffers and optimizer state plus the most "
        "bytes of tensors alive at one time during the steps, counted at torch's allocator."
    )
    return report


def _measure_case(name: str, case: Case, settings: Settings, report: Report) -> None:
    options = (*COMMON, *case.options, *(QUICK if settings.quick else ()), "MODEL.DEVICE", settings.device)
    if settings.amp:
        options += ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", settings.amp)
    load = partial(load_config, opts=list(options))
    without = load(str(CONFIGS / "camvid" / "fpn_effnet_lite0.yaml"))
    with_sgr = load(str(CONFIGS / "camvid" / "fpn_sgr_effnet_lite0.yaml"))
    batches = list(itertools.islice(build_train_loader(with_sgr), 1 if settings.quick else 4))
    steps = {"without SGR": Step(without, batches), "with SGR": Step(with_sgr, batches)}
    peaks = {variant: step.peak_bytes() for variant, step in steps.items()}
    times = time_runs(steps, case.rounds, settings)
    report.rows += [
        {"model": f"{case.title}, {variant}", "ms per step": median(times[variant]), "peak MiB": mib(peaks[variant])}
        for variant in steps
    ]
    memory = peaks["with SGR"] / peaks["without SGR"]
    report.ratios |= {
        f"sgr_step_{name}_time": paired_ratio(times["with SGR"], times["without SGR"], case.time_limit),
        f"sgr_step_{name}_memory": Ratio(memory, memory, memory, case.memory_limit),
    }


class Step:
    """A model, its optimizer and the loop of the trainer; a call makes one training step on the next batch."""

    def __init__(self, cfg: CfgNode, batches: Sequence[list[dict]]):
        self.device = cfg.MODEL.DEVICE
        self.num_batches = len(batches)
        self.model = Trainer.build_model(cfg)
        self.optimizer = Trainer.build_optimizer(cfg, self.model)
        amp = cfg.SOLVER.AMP.DTYPE if cfg.SOLVER.AMP.ENABLED else None
        self.loop = TrainLoop(self.model, self.optimizer, device_type=self.device, amp_dtype=amp, max_nonfinite_steps=1)
        self.loop.data_loader = itertools.cycle(batches)

    def __call__(self, _: int) -> None:
        with EventStorage():
            self.loop.run_step()

    def peak_bytes(self) -> int:
        """The peak over one pass through the batches; what is kept from step to step is counted in full."""
        self(0)  # creates the state of the optimizer
        self.optimizer.zero_grad()
        state = [value for values in self.optimizer.state.values() for value in values.values()]
        tensors = [*self.model.parameters(), *self.model.buffers(), *filter(torch.is_tensor, state)]
        return live_bytes(tensors) + peak_bytes(lambda: [self(0) for _ in range(self.num_batches)], self.device)
