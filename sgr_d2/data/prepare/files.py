"""Write files that are either whole or absent, also after a kill."""

import filecmp
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from sgr_d2.data.reading import read_image


def write_label_png(labels: np.ndarray, path: Path) -> None:
    """Write (H, W) uint8 labels as PNG; the file appears under its name when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _appearing_whole(path) as temporary, temporary.open("wb") as file:
        Image.fromarray(labels).save(file, format="PNG")


def place_copy(source: Path, target: Path, *, overwrite: bool = False) -> bool:
    """Make ``target`` the same image as ``source``: a hard link, or a copy where links do not work.

    Returns:
        Whether anything had to be done.

    Raises:
        FileExistsError: ``target`` is another image and ``overwrite`` is not set; a broken one is replaced.
    """
    if target.exists():
        if os.path.samefile(source, target) or filecmp.cmp(source, target, shallow=False):
            return False
        if not overwrite and _is_image(target):
            raise FileExistsError(f"{target}: exists and is not {source}. --overwrite replaces such files.")
        target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        with _appearing_whole(target) as temporary:
            shutil.copyfile(source, temporary)
    return True


def _is_image(path: Path) -> bool:
    try:
        read_image(path)
    except ValueError:
        return False
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
