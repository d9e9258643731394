"""The optimizer of a resumed run: rates, decays and momentum come from the config, the position in the schedule and
the running averages of the gradients from the checkpoint.
"""

import logging
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

logger = logging.getLogger(__name__)

# The part of a scheduler's state that is its progress; the rest is the schedule.
PROGRESS = {"last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial", "verbose"}


def schedule_of(scheduler: LRScheduler) -> dict[str, Any]:
    """Rates, length and all other settings of a scheduler."""
    return {key: value for key, value in scheduler.state_dict().items() if key not in PROGRESS}


def restore_schedule(scheduler: LRScheduler, wanted: dict[str, Any]) -> None:
    """Restore the schedule ``wanted`` after a checkpoint has been loaded, and set the optimizer's learning rates by it.

    Differences from the checkpoint are logged. If there are none, the rates are bit for bit those of the checkpoint.
    """
    found = schedule_of(scheduler)
    changed = {key: value for key, value in wanted.items() if found.get(key) != value}
    if changed:
        texts = [f"{key} {_short(found.get(key))} -> {_short(value)}" for key, value in changed.items()]
        logger.warning("The schedule differs from the checkpoint's: %s.", ", ".join(texts))
        scheduler.load_state_dict(scheduler.state_dict() | wanted)
    for group, rate in zip(scheduler.optimizer.param_groups, scheduler.get_lr(), strict=True):
        group["lr"] = rate


def settings_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """All settings of the parameter groups except the learning rates, such as weight decay and momentum."""
    others = ("params", "lr", "initial_lr")
    return [{key: value for key, value in group.items() if key not in others} for group in optimizer.param_groups]


def restore_settings(optimizer: Optimizer, wanted: list[dict[str, Any]]) -> None:
    """Restore an optimizer's settings after a checkpoint has been loaded; differences are logged."""
    changed = {}
    for group, settings in zip(optimizer.param_groups, wanted, strict=True):
        changed |= {f"{k} {group.get(k)} -> {value}": None for k, value in settings.items() if group.get(k) != value}
        group.update(settings)
    if changed:
        logger.warning("The optimizer's settings differ from the checkpoint's: %s.", ", ".join(changed))


def _short(value: Any) -> str:
    """Abbreviate the rates of all parameters to the largest one."""
    return f"up to {max(value):g}" if isinstance(value, list) and value else str(value)
