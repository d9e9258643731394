"""The folder of an explorer: a new one is written beside the old one and takes its place when it is complete."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Below the explorer's folder while one is written; what a killed run leaves there is worth nothing.
UNFINISHED = ".unfinished"


def check_room(folder: Path, *, overwrite: bool) -> None:
    """Raise FileExistsError if the folder holds an explorer and ``overwrite`` is not given, or something else."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / "data/index.js").is_file() and not (folder / UNFINISHED).is_dir():
        raise FileExistsError(f"--output {folder}: the folder holds other files; give a new one.")
    if not overwrite:
        raise FileExistsError(
            f"--output {folder}: there is an explorer already, or an unfinished one; give --overwrite to replace it."
        )


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield a folder to write into; what is in it replaces ``folder``'s entries of the same names at the end.

    An error in the block leaves ``folder`` as it was.
    """
    existed, work = folder.exists(), folder / UNFINISHED
    shutil.rmtree(work, ignore_errors=True)
    new, old = work / "new", work / "old"
    new.mkdir(parents=True)
    old.mkdir()
    try:
        yield new
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        if not existed:
            with suppress(OSError):  # somebody has put files there meanwhile
                folder.rmdir()
        raise
    for path in sorted(new.iterdir()):
        target = folder / path.name
        if target.exists():
            target.rename(old / path.name)
        path.rename(target)
    shutil.rmtree(work)
