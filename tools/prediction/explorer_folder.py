"""The folder of an explorer: a new one is written separately and replaces the old one when complete."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Subfolder of the explorer while one is being written; what a killed run leaves there can be deleted.
UNFINISHED = ".unfinished"


def check_room(folder: Path, *, overwrite: bool) -> None:
    """Raise FileExistsError if the folder holds other files, or an explorer and ``overwrite`` is False."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / "data/index.js").is_file() and not (folder / UNFINISHED).is_dir():
        raise FileExistsError(f"--output {folder}: the folder holds other files; give a new one.")
    if not overwrite:
        raise FileExistsError(
            f"--output {folder}: an explorer, or an unfinished one, is already there; give --overwrite to replace it."
        )


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield a folder to write to; at the end, its entries replace those of the same names in ``folder``.

    An error in the ``with`` block leaves ``folder`` unchanged.
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
            with suppress(OSError):  # files have been put there in the meantime
                folder.rmdir()
        raise
    for path in sorted(new.iterdir()):
        target = folder / path.name
        if target.exists():
            target.rename(old / path.name)
        path.rename(target)
    shutil.rmtree(work)
