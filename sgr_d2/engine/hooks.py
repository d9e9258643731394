"""Hooks in addition to Detectron2's."""

import logging
import math
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.engine.hooks import PreciseBN
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from sgr_d2.evaluation import TOKEN_FIGURES
from sgr_d2.visualization import plot_curves

from .best_record import Best, read_bests, write_bests

# Metrics of single classes, left out of lists of metrics.
_OF_CLASSES = ("IoU-", "ACC-", "AP-")
_OF_A_CLASS = ("sem_seg/IoU-", "sem_seg/ACC-", "bbox/AP-", "segm/AP-")

# The metrics of sgr_d2's and Detectron2's evaluators, except those of single classes.
_USUAL = (
    *(f"sem_seg/{name}" for name in ("mIoU", "fwIoU", "mACC", "pACC")),
    *(f"{task}/AP{size}" for task in ("bbox", "segm") for size in ("", "50", "75", "s", "m", "l")),
    *(f"token_semantics/{name}" for name in TOKEN_FIGURES),
)

logger = logging.getLogger(__name__)


class SeedEachStep(HookBase):
    """Seed torch before every step from (seed, iteration, rank), so that a resumed run draws the same numbers."""

    def __init__(self, seed: int):
        self.seed = seed

    def before_step(self) -> None:
        step = self.trainer.iter * comm.get_world_size() + comm.get_rank()
        torch.manual_seed((self.seed * 1_000_003 + step) % 2**63)


class RepeatablePreciseBN(PreciseBN):
    """Detectron2's, with the same images at every update: those of a resumed run would otherwise be others."""

    def update_stats(self) -> None:
        self._data_iter = None
        super().update_stats()


def repeatable(hook: HookBase) -> HookBase:
    """A `PreciseBN` that is not disabled as a `RepeatablePreciseBN`; any other hook as it is."""
    if type(hook) is not PreciseBN or hook._disabled:
        return hook
    return RepeatablePreciseBN(hook._period, hook._model, hook._data_loader, hook._num_iter)


def best_metric(cfg: CfgNode) -> str:
    """The full name of TEST.BEST_METRIC: with several data sets, that of the first one unless it names one."""
    names, metric = cfg.DATASETS.TEST, cfg.TEST.BEST_METRIC
    if len(names) < 2 or metric.startswith(tuple(f"{name}/" for name in names)):
        return metric
    return f"{names[0]}/{metric}"


def misspelt_metric(metric: str, data_sets: Sequence[str], classes: Sequence[str]) -> str:
    """The known metric that ``metric`` seems to misspell, or "" if it is known or may be from your own evaluator.

    TEST.BEST_METRIC itself is only looked up after an evaluation.
    """
    prefix = next((f"{name}/" for name in data_sets if metric.startswith(f"{name}/")), "")
    name = metric.removeprefix(prefix)
    if name in _USUAL:
        return ""
    if kind := next((kind for kind in _OF_A_CLASS if name.startswith(kind)), ""):
        of = name.removeprefix(kind)
        return "" if of in classes else prefix + kind + get_close_matches(of, classes, n=1, cutoff=0)[0]
    if any(kind in name for kind in _OF_CLASSES):
        return ""
    meant = [usual for usual in _USUAL if name.lower() in (usual.lower(), usual.lower().split("/")[1])]
    return next((prefix + usual for usual in [*meant, *get_close_matches(name, _USUAL, n=1, cutoff=0.9)]), "")


class BestCheckpoint(HookBase):
    """Keep the checkpoint with the highest value of one metric, also across resumes, and a record of its value and of
    the highest ones before it in ``model_best.json``.

    Runs after the evaluation. Does not change ``last_checkpoint``, so that runs resume from the latest state; only
    while there is no other checkpoint, they resume from the best.
    """

    def __init__(self, checkpointer, eval_period: int, metric: str):
        """
        Args:
            checkpointer: saves the model.
            eval_period: iterations between evaluations.
            metric: "task/name", or "data set/task/name" if several data sets are evaluated.
        """
        self.checkpointer = checkpointer
        self.eval_period = eval_period
        self.metric = metric
        self.bests: list[Best] = []  # the latest first

    @property
    def best(self) -> float:
        return max((best.value for best in self.bests), default=-math.inf)

    @property
    def record(self) -> Path:
        return Path(self.checkpointer.save_dir) / "model_best.json"

    def before_train(self) -> None:
        start = self.trainer.start_iter
        if start > 0:  # what came after the checkpoint is yet to be trained
            self.bests = [best for best in read_bests(self.record, self.metric) if best.iteration < start]

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self.eval_period > 0 and done % self.eval_period == 0 and done != self.trainer.max_iter:
            self._keep_if_best()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # less after an error
            self._keep_if_best()

    def _keep_if_best(self) -> None:
        value, iteration = self.trainer.storage.latest().get(self.metric, (None, None))
        if value is None:
            results = getattr(self.trainer, "_last_eval_results", None) or {}
            known = [name for name in flatten_results_dict(results) if not any(kind in name for kind in _OF_CLASSES)]
            logger.warning(
                "TEST.BEST_METRIC = %s was not computed: no best checkpoint. There are %s.",
                self.metric,
                ", ".join(known) or "no results at all",
            )
            return
        if not value > self.best:
            return
        iteration = min(iteration, self.trainer.max_iter - 1)  # after training the storage is one iteration ahead
        self.checkpointer.save("model_best", last=not self.checkpointer.has_checkpoint(), iteration=iteration)
        self.bests = [Best(value, iteration), *self.bests]
        write_bests(self.record, self.metric, self.bests)
        logger.info("Best %s so far: %.4f", self.metric, value)


class PlotCurves(HookBase):
    """Plot losses and ``metric`` (see `plot_curves`) of the run to ``OUTPUT_DIR/curves.png`` at its end."""

    def __init__(self, output_dir: str, metric: str):
        self.output_dir = Path(output_dir)
        self.metric = metric

    def after_train(self) -> None:
        metrics = self.output_dir / "metrics.json"
        if self.trainer.iter >= self.trainer.max_iter and metrics.is_file():
            plot_curves(metrics, self.output_dir / "curves.png", self.metric)
            logger.info("Curves: %s", self.output_dir / "curves.png")
