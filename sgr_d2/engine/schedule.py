"""The learning rate when a run goes on: the schedule is that of the config, the place in it that of the checkpoint."""

import logging
from typing import Any

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


def _short(value: Any) -> str:
    """Of the rates of all parameters the largest one."""
    return f"up to {max(value):g}" if isinstance(value, list) and value else str(value)
