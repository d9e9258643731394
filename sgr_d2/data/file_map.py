"""Apply a function to many files, in several processes, with a progress bar."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from tqdm import tqdm

# Files that a process takes at a time.
_CHUNK = 16

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_files(
    function: Callable[[Item], Result], items: Sequence[Item], *, num_workers: int, title: str, progress: bool = True
) -> Iterator[Result]:
    """Yield ``function(item)`` of all items, in their order.

    Args:
        function: pickles; catches what it can report.
        items: pickle, too.
        num_workers: processes; 1 works in the calling one.
        title: of the progress bar, which goes to stderr.
        progress: whether to draw it.

    Raises:
        ValueError: ``num_workers`` is below 1.
        BrokenProcessPool: a process was killed, for instance for its memory.
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
    # Ctrl-C goes to all processes; the workers leave it to the one that can say something about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool whose process is killed tells its workers nothing: they would wait for files for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)
