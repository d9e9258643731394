"""Training: Detectron2's trainer on any device, with exact resume."""

import inspect
import logging
import weakref
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, TrainerBase
from detectron2.engine.hooks import EvalHook, PeriodicWriter
from detectron2.evaluation import DatasetEvaluator
from detectron2.projects.deeplab import build_lr_scheduler
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sgr_d2.checks import check_accumulation_steps, check_choice
from sgr_d2.visualization.curves import read_rows

from .build import build_model
from .checkpoint.checkpointer import Checkpointer
from .checkpoint.model_card import CardInCheckpoint, ModelCard
from .evaluate import build_evaluator, build_test_loader, check_evaluation, evaluate, share_buffers
from .hooks import BestCheckpoint, PlotCurves, SeedEachStep, best_metric, misspelt_metric, repeatable
from .loop import TrainLoop
from .same_run import (
    require_same_classes,
    require_same_images,
    require_same_model,
    require_same_optimizer,
    require_same_start,
    warn_of_another_model,
    warn_of_other_classes,
    warn_of_other_settings,
)
from .same_start import check_input_of_backbone, check_place_of_sgr
from .scaling import scale_solver
from .schedule import restore_schedule, restore_settings, schedule_of, settings_of
from .seed import with_seed
from .solver import SCHEDULERS, build_optimizer
from .tasks import task_of
from .unlabelled import LabelWatch

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Detectron2's default trainer, without the assumption of its constructor that every process has a GPU.

    ``SOLVER.REFERENCE_WORLD_SIZE`` scales batch, learning rate and schedule to the number of processes, unless `setup`,
    which also knows the options on the command line, has already done so (`scale_solver`).
    """

    def __init__(self, cfg: CfgNode):
        TrainerBase.__init__(self)
        cfg = with_seed(scale_solver(cfg, comm.get_world_size()))
        check_accumulation_steps(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        self.check_evaluation(cfg, model)  # now rather than after hours of training
        amp = cfg.SOLVER.AMP
        self._trainer = TrainLoop(
            distribute(model),
            self.build_optimizer(cfg, model),
            device_type=torch.device(cfg.MODEL.DEVICE).type,
            amp_dtype=amp.DTYPE if amp.ENABLED else None,
            max_nonfinite_steps=cfg.SOLVER.MAX_NONFINITE_STEPS,
            accumulation_steps=cfg.SOLVER.ACCUMULATION_STEPS,
            watch=LabelWatch(cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE, cfg.DATASETS.TRAIN),
        )
        self.scheduler = self.build_lr_scheduler(cfg, self.optimizer)
        card = CardInCheckpoint(ModelCard.of(cfg))
        self.checkpointer = Checkpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self), model_card=card)
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume=True):
        """
        Raises:
            ValueError: if the checkpoint is from a later iteration than the last of this run, has other classes,
                another model or optimizer, or not all ranks find it.
        """
        schedule, settings = schedule_of(self.scheduler), settings_of(self.optimizer)
        self.resumed = False
        super().resume_or_load(resume=resume)
        if self.start_iter > 0 and not self.resumed:
            raise ValueError(
                f"--resume: {self.checkpointer.path} holds a model but no state of its training. Name another one in "
                "last_checkpoint beside it, or start a run from it with MODEL.WEIGHTS and without --resume."
            )
        require_same_start(self.start_iter, self.cfg.OUTPUT_DIR)
        if self.start_iter == 0:
            warn_of_other_classes(self.cfg, self.checkpointer)
            warn_of_another_model(self.cfg, self.checkpointer)
            if self.checkpointer.report:
                check_input_of_backbone(self.cfg, self.checkpointer)
                check_place_of_sgr(self.cfg, self.checkpointer)
        if self.start_iter > self.max_iter:
            raise ValueError(
                f"--resume: the last checkpoint in {self.cfg.OUTPUT_DIR} is of iteration {self.start_iter}, but "
                f"SOLVER.MAX_ITER is {self.max_iter}. Set it to more, or evaluate with --eval-only."
            )
        restore_schedule(self.scheduler, schedule)
        restore_settings(self.optimizer, settings)

    def state_dict(self):
        """Its iteration is the last one that was done; after training `iter` is one more."""
        state = super().state_dict()
        return state | {"iteration": min(state["iteration"], self.max_iter - 1)}

    def load_state_dict(self, state_dict):
        """Called when a run is resumed, after the weights have been loaded."""
        require_same_classes(self.cfg, self.checkpointer)
        require_same_images(self.cfg, self.checkpointer)
        require_same_model(self.cfg, self.checkpointer)
        groups = state_dict["_trainer"]["optimizer"]["param_groups"]
        require_same_optimizer(self.optimizer, groups, self.checkpointer.path)
        warn_of_other_settings(self.cfg, self.checkpointer)
        super().load_state_dict(state_dict)
        self.resumed = True

    def train(self):
        # only now is the iteration known at which the stream of images continues
        if "start_iter" in inspect.signature(self.build_train_loader).parameters:
            self.data_loader = self.build_train_loader(self.cfg, start_iter=self.start_iter)
        else:  # Detectron2's signature
            self.data_loader = self.build_train_loader(self.cfg)
            if self.start_iter:
                logger.warning("build_train_loader takes no start_iter: the resumed run sees its first images again.")
        if self.start_iter >= self.max_iter:
            logger.info("SOLVER.MAX_ITER = %d: the run is finished, and only evaluated.", self.max_iter)
            self._keep_figures()
        super().train()
        return getattr(self, "_last_eval_results", None)

    def _keep_figures(self) -> None:
        """Write no figures of a finished run, unless those of the evaluation at its end are missing."""
        figures = Path(self.cfg.OUTPUT_DIR, "metrics.json")
        if not figures.is_file() or all(row.get("iteration") != self.max_iter for row in read_rows(figures)[0]):
            return
        for hook in self._hooks:
            if isinstance(hook, PeriodicWriter):
                for writer in hook._writers:
                    writer.close()
                hook._writers = []

    def after_train(self):
        """Also runs after an error; then there is no evaluation, which would wait forever for the other processes."""
        self.iter = min(self.iter, self.max_iter)  # more if there was no step, in a finished run
        if self.iter < self.max_iter:
            for hook in self._hooks:
                if isinstance(hook, EvalHook):
                    hook._eval_after_train = False
        super().after_train()

    def build_hooks(self) -> list:
        best = BestCheckpoint(self.checkpointer, self.cfg.TEST.EVAL_PERIOD, best_metric(self.cfg))
        curves = PlotCurves(self.cfg.OUTPUT_DIR, self.cfg.TEST.BEST_METRIC)
        *hooks, last = map(repeatable, super().build_hooks())
        if not comm.is_main_process():
            return [SeedEachStep(self.cfg.SEED), *hooks, last]
        if not self.cfg.DATASETS.TEST:
            return [SeedEachStep(self.cfg.SEED), *hooks, last, curves]
        classes = task_of(self.cfg.DATASETS.TEST).metadata_of(self.cfg.DATASETS.TEST).classes
        if meant := misspelt_metric(best.metric, self.cfg.DATASETS.TEST, classes):
            logger.warning(
                "TEST.BEST_METRIC = %s is not measured, so there will be no model_best.pth. Did you mean %s?",
                *(self.cfg.TEST.BEST_METRIC, meant),
            )
        if "segm/" in best.metric and not self.cfg.MODEL.MASK_ON:
            logger.warning(
                "TEST.BEST_METRIC = %s, but MODEL.MASK_ON is False: there are no masks to measure, so there will be no "
                "model_best.pth. Set it to bbox/AP.",
                self.cfg.TEST.BEST_METRIC,
            )
        if best.metric != self.cfg.TEST.BEST_METRIC:
            logger.info("model_best.pth: by %s; set TEST.BEST_METRIC for another data set.", best.metric)
        # `last` writes the log and must see the results of all the others
        return [SeedEachStep(self.cfg.SEED), *hooks, best, last, curves]

    @classmethod
    def build_model(cls, cfg):
        return build_model(cfg)

    @classmethod
    def build_optimizer(cls, cfg, model):
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg, optimizer):
        solver = cfg.SOLVER
        check_choice("SOLVER.LR_SCHEDULER_NAME", solver.LR_SCHEDULER_NAME, SCHEDULERS)
        if solver.WARMUP_ITERS > solver.MAX_ITER:
            logger.warning(
                "SOLVER.WARMUP_ITERS = %d is longer than the run, SOLVER.MAX_ITER = %d: the learning rate never gets "
                "close to SOLVER.BASE_LR = %g. Set it to less.",
                *(solver.WARMUP_ITERS, solver.MAX_ITER, solver.BASE_LR),
            )
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg, start_iter: int = 0):
        return task_of(cfg.DATASETS.TRAIN).build_train_loader(cfg, start_iter=start_iter)

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def check_evaluation(cls, cfg, model):
        """Raise an error before training for what its first evaluation would; see `evaluate.check_evaluation`."""
        check_evaluation(
            cfg, model, own_evaluators=cls._has_own("build_evaluator"), own_loader=cls._has_own("build_test_loader")
        )

    @classmethod
    def _has_own(cls, method: str) -> bool:
        return getattr(getattr(cls, method), "__func__", None) is not getattr(Trainer, method).__func__

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        """Evaluate on every data set of ``DATASETS.TEST``: {data set: results}, or the results if there is one.

        ``evaluators``: one per data set, instead of those of `build_evaluator`.
        """
        names = cfg.DATASETS.TEST
        if evaluators is None:
            evaluators = [None] * len(names)
        elif isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        if len(evaluators) != len(names):
            raise ValueError(f"Trainer.test: {len(evaluators)} evaluators for DATASETS.TEST = {names}; give one each.")
        results = {}
        for name, evaluator in zip(names, evaluators, strict=True):
            results[name] = evaluate(
                cfg,
                model,
                name,
                loader=cls.build_test_loader(cfg, name),
                evaluator=cls.build_evaluator(cfg, name) if evaluator is None else evaluator,
            )
        return next(iter(results.values())) if len(results) == 1 else results


def distribute(model: nn.Module) -> nn.Module:
    """Wrap the model for data-parallel training if there are several processes, also on the CPU."""
    if comm.get_world_size() == 1:
        return model
    share_buffers(model)  # some are random, and each rank has its own seed
    devices = [comm.get_local_rank()] if next(model.parameters()).is_cuda else None
    newer = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters  # torch 2.14
    own_buffers = {"forward_sync_buffers" if newer else "broadcast_buffers": False}
    return DistributedDataParallel(model, device_ids=devices, **own_buffers)
