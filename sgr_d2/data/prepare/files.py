"""Writes files that are either complete or absent, even if the process is killed."""

import filecmp
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from sgr_d2.data.reading import read_image
from sgr_d2.files import appearing_whole


def write_label_png(labels: np.ndarray, path: Path) -> None:
    """Write (H, W) uint8 labels as PNG; the file appears under its name when it is complete."""
    with appearing_whole(path) as temporary, temporary.open("wb") as file:
        Image.fromarray(labels).save(file, format="PNG")


def place_copy(source: Path, target: Path, *, overwrite: bool = False) -> str:
    """Make ``target`` the same image as ``source``: a hard link, or a copy if links do not work.

    Returns:
        "kept" if it was, "written" if there was none, "repaired" for a broken image, "replaced" for another one.

    Raises:
        FileExistsError: if ``target`` is another image and ``overwrite`` is False; a broken image is replaced.
    """
    state = "written"
    if target.exists():
        if os.path.samefile(source, target) or filecmp.cmp(source, target, shallow=False):
            return "kept"
        state = "replaced" if _is_image(target) else "repaired"
        if state == "replaced" and not overwrite:
            raise FileExistsError(f"{target}: exists and is not {source}. --overwrite replaces such files.")
        target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        with appearing_whole(target) as temporary:
            shutil.copyfile(source, temporary)
    return state


def remove_leftovers(folder: Path) -> None:
    """Remove incomplete files that killed processes left in ``folder``; those of running processes stay."""
    for path in folder.glob(".*.tmp"):
        process = path.name.split(".")[-2]
        if process.isdecimal() and not _is_running(int(process)):
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_image(path: Path) -> bool:
    try:
        read_image(path)
    except ValueError:
        return False
    return True
