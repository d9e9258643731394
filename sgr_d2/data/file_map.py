"""Applies a function to many files, in several processes, with a progress bar."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from tqdm import tqdm

# Number of files that a process takes at a time.
_CHUNK = 16

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_files(
    function: Callable[[Item], Result], items: Sequence[Item], *, num_workers: int, title: str, progress: bool = True
) -> Iterator[Result]:
    """Yield ``function(item)`` for all items, in order.

    Args:
        function: must be picklable, and should catch the errors that it can report.
        items: must be picklable.
        num_workers: number of processes; 1 to work in the calling one.
        title: of the progress bar, which goes to stderr.
        progress: whether to draw the bar.

    Raises:
        ValueError: if ``num_workers`` is below 1.
        BrokenProcessPool: if a process was killed, for instance for its memory.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1; got {num_workers}.")
    with tqdm(total=len(items), desc=title, unit="file", disable=not progress) as bar:
        for result in _results(function, items, num_workers):
            yield result
            bar.update()


def _results(function: Callable[[Item], Result], items: Sequence[Item], num_workers: int) -> Iterator[Result]:
    if num_workers == 1:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(num_workers, initializer=_start_worker) as pool:
        try:
            yield from pool.map(function, items, chunksize=_CHUNK)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _start_worker() -> None:
    # Ctrl-C goes to all processes; the workers leave its handling to the main one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """If the main process is killed, its workers are not notified, and would wait for files forever."""
    multiprocessing.parent_process().join()
    os._exit(1)
