"""Runs one process of a multi-process program and ends it cleanly."""

import gc
import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import torch.distributed
from detectron2.utils import comm


def run_process(main: Callable[..., Any], *args: Any) -> Any:
    """Call ``main(*args)``, then leave the process groups, which `detectron2.engine.launch` itself does not do.

        launch(run_process, num_gpus, dist_url="auto", args=(main, config_file))

    If a gloo group still exists when Python exits, its threads may abort the process after all its work is done
    ("terminate called without an active exception", https://github.com/pytorch/pytorch/issues/190489), especially on
    a busy machine. If ``main`` raises, the groups are kept: other processes may still be waiting in them, and leaving
    would make this one wait, too. Without process groups this just calls ``main``.

    Args:
        main: the program of one process.
        args: its arguments.

    Returns:
        The result of ``main``.
    """
    result = main(*args)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        leave_process_groups()
    return result


def leave_process_groups() -> None:
    """Destroy all process groups and their threads, which live as long as anything refers to a group."""
    torch.distributed.destroy_process_group()
    comm._LOCAL_PROCESS_GROUP = None
    comm.create_local_process_group.cache_clear()
    comm._get_global_gloo_group.cache_clear()
    gc.collect()  # models wrapped in DistributedDataParallel refer to their group


def end_processes(seconds: float) -> None:
    """Wait up to ``seconds`` for the processes that this one has started, to which Ctrl-C goes, too, and end the rest.

    Some may wait for others that have ended already.
    """
    deadline = time.monotonic() + seconds
    started = multiprocessing.active_children()
    for process in started:
        process.join(max(0.0, deadline - time.monotonic()))
    for process in started:
        process.terminate()
        process.join()
