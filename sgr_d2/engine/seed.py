"""One seed for a whole run."""

import logging

from detectron2.config import CfgNode
from detectron2.utils import comm

logger = logging.getLogger(__name__)


def with_seed(cfg: CfgNode) -> CfgNode:
    """The config with a SEED that is not negative: its own, or one that all processes draw together and log."""
    if cfg.SEED >= 0:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SEED = comm.shared_random_seed() % 2**31
    cfg.freeze()
    logger.info("SEED was negative: drew %d. Give it to repeat this run.", cfg.SEED)
    return cfg
