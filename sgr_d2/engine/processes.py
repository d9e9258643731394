"""What each process of a run on several does: its part, and a clean end."""

import gc
from collections.abc import Callable
from typing import Any

import torch.distributed
from detectron2.utils import comm


def run_process(main: Callable[..., Any], *args: Any) -> Any:
    """Call ``main(*args)``, then leave the process groups; to be given to `detectron2.engine.launch`, which does not.

        launch(run_process, num_gpus, dist_url="auto", args=(main, config_file))

    The threads of a gloo group that is still there when Python ends may abort the process after all its work is done
    ("terminate called without an active exception", https://github.com/pytorch/pytorch/issues/190489), most of all on
    a busy machine. Where ``main`` raises, the groups stay: other processes may still be waiting in them, and so would
    this one. Without process groups this is a mere call.

    Args:
        main: the program of one process.
        args: its arguments.

    Returns:
        What ``main`` returns.
    """
    result = main(*args)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        leave_process_groups()
    return result


def leave_process_groups() -> None:
    """Destroy all process groups, and with them their threads, which live as long as something refers to a group."""
    torch.distributed.destroy_process_group()
    comm._LOCAL_PROCESS_GROUP = None
    comm.create_local_process_group.cache_clear()
    comm._get_global_gloo_group.cache_clear()
    gc.collect()  # models that were wrapped for several processes refer to their group
