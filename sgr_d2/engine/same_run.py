"""Checks that a checkpoint fits the run that loads it: same classes, model and optimizer, and the same on all ranks."""

import json
import logging
import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from sgr_d2.messages import first_few

from .checkpoint.checkpointer import Checkpointer, absent_parameters, require_all_parameters, require_use_of_sgr
from .checkpoint.load_report import summary
from .same_start import is_transfer
from .tasks import task_of

logger = logging.getLogger(__name__)

# Keys of MODEL for files and devices, for training only, or that a test may choose.
_FREE_TO_CHANGE = re.compile(
    r"WEIGHTS|DEVICE|TEST|.*_TEST|CHANNELS_LAST|FREEZE.*|.*_WEIGHT|LOSS_.*|ASSIGNMENT|UNION|AREA_POWER"
)
# Sections of MODEL that segmentation models and detectors have in common.
_SHARED = ("BACKBONE", "RESNETS", "TIMM", "SWIN", "FPN", "SGR")
# Keys of MODEL and INPUT that make no difference to training.
_NOT_OF_TRAINING = re.compile(r"WEIGHTS|DEVICE|CHANNELS_LAST|TEST|.*_TEST")
# Keys that decide which images a step sees; the number of processes may change.
_IMAGES = ("SEED", "SOLVER.IMS_PER_BATCH", "DATASETS.TRAIN", "DATASETS.TRAIN_FRACTION")
_FORMAT_HINT = (
    " INPUT.FORMAT is the channel order of the training, whatever that of the images (SGRPredictor takes BGR arrays "
    'with channels="BGR").'
)
_ADVICE = (
    "--resume needs the model and optimizer of the run; to fine-tune give MODEL.WEIGHTS without --resume, and another "
    "OUTPUT_DIR."
)


def load_trained(cfg: CfgNode, model: nn.Module, path: str, *, compare_classes: bool = True) -> None:
    """Load a checkpoint into a model that will not be trained any further.

    Args:
        cfg: of the model; a warning names its settings of model and input that differ from those of the training.
        model: built `without_initial_weights`.
        path: as in `load_weights`.
        compare_classes: with those of the data sets of ``cfg``; False to use those of the checkpoint.

    Raises:
        FileNotFoundError, ValueError: see `load_weights`; also if the checkpoint has other classes than the data sets
            of ``cfg``, lacks parameters of the model, or has SGR where the model has none.
    """
    checkpointer = Checkpointer(model)
    checkpointer.load(path, checkpointables=[])
    if compare_classes:
        require_same_classes(cfg, checkpointer)
    changed = _changed_settings(cfg, checkpointer)
    require_all_parameters(model, checkpointer.report, path, changed)
    require_use_of_sgr(checkpointer.report, path, changed)
    if changed:
        hint = _FORMAT_HINT if "INPUT.FORMAT " in changed else ""
        logger.warning("%s %s%s Unless this is on purpose, give those of the training.", path, changed, hint)


def warn_of_another_model(cfg: CfgNode, checkpointer: Checkpointer) -> None:
    """Warn of settings that differ from those of initial weights of which some tensors do not fit."""
    report = checkpointer.report
    partly = report and (report.skipped or report.missing or report.unused)
    if partly and (changed := _changed_settings(cfg, checkpointer)):
        logger.warning("MODEL.WEIGHTS = %s %s", checkpointer.path, changed)


def warn_of_other_settings(cfg: CfgNode, checkpointer: Checkpointer) -> None:
    """Warn of settings of model and input that differ from those of the run that is resumed."""
    then = checkpointer.settings
    changed = [
        change
        for section in ("MODEL", "INPUT")
        for change in _changed(section, then.get(section, {}), cfg[section], free=_NOT_OF_TRAINING)
    ]
    if changed:
        logger.warning(
            "--resume: %s is from a run with other settings: %s. Unless this is on purpose, give those of the run.",
            *(checkpointer.path, first_few(changed)),
        )


def _changed_settings(cfg: CfgNode, checkpointer: Checkpointer) -> str:
    """The settings of the model and its input that differ from the checkpoint's, as the end of a sentence, or ""."""
    then = checkpointer.settings
    if not then:  # the file has no config
        return ""
    changed = _changed("INPUT.FORMAT", then["INPUT"]["FORMAT"], cfg.INPUT.FORMAT)
    model = then["MODEL"]
    if is_transfer(cfg, checkpointer):
        model = {name: model[name] for name in _SHARED if name in model}
    changed += _changed("MODEL", model, cfg.MODEL)
    return f"was trained with other settings: {first_few(changed)}." if changed else ""


def _changed(key: str, then: Any, now: Any, *, free: re.Pattern = _FREE_TO_CHANGE) -> list[str]:
    """["KEY then -> now"] for the keys that both parts of a config have, but for those whose last part is ``free``."""
    if isinstance(now, CfgNode):
        both = [name for name in now if name in then and not free.fullmatch(name)]
        return [change for name in both for change in _changed(f"{key}.{name}", then[name], now[name], free=free)]
    return [] if _comparable(then) == _comparable(now) else [f"{key} {then} -> {now}"]


