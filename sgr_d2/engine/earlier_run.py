"""A folder that holds an earlier run: its files are moved aside, not overwritten."""

from itertools import count
from pathlib import Path

# Without one of these there is nothing to lose.
_SIGNS = ("last_checkpoint", "metrics.json")
_FILES = (*_SIGNS, "model_*", "config.yaml", "log.txt*", "events.out.tfevents.*", "curves.png", "evaluation")


def set_aside(folder: str | Path) -> Path | None:
    """Move what an earlier run has written into ``folder`` to its subfolder earlier_1, earlier_2, ...

    Returns:
        The subfolder; None if there was no run.
    """
    folder = Path(folder)
    if not any((folder / sign).is_file() for sign in _SIGNS):
        return None
    target = next(path for number in count(1) if not (path := folder / f"earlier_{number}").exists())
    target.mkdir()
    for path in [path for pattern in _FILES for path in folder.glob(pattern)]:
        path.rename(target / path.name)
    return target
