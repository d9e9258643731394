"""A run from its config: training, or the evaluation of a checkpoint."""

import logging
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from sgr_d2.files import appearing_whole

from .build import without_initial_weights
from .checkpoint.checkpointer import Checkpointer
from .checkpoint.last_checkpoint import find_last
from .earlier_run import put_back, release
from .same_run import load_trained
from .trainer import Trainer

logger = logging.getLogger(__name__)


def train(cfg: CfgNode, *, resume: bool = False, trainer: type[Trainer] = Trainer) -> dict | None:
    """Train according to the config; with ``resume``, continue from the last checkpoint in ``OUTPUT_DIR``, if any.

    Args:
        trainer: the trainer class, for instance one with its own loaders, hooks or evaluators.

    Returns:
        The results of the last evaluation on the main process.

    Raises:
        KeyboardInterrupt: at Ctrl-C, with the iteration and the last checkpoint.
    """
    folder = Path(cfg.OUTPUT_DIR)
    try:
        return _train(cfg, resume, trainer)
    except BaseException:
        put_back(folder)
        raise
    finally:
        release(folder)  # claimed by `setup`


def _train(cfg: CfgNode, resume: bool, trainer: type[Trainer]) -> dict | None:
    given = cfg
    if resume and Checkpointer(nn.Module(), cfg.OUTPUT_DIR).has_checkpoint():
        cfg = without_initial_weights(cfg)
    elif cfg.MODEL.BACKBONE.NAME.startswith("build_timm") and not (cfg.MODEL.TIMM.WEIGHTS or cfg.MODEL.WEIGHTS):
        logger.warning("The backbone %s starts from random weights: set MODEL.TIMM.WEIGHTS.", cfg.MODEL.TIMM.NAME)
    elif not (cfg.MODEL.BACKBONE.NAME.startswith("build_timm") or cfg.MODEL.WEIGHTS):
        logger.info("MODEL.WEIGHTS is empty: the model starts from the weights with which it is built.")
    run = trainer(cfg)
    run.resume_or_load(resume=resume)
    if resume and run.start_iter < run.max_iter and comm.is_main_process():  # only now it is certain that it continues
        with appearing_whole(Path(cfg.OUTPUT_DIR, "config.yaml")) as temporary:
            temporary.write_text(given.dump(), encoding="utf-8")
    try:
        return run.train()
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(_where(run)) from error


def _where(run: Trainer) -> str:
    """At which iteration a run was interrupted, and what is left of it."""
    text = f"Interrupted at iteration {getattr(run, 'iter', run.start_iter)}."
    if last := find_last(run.cfg.OUTPUT_DIR):
        return f"{text} Last checkpoint: {last}; continue with the same command and --resume."
    period = run.cfg.SOLVER.CHECKPOINT_PERIOD
    return f"{text} There is no checkpoint yet, so nothing is saved (SOLVER.CHECKPOINT_PERIOD = {period})."


def evaluate_checkpoint(cfg: CfgNode, *, resume: bool = False, trainer: type[Trainer] = Trainer) -> dict:
    """Evaluate ``MODEL.WEIGHTS`` or, with ``resume``, the last checkpoint in ``OUTPUT_DIR``.

    Args:
        trainer: the class whose model, loaders and evaluators are used.

    Raises:
        ValueError: if there is neither, or it has other classes, or lacks parameters of the model.
    """
    checkpointer = Checkpointer(nn.Module(), cfg.OUTPUT_DIR)
    path = checkpointer.get_checkpoint_file() if resume and checkpointer.has_checkpoint() else cfg.MODEL.WEIGHTS
    if not path:
        raise ValueError(
            "--eval-only needs a checkpoint: give MODEL.WEIGHTS path, or --resume for the last one in "
            f"{cfg.OUTPUT_DIR}."
        )
    model = trainer.build_model(without_initial_weights(cfg))
    load_trained(cfg, model, path)
    return trainer.test(cfg, model)


def limit_threads(num_processes: int) -> None:
    """Divide torch's threads (OMP_NUM_THREADS, or the available cores) among ``num_processes`` on this machine, if they
    train on the CPU.
    """
    if num_processes > 1 and not torch.cuda.is_available():
        torch.set_num_threads(max(1, torch.get_num_threads() // num_processes))
