"""Output folders in use: the files of an earlier run are moved aside, a run in progress is left alone."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO

from sgr_d2.files import appearing_whole

from .checkpoint.checkpoint_file import local_file
from .checkpoint.last_checkpoint import find_last

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)

# If none of these exists, there is nothing to lose.
_SIGNS = ("last_checkpoint", "metrics.json")
_FILES = (*_SIGNS, "model_*", "config.yaml", "log.txt*", "events.out.tfevents.*", "curves.png", "evaluation")

# Where this process has moved earlier runs to, by folder.
_aside: dict[Path, Path] = {}
# The locks that this process holds, by folder; they are released when it ends, however it ends.
_locks: dict[Path, IO] = {}


def claim(folder: Path) -> None:
    """Reserve ``folder`` for this process, until `release` or its end; no effect on disks without locks and on Windows.

    Raises:
        ValueError: if another process has claimed it, or it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"OUTPUT_DIR = {folder}: the folder cannot be created ({error}). Give another one.") from error
    folder = folder.resolve()
    if fcntl is None or folder in _locks:
        return
    lock = (folder / ".lock").open("a")
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        lock.close()
        raise ValueError(
            f"OUTPUT_DIR = {folder}: another training is running there. Give this one another OUTPUT_DIR, or wait."
        ) from error
    except OSError:  # a disk without locks
        lock.close()
        return
    _locks[folder] = lock


def release(folder: Path) -> None:
    """Release the folder if `claim` has reserved it."""
    lock = _locks.pop(folder.resolve(), None)
    if lock is not None:
        lock.close()


def holds_run(folder: Path) -> bool:
    """Whether a training has written into ``folder``."""
    return any((folder / sign).is_file() and (folder / sign).stat().st_size > 0 for sign in _SIGNS)


def set_aside(folder: Path, *, needed: str = "") -> Path | None:
    """Move what an earlier run has written into ``folder`` to its subfolder earlier_1, earlier_2, ...

    Args:
        folder: OUTPUT_DIR.
        needed: MODEL.WEIGHTS, which must not be one of these files.

    Returns:
        The subfolder; None if there was no run.

    Raises:
        ValueError: if ``needed`` is one of these files.
    """
    if not holds_run(folder):
        return None
    files = sorted({path for pattern in _FILES for path in folder.glob(pattern)})
    if needed and local_file(needed).resolve() in {path.resolve() for path in files}:
        raise ValueError(
            f"MODEL.WEIGHTS = {needed} is a file of the run in OUTPUT_DIR = {folder}, which a new run would replace. "
            "Give the new run another OUTPUT_DIR, or continue the old one with --resume."
        )
    target = next(path for number in count(1) if not (path := folder / f"earlier_{number}").exists())
    target.mkdir()
    for path in files:
        path.rename(target / path.name)
    _aside[folder.resolve()] = target
    return target


def put_back(folder: Path) -> None:
    """Undo what `set_aside` did in this process, if the new run has not trained anything.

    So a command that fails early leaves a finished run where it was; only the log of the failed one is lost.
    """
    target = _aside.pop(folder.resolve(), None)
    if target is None or _has_trained(folder):
        return
    for path in target.iterdir():
        path.replace(folder / path.name)
    target.rmdir()
    logger.warning("Nothing was trained: the earlier run is back in %s.", folder)


def _has_trained(folder: Path) -> bool:
    """Whether there is a checkpoint, or a line of losses."""
    figures = folder / "metrics.json"
    written = figures.is_file() and "total_loss" in figures.read_text(encoding="utf-8")
    return written or (folder / "last_checkpoint").is_file()


def check_resume(folder: Path) -> str:
    """A warning if there is no run to resume, or ""; raise ValueError if one was moved aside, which may be meant."""
    numbers = {path.parent.name.removeprefix("earlier_") for path in folder.glob("earlier_*/last_checkpoint")}
    earlier = [int(number) for number in numbers if number.isdecimal()]
    found = find_last(folder)
    if earlier and not found:
        last = folder / f"earlier_{max(earlier)}"
        raise ValueError(
            f"--resume: OUTPUT_DIR = {folder} holds no checkpoint, but {last} does: move its files back "
            "to continue that run, or leave out --resume to start a new one."
        )
    if found:
        return ""
    # no error: jobs that a cluster restarts always use --resume
    return f"--resume: OUTPUT_DIR = {folder} holds no checkpoint to resume from: starting a new run."


@contextmanager
def keeping_config(folder: str) -> Iterator[None]:
    """Restore the config.yaml of a training run after the ``with`` block, whatever is written there meanwhile."""
    path = Path(folder) / "config.yaml"
    kept = path.read_bytes() if holds_run(Path(folder)) and path.is_file() else None
    try:
        yield
    finally:
        if kept is not None:
            with appearing_whole(path) as temporary:
                temporary.write_bytes(kept)
            logger.info("%s keeps the settings of the training.", path)  # Detectron2 has just said that it was written
