"""The optimizer when a run goes on: rates, decays and momentum are of the config, the place in the schedule and the
averages of the gradients of the checkpoint.
"""

import logging
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

logger = logging.getLogger(__name__)

# What of a scheduler's state tells how far it is; the rest is the schedule.
PROGRESS = {"last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial", "verbose"}


def schedule_of(scheduler: LRScheduler) -> dict[str, Any]:
    """Rates, length and all else that a scheduler was made of."""
    return {key: value for key, value in scheduler.state_dict().items() if key not in PROGRESS}


def restore_schedule(scheduler: LRScheduler, wanted: dict[str, Any]) -> None:
    """Give a scheduler that a checkpoint was loaded into the schedule ``wanted`` again, and its rate to the optimizer.

    What the checkpoint had otherwise is logged. Without that the rates are, bit by bit, those of the checkpoint.
    """
    found = schedule_of(scheduler)
    changed = {key: value for key, value in wanted.items() if found.get(key) != value}
    if changed:
        texts = [f"{key} {_short(found.get(key))} -> {_short(value)}" for key, value in changed.items()]
        logger.warning("The schedule is another one than the checkpoint's: %s.", ", ".join(texts))
        scheduler.load_state_dict(scheduler.state_dict() | wanted)
    rates = scheduler.get_lr()
    for group, base, rate in zip(scheduler.optimizer.param_groups, scheduler.base_lrs, rates, strict=True):
        group["initial_lr"], group["lr"] = base, rate


def settings_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Weight decay, momentum and all else that a group of parameters has beside its learning rate."""
    others = ("params", "lr", "initial_lr")
    return [{key: value for key, value in group.items() if key not in others} for group in optimizer.param_groups]


def restore_settings(optimizer: Optimizer, wanted: list[dict[str, Any]]) -> None:
    """Give an optimizer that a checkpoint was loaded into its settings again; what the checkpoint had is logged."""
    changed = {}
    for group, settings in zip(optimizer.param_groups, wanted, strict=True):
        changed |= {f"{k} {group.get(k)} -> {value}": None for k, value in settings.items() if group.get(k) != value}
        group.update(settings)
    if changed:
        logger.warning("The optimizer has other settings than the checkpoint's: %s.", ", ".join(changed))


def _short(value: Any) -> str:
    """Of the rates of all parameters the largest one."""
    return f"up to {max(value):g}" if isinstance(value, list) and value else str(value)
