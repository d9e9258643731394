"""Whether a checkpoint is of the run that it is loaded into: the same classes, model, optimizer, and on all ranks."""

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

from .checkpoint import Checkpointer, absent_parameters, require_all_parameters
from .load_report import summary
from .tasks import task_of

logger = logging.getLogger(__name__)

# Of MODEL: what says where from and on what, and what only training looks at or a test may choose.
_FREE_TO_CHANGE = re.compile(
    r"WEIGHTS|DEVICE|TEST|CHANNELS_LAST|FREEZE.*|NORM|.*_WEIGHT|LOSS_.*|ASSIGNMENT|UNION|AREA_POWER"
)
# What decides which images a step sees; the number of processes may change.
_IMAGES = ("SOLVER.IMS_PER_BATCH", "DATASETS.TRAIN", "DATASETS.TRAIN_FRACTION")
_ADVICE = (
    "--resume needs the model and optimizer of the run; to fine-tune give MODEL.WEIGHTS without --resume, and another "
    "OUTPUT_DIR."
)


def load_trained(cfg: CfgNode | None, model: nn.Module, path: str) -> None:
    """Load a checkpoint into a model that is not to be trained any more.

    Args:
        cfg: names the data sets; None where the classes are those of the checkpoint, whatever they are.
        model: built `without_initial_weights`.
        path: as in `load_weights`.

    Raises:
        FileNotFoundError, ValueError: see `load_weights`; also if the checkpoint is of other classes than the data sets
            of ``cfg``, or lacks parameters of the model.
    """
    checkpointer = Checkpointer(model)
    checkpointer.load(path, checkpointables=[])
    if cfg is not None:
        _warn_of_other_settings(cfg, checkpointer)
        require_same_classes(cfg, checkpointer)
    require_all_parameters(model, checkpointer.report, path)


def _warn_of_other_settings(cfg: CfgNode, checkpointer: Checkpointer) -> None:
    """Log what of the model and its input is not as the checkpoint was trained with, though its tensors fit."""
    then = checkpointer.settings  # empty where the file carries no config: nothing to compare with
    changed = _changed("MODEL", then["MODEL"], cfg.MODEL) if then else []
    changed += _changed("INPUT.FORMAT", then["INPUT"]["FORMAT"], cfg.INPUT.FORMAT) if then else []
    if changed:
        logger.warning(
            "%s was trained with other settings: %s. Give those of the training, where this is not on purpose.",
            *(checkpointer.path, summary(changed)),
        )


def _changed(key: str, then: Any, now: Any) -> list[str]:
    """["KEY then -> now"] of a part of two configs; of keys that both have, and that make a difference in a test."""
    if isinstance(now, CfgNode):
        both = [name for name in now if name in then and not _FREE_TO_CHANGE.fullmatch(name)]
        return [change for name in both for change in _changed(f"{key}.{name}", then[name], now[name])]
    same = json.dumps(then, default=str) == json.dumps(now, default=str)  # tuples are lists in a file
    return [] if same else [f"{key} {then} -> {now}"]


def require_same_classes(cfg: CfgNode, checkpointer: Checkpointer) -> None:
    """Raise ValueError if the checkpoint that was loaded names other classes, or another order, than the data sets."""
    names, classes = _classes_of(cfg)
    if difference := _difference(checkpointer.classes, classes):
        raise ValueError(
            f"{checkpointer.path} was trained on other classes than {names}: {difference}. Give data sets "
            "with the classes of the checkpoint in its order, or, to train on others, MODEL.WEIGHTS without --resume."
        )


def warn_of_other_classes(cfg: CfgNode, checkpointer: Checkpointer) -> None:
    """Log it where weights to begin with are of as many classes, so that all fit, but of others."""
    names, classes = _classes_of(cfg)
    if len(checkpointer.classes or ()) != len(classes):
        return
    if difference := _difference(checkpointer.classes, classes):
        logger.warning(
            "MODEL.WEIGHTS = %s was trained on other classes than %s: %s. A last layer that was loaded has to "
            "learn them anew.",
            *(checkpointer.path, names, difference),
        )


def require_same_model(checkpointer: Checkpointer) -> None:
    """Raise ValueError if parameters of the model were not in the checkpoint, or of another shape."""
    absent = absent_parameters(checkpointer.model, checkpointer.report)
    if absent:
        raise ValueError(
            f"--resume: {checkpointer.path} lacks {len(absent)} parameters of the model, or has them in another shape: "
            f"{summary(absent)}. {_ADVICE}"
        )


def require_same_images(cfg: CfgNode, checkpointer: Checkpointer) -> None:
    """Raise ValueError if the run saw other images, or another number of them a step, than ``cfg`` asks for."""
    for key in _IMAGES:
        section, name = key.split(".")
        then, now = checkpointer.settings.get(section, {}).get(name), cfg[section][name]
        if then is None or then == (list(now) if isinstance(now, tuple) else now):
            continue
        raise ValueError(
            f"--resume: {checkpointer.path} is of a run with {key} = {then}, and this one has {now}: it would not go "
            f"on with the images and the schedule of that one. Give {key} {then}, with any number of processes; to "
            "train on differently, MODEL.WEIGHTS without --resume, and another OUTPUT_DIR."
        )


def require_same_optimizer(optimizer: torch.optim.Optimizer, saved: Sequence[dict[str, Any]], path: str) -> None:
    """Raise ValueError if ``saved``, the groups of parameters in a checkpoint, are not those of ``optimizer``."""
    own = optimizer.param_groups
    mine, other = ({key for group in groups for key in group} for groups in (own, saved))
    if mine - other and other - mine:  # one side alone may have more: versions of torch differ
        what = f"SOLVER.OPTIMIZER is another one: it has {', '.join(sorted(mine - other))}, the file's "
        what += ", ".join(sorted(other - mine))
    else:
        sizes, file_sizes = ([len(group["params"]) for group in groups] for groups in (own, saved))
        if sizes == file_sizes:
            return
        what = (
            f"the optimizer has groups of {sizes} parameters, the file's {file_sizes} (parts that are off or frozen "
            "change them, and which rates and decays of SOLVER are equal)"
        )
    raise ValueError(f"--resume: {path} does not fit the config: {what}. {_ADVICE}")


def require_same_start(start_iter: int, output_dir: str) -> None:
    """Raise ValueError unless all ranks have found the same checkpoint to go on from."""
    starts = comm.all_gather(start_iter)
    if len(set(starts)) > 1:
        raise ValueError(
            f"--resume: the processes begin at different iterations, {starts} by rank: they do not see the same "
            f"checkpoints in OUTPUT_DIR = {output_dir}. It must be on a disk that all machines share."
        )


def _classes_of(cfg: CfgNode) -> tuple[str, list[str]]:
    """The names of the data sets of a run, and its classes."""
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    return ", ".join(names), list(task_of(names).metadata_of(names).classes)


def _difference(found: Sequence[str] | None, wanted: Sequence[str]) -> str:
    """The first class that differs; empty for none, and where a checkpoint does not name its classes."""
    if found is None:
        return ""
    for index, (theirs, ours) in enumerate(zip_longest(found, wanted, fillvalue="(none)")):
        if theirs != ours:
            return f"class {index} is {theirs} there and {ours} here, of {len(found)} and {len(wanted)} classes"
    return ""
