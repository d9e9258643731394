"""Write files that are either whole or absent, also after a kill."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image


def write_label_png(labels: np.ndarray, path: Path) -> None:
    """Write (H, W) uint8 labels as PNG; the file appears under its name when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _appearing_whole(path) as temporary, temporary.open("wb") as file:
        Image.fromarray(labels).save(file, format="PNG")


def place_copy(source: Path, target: Path) -> bool:
    """Make ``target`` the same file as ``source``: a hard link, or a copy where links do not work.

    Returns:
        Whether anything had to be done.
    """
    if target.exists():
        if os.path.samefile(source, target) or source.stat().st_size == target.stat().st_size:
            return False
        target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        with _appearing_whole(target) as temporary:
            shutil.copyfile(source, temporary)
    return True


@contextmanager
def _appearing_whole(path: Path) -> Iterator[Path]:
    """Yield a path to write to, which becomes ``path`` at the end, or is removed after an error."""
    # Hidden, so that no data set lists it; always the same name, so that the next run overwrites what a kill left.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