def _comparable(value: Any) -> str:
    """The value as text: a file stores tuples as lists, and the kinds of BatchNorm are the same in a test."""
    return re.sub(r'"\w*BN"', '"BN"', json.dumps(value, default=str))


def require_same_classes(cfg: CfgNode, checkpointer: Checkpointer) -> None:
    """Raise ValueError if the loaded checkpoint names other classes than the data sets, or another order."""
    names, classes = _classes_of(cfg)
    if difference := _difference(checkpointer.classes, classes):
        raise ValueError(
            f"{checkpointer.path} was trained on other classes than {names}: {difference}. Give data sets "
            "with the classes of the checkpoint in its order, or, to train on others, MODEL.WEIGHTS without --resume."
        )


def warn_of_other_classes(cfg: CfgNode, checkpointer: Checkpointer) -> None:
    """Warn if initial weights are for different classes but as many of them, so that all tensors fit."""
    names, classes = _classes_of(cfg)
    if len(checkpointer.classes or ()) != len(classes):
        return
    if difference := _difference(checkpointer.classes, classes):
        logger.warning(
            "MODEL.WEIGHTS = %s was trained on other classes than %s: %s. Any last layer that was loaded has to "
            "relearn them.",
            *(checkpointer.path, names, difference),
        )


def require_same_model(cfg: CfgNode, checkpointer: Checkpointer) -> None:
    """Raise ValueError if parameters of the model were missing from the checkpoint, or had another shape."""
    absent = absent_parameters(checkpointer.model, checkpointer.report)
    if absent:
        changed = _changed_settings(cfg, checkpointer)
        raise ValueError(
            f"--resume: {checkpointer.path} lacks {len(absent)} parameters of the model, or has them in another shape: "
            f"{summary(absent)}. {f'It {changed} ' if changed else ''}{_ADVICE}"
        )


def require_same_images(cfg: CfgNode, checkpointer: Checkpointer) -> None:
    """Raise ValueError if the run used other images, or more or fewer of them per step, than ``cfg``."""
    for key in _IMAGES:
        *section, name = key.split(".")
        then, now = checkpointer.settings, cfg
        for part in section:
            then, now = then.get(part, {}), now[part]
        then, now = then.get(name), now[name]
        if then is None or then == (list(now) if isinstance(now, tuple) else now):
            continue
        raise ValueError(
            f"--resume: {checkpointer.path} is from a run with {key} = {then}, but this one has {now}: it would not "
            f"continue with the same images and schedule. Give {key} {then}, with any number of processes; to train "
            "differently, give MODEL.WEIGHTS without --resume, and another OUTPUT_DIR."
        )


def require_same_optimizer(optimizer: torch.optim.Optimizer, saved: Sequence[dict[str, Any]], path: str) -> None:
    """Raise ValueError if ``saved``, a checkpoint's parameter groups, do not match those of ``optimizer``."""
    own = optimizer.param_groups
    mine, other = ({key for group in groups for key in group} for groups in (own, saved))
    if mine - other and other - mine:  # just one side may have more: versions of torch differ
        what = f"SOLVER.OPTIMIZER differs: this one has {', '.join(sorted(mine - other))}, the file's "
        what += ", ".join(sorted(other - mine))
    else:
        sizes, file_sizes = ([len(group["params"]) for group in groups] for groups in (own, saved))
        if sizes == file_sizes:
            return
        what = (
            f"the optimizer has groups of {sizes} parameters, the file's {file_sizes} (they depend on parts that are "
            "off or frozen, and on which rates and decays of SOLVER are equal)"
        )
    raise ValueError(f"--resume: {path} does not fit the config: {what}. {_ADVICE}")


def require_same_start(start_iter: int, output_dir: str) -> None:
    """Raise ValueError unless all ranks have found the same checkpoint to resume from."""
    starts = comm.all_gather(start_iter)
    if len(set(starts)) > 1:
        raise ValueError(
            f"--resume: the processes start at different iterations, {starts} by rank: they do not see the same "
            f"checkpoints in OUTPUT_DIR = {output_dir}. It must be on a disk that all machines share."
        )


def _classes_of(cfg: CfgNode) -> tuple[str, list[str]]:
    """The names of the data sets of a run, and its classes."""
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    return ", ".join(names), list(task_of(names).metadata_of(names).classes)


def _difference(found: Sequence[str] | None, wanted: Sequence[str]) -> str:
    """Describe the first class that differs; "" if none does, or the checkpoint does not name its classes."""
    if found is None:
        return ""
    for index, (theirs, ours) in enumerate(zip_longest(found, wanted, fillvalue="(none)")):
        if theirs != ours:
            return f"class {index} is {theirs} there and {ours} here, of {len(found)} and {len(wanted)} classes"
    return ""
