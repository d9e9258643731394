"""Adapts a config to this machine: device, precision, norms, and the number of processes."""

import logging
from collections.abc import Collection, Sequence

import torch
from detectron2.config import CfgNode

from .own_modules import config_with, imports_of, keys_of
from .scaling import scale_solver

logger = logging.getLogger(__name__)


def fit_to_machine(
    cfg: CfgNode, config_file: str, opts: Sequence[str], world_size: int, *, cpu: bool = False
) -> CfgNode:
    """Adapt device, precision, norms, batch and schedule of a config to ``world_size`` processes on this machine.

    Args:
        cfg: `load_config` of ``config_file`` and ``opts``.
        world_size: number of processes.
        cpu: use no GPU even if there is one.

    Raises:
        ValueError: if SOLVER.REFERENCE_WORLD_SIZE does not divide the batch.
    """
    cfg, given = cfg.clone(), opts[::2]
    cfg.defrost()
    if cpu:
        cfg.MODEL.DEVICE = "cpu"
    use_machine(cfg, world_size, given=given)
    cfg.freeze()
    if cfg.SOLVER.REFERENCE_WORLD_SIZE == 0:  # nothing to scale, so the file need not be read a second time
        return cfg
    return scale_solver(cfg, world_size, reference_batch=_batch_of_file(config_file, opts), given=given)


def _batch_of_file(config_file: str, opts: Sequence[str]) -> int:
    cfg = config_with(imports_of(keys_of(config_file), opts))
    cfg.merge_from_file(config_file)
    return cfg.SOLVER.IMS_PER_BATCH


def use_machine(cfg: CfgNode, world_size: int, *, given: Collection[str] = ()) -> None:
    """Without a GPU, run on the CPU, and without float16 unless it is requested; use plain BatchNorm where torch's
    SyncBN cannot work. Changes are logged. ``given`` are the keys on the command line.
    """
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        logger.info("No GPU: MODEL.DEVICE becomes cpu.")
        cfg.MODEL.DEVICE = "cpu"
    amp = cfg.SOLVER.AMP
    if cfg.MODEL.DEVICE == "cpu" and amp.ENABLED and amp.DTYPE == "float16" and "SOLVER.AMP.ENABLED" not in given:
        logger.info("No GPU: float32 instead of float16 (SOLVER.AMP.ENABLED True on the command line keeps it).")
        amp.ENABLED = False
    if world_size == 1 or cfg.MODEL.DEVICE == "cpu":
        changed = _replace_norm(cfg.MODEL, "MODEL", "SyncBN", "BN")
        if changed:
            why = "one process" if world_size == 1 else "no GPU"
            logger.info("SyncBN becomes BN (%s): %s", why, ", ".join(changed))


def _replace_norm(node: CfgNode, path: str, old: str, new: str) -> list[str]:
    changed = []
    for key, value in node.items():
        if isinstance(value, CfgNode):
            changed += _replace_norm(value, f"{path}.{key}", old, new)
        elif key.endswith("NORM") and value == old and path != "MODEL.SGR":  # its own SyncBN works anywhere
            node[key] = new
            changed.append(f"{path}.{key}")
    return changed
