"""One seed for a whole run."""

import logging
from pathlib import Path

import yaml
from detectron2.config import CfgNode
from detectron2.utils import comm

from .options import with_values

logger = logging.getLogger(__name__)


def with_seed_of_run(cfg: CfgNode) -> CfgNode:
    """If SEED is negative, the config with the SEED of the run in its OUTPUT_DIR, if there is one."""
    file = Path(cfg.OUTPUT_DIR, "config.yaml")
    if cfg.SEED >= 0 or not file.is_file():
        return cfg
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    return with_values(cfg, {"SEED": content.get("SEED", cfg.SEED)})


def with_seed(cfg: CfgNode) -> CfgNode:
    """The config with a non-negative SEED: its own, or one that is drawn for all processes and logged."""
    if cfg.SEED >= 0:
        return cfg
    cfg = with_values(cfg, {"SEED": comm.shared_random_seed() % 2**31})
    logger.info("SEED was negative: drew %d. Give it to repeat this run.", cfg.SEED)
    return cfg
