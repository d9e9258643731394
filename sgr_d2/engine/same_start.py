"""Checks that initial weights suit the run that starts from them: same input, same place of SGR."""

import logging
import math
from typing import Any

from detectron2.config import CfgNode

from sgr_d2.modeling.sgr.parts import is_part_of_sgr

from .checkpoint.checkpointer import Checkpointer
from .tasks import DETECTION, SEMANTIC

logger = logging.getLogger(__name__)

# Keys that decide what the first layers see. Tensors fit whatever they are.
_INPUT_KEYS = ("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD")
_RESNET_KEYS = ("MODEL.RESNETS.STRIDE_IN_1X1",)


def check_input_of_backbone(cfg: CfgNode, checkpointer: Checkpointer) -> None:
    """Compare the input for which a loaded backbone was trained with that of this run.

    Raises:
        ValueError: if they differ and the weights come from the other task, whose recipes may differ in all this.
            Between runs of one task it is a warning, as other data can have another mean.
    """
    then, report = checkpointer.settings, checkpointer.report
    if not then or not any(name.startswith("backbone.") for name in report.loaded):
        return
    resnet = "resnet" in cfg.MODEL.BACKBONE.NAME
    keys = [*_INPUT_KEYS, *(_RESNET_KEYS if resnet else ())]
    values = {key: (_value(then, key), _value(cfg, key)) for key in keys}
    wanted = {key: old for key, (old, new) in values.items() if old is not None and not _close(old, new)}
    if not wanted:
        return
    text = (
        f"MODEL.WEIGHTS = {checkpointer.path}: its backbone was trained on other input than that of this run: "
        f"{', '.join(f'{key} {old} instead of {values[key][1]}' for key, old in wanted.items())}."
    )
    if is_transfer(cfg, checkpointer):
        options = " ".join(f'{key} "{old}"' for key, old in wanted.items())
        raise ValueError(f"{text} Its tensors fit, but would see what they do not know. Set {options}")
    logger.warning("%s Unless this is on purpose, give those of the file.", text)


def check_place_of_sgr(cfg: CfgNode, checkpointer: Checkpointer) -> None:
    """Warn if the file and the model have SGR but nothing of the file's fits.

    Raises:
        ValueError: if MODEL.SGR.FREEZE would keep the untrained SGR as it is.
    """
    report = checkpointer.report
    skipped = [entry.key for entry in report.skipped]
    has_own = any(is_part_of_sgr(name) for name in [*report.missing, *skipped])
    in_file = any(is_part_of_sgr(name) for name in [*report.unused, *skipped])
    if not has_own or not in_file or any(is_part_of_sgr(name) for name in report.loaded):
        return
    levels = _value(checkpointer.settings, "MODEL.SGR.IN_FEATURES") or "other levels"
    text = (
        f"MODEL.WEIGHTS = {checkpointer.path}: nothing of its SGR fits this model, whose SGR starts untrained. It "
        f"reads {levels}, this one {list(cfg.MODEL.SGR.IN_FEATURES)} (MODEL.SGR.IN_FEATURES). To load it, set all keys "
        "of MODEL.SGR as in the run that wrote the file."
    )
    if cfg.MODEL.SGR.FREEZE:
        raise ValueError(f"{text} MODEL.SGR.FREEZE True would keep it untrained.")
    logger.warning(text)


def is_transfer(cfg: CfgNode, checkpointer: Checkpointer) -> bool:
    """Whether the weights are known to be those of a detector and the model to be for segmentation, or vice versa."""
    tasks = {architecture: task.name for task in (SEMANTIC, DETECTION) for architecture in task.models}
    there = tasks.get(_value(checkpointer.settings, "MODEL.META_ARCHITECTURE"))
    here = tasks.get(cfg.MODEL.META_ARCHITECTURE)
    return there is not None and here is not None and there != here


def _value(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part) if config else None
    return list(config) if isinstance(config, tuple) else config


def _close(first: Any, second: Any) -> bool:
    """Whether two values are equal; lists of numbers, to a hundredth."""
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return all(math.isclose(a, b, rel_tol=0.01) for a, b in zip(first, second, strict=True))
    return first == second
