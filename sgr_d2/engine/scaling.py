"""Scales the batch of a published recipe, and with it learning rate and schedule, to this run."""

import logging
from collections.abc import Collection

from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

ITERATIONS = (
    "SOLVER.MAX_ITER",
    "SOLVER.STEPS",
    "SOLVER.WARMUP_ITERS",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_PERIOD",
)


def scale_solver(
    cfg: CfgNode, world_size: int, *, reference_batch: int | None = None, given: Collection[str] = ()
) -> CfgNode:
    """Adapt a config for ``SOLVER.REFERENCE_WORLD_SIZE`` processes to ``world_size`` processes.

    The number of images per process is kept; the learning rate grows in proportion to the batch, and the numbers of
    iterations shrink (Goyal et al. 2017), as in `detectron2.engine.DefaultTrainer.auto_scale_workers`. Keys in
    ``given`` keep their values. If the batch is among them, the others follow it; a batch smaller than the number of
    processes becomes one image per process. REFERENCE_WORLD_SIZE = 0 disables scaling.

    Args:
        cfg: of the run.
        world_size: number of processes.
        reference_batch: SOLVER.IMS_PER_BATCH of REFERENCE_WORLD_SIZE processes; None for that of ``cfg``.
        given: keys on the command line.

    Raises:
        ValueError: if REFERENCE_WORLD_SIZE does not divide the reference batch.
    """
    reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
    if reference == 0 or (reference == world_size and "SOLVER.IMS_PER_BATCH" not in given):
        return cfg
    if "SOLVER.REFERENCE_WORLD_SIZE" in given:  # then the other keys are for that reference, too
        reference_batch, given = None, ()
    reference_batch = cfg.SOLVER.IMS_PER_BATCH if reference_batch is None else reference_batch
    if reference_batch % reference:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH = {reference_batch} is the batch of SOLVER.REFERENCE_WORLD_SIZE = {reference} "
            "processes and must be a multiple of it. For another batch in this run, give SOLVER.IMS_PER_BATCH on the "
            "command line; to use the config as it is, set REFERENCE_WORLD_SIZE to 0."
        )
    cfg = cfg.clone()
    cfg.defrost()
    _choose_batch(cfg, reference_batch // reference, world_size, given)
    _scale(cfg, cfg.SOLVER.IMS_PER_BATCH / reference_batch, given)
    cfg.SOLVER.REFERENCE_WORLD_SIZE = world_size
    cfg.freeze()
    solver = cfg.SOLVER
    logger.info(
        "Scaled from a batch of %d: IMS_PER_BATCH %d, BASE_LR %g, MAX_ITER %d, WARMUP_ITERS %d (those on the command "
        "line stay as given).",
        *(reference_batch, solver.IMS_PER_BATCH, solver.BASE_LR, solver.MAX_ITER, solver.WARMUP_ITERS),
    )
    return cfg


def _choose_batch(cfg: CfgNode, images_each: int, world_size: int, given: Collection[str]) -> None:
    if "SOLVER.IMS_PER_BATCH" not in given:
        cfg.SOLVER.IMS_PER_BATCH = images_each * world_size
    elif 0 < cfg.SOLVER.IMS_PER_BATCH < world_size:
        logger.warning(
            "SOLVER.IMS_PER_BATCH = %d is the batch of all %d processes together: it becomes %d, one image each.",
            *(cfg.SOLVER.IMS_PER_BATCH, world_size, world_size),
        )
        cfg.SOLVER.IMS_PER_BATCH = world_size


def _scale(cfg: CfgNode, scale: float, given: Collection[str]) -> None:
    if "SOLVER.BASE_LR" not in given:
        cfg.SOLVER.BASE_LR *= scale
    for key in ITERATIONS:
        section, name = key.split(".")
        value = cfg[section][name]
        if key not in given and scale:
            cfg[section][name] = (
                _scaled(value, scale) if isinstance(value, int) else type(value)(_scaled(v, scale) for v in value)
            )


def _scaled(iterations: int, scale: float) -> int:
    """At least one if there was one: a period of 0 means never."""
    return max(1, round(iterations / scale)) if iterations > 0 else iterations
