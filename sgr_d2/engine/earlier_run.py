"""A folder that holds an earlier run: its files are moved aside, not overwritten."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

# Without one of these there is nothing to lose.
_SIGNS = ("last_checkpoint", "metrics.json")
_FILES = (*_SIGNS, "model_*", "config.yaml", "log.txt*", "events.out.tfevents.*", "curves.png", "evaluation")


def holds_run(folder: Path) -> bool:
    """Whether a training has written into ``folder``."""
    return any((folder / sign).is_file() for sign in _SIGNS)


def set_aside(folder: Path, *, needed: str = "") -> Path | None:
    """Move what an earlier run has written into ``folder`` to its subfolder earlier_1, earlier_2, ...

    Args:
        folder: OUTPUT_DIR.
        needed: MODEL.WEIGHTS, which must not be among these files.

    Returns:
        The subfolder; None if there was no run.

    Raises:
        ValueError: if it is.
    """
    if not holds_run(folder):
        return None
    files = sorted({path for pattern in _FILES for path in folder.glob(pattern)})
    if needed and Path(needed).resolve() in {path.resolve() for path in files}:
        raise ValueError(
            f"MODEL.WEIGHTS = {needed} is a file of the run in OUTPUT_DIR = {folder}, which a new run would replace. "
            "Give the new run another OUTPUT_DIR, or go on with the old one by --resume."
        )
    target = next(path for number in count(1) if not (path := folder / f"earlier_{number}").exists())
    target.mkdir()
    for path in files:
        path.rename(target / path.name)
    return target


def check_resume(folder: Path) -> None:
    """Raise ValueError if there is no run to go on with, but one was moved aside: it may be the one that is meant."""
    numbers = {path.parent.name.removeprefix("earlier_") for path in folder.glob("earlier_*/last_checkpoint")}
    earlier = [int(number) for number in numbers if number.isdecimal()]
    if earlier and not (folder / "last_checkpoint").is_file():
        last = folder / f"earlier_{max(earlier)}"
        raise ValueError(
            f"--resume: OUTPUT_DIR = {folder} holds no checkpoint, but {last} does: move its files back "
            "to go on with it, or leave out --resume to start anew."
        )


@contextmanager
def keeping_config(folder: str) -> Iterator[None]:
    """Leave the config.yaml of a training as it is, whatever is written there meanwhile."""
    path = Path(folder) / "config.yaml"
    kept = path.read_bytes() if holds_run(Path(folder)) and path.is_file() else None
    yield
    if kept is not None:
        path.write_bytes(kept)
