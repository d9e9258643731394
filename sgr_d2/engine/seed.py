"""One seed for a whole run."""

import logging
from pathlib import Path

import yaml
from detectron2.config import CfgNode
from detectron2.utils import comm

from .options import with_values

logger = logging.getLogger(__name__)


def with_seed_of_run(cfg: CfgNode) -> CfgNode:
    """If SEED is negative, the config with the SEED of the run in its OUTPUT_DIR, if there is one.

    Only rank 0 reads the file: it goes on to write it anew, while others may be late.
    """
    if cfg.SEED >= 0:
        return cfg
    here = _seed_in(Path(cfg.OUTPUT_DIR, "config.yaml")) if comm.is_main_process() else None
    seed = comm.all_gather(here)[0]
    return cfg if seed is None else with_values(cfg, {"SEED": seed})


def _seed_in(file: Path) -> int | None:
    """The SEED of a config, or None. Raises nothing, as the other ranks wait for it; what is wrong is logged."""
    try:
        return int(yaml.safe_load(file.read_text(encoding="utf-8"))["SEED"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        logger.warning(
            "%s, which should hold the SEED of the run, cannot be read (%s: %s). Give SEED, which log.txt names.",
            *(file, type(error).__name__, error),
        )
        return None


def with_seed(cfg: CfgNode) -> CfgNode:
    """The config with a non-negative SEED: its own, or one that is drawn for all processes and logged."""
    if cfg.SEED >= 0:
        return cfg
    cfg = with_values(cfg, {"SEED": comm.shared_random_seed() % 2**31})
    logger.info("SEED was negative: drew %d. Give it to repeat this run.", cfg.SEED)
    return cfg
