"""Reading text files of users, and writing files that are either complete or absent."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def read_text(path: Path, key: str) -> str:
    """Return the text of a UTF-8 file, without the byte order mark that Windows editors add.

    Raises:
        ValueError: if it has another encoding; the message begins with ``key``, the config key that names the file.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{key}: {path} is not UTF-8 text ({error}). Save it as UTF-8.") from error


def walk_files(folder: str | os.PathLike) -> Iterator[Path]:
    """Yield all files below a folder that are not hidden, sorted; follows links to folders, but not in circles."""
    start = Path(folder).resolve()
    above = {os.fspath(folder): {start, *start.parents}}  # where each folder to come is, by its path and by links
    for parent, folders, files in os.walk(folder, followlinks=True):
        behind, ahead = above.pop(parent), []
        for name in sorted(name for name in folders if not name.startswith(".")):
            target = Path(parent, name).resolve()
            if target not in behind:
                above[os.path.join(parent, name)] = behind | {target, *target.parents}
                ahead.append(name)
        folders[:] = ahead
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


@contextmanager
def appearing_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to ``path`` at the end, or removed after an error; creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, so that no data set lists it; unique to this process, since another run may write the same file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(data: Any, path: Path, **options: Any) -> None:
    """Write a JSON file that is either complete or absent, with a final line break; creates the folder.

    Args:
        options: of `json.dumps`: indent, allow_nan, ensure_ascii.

    Raises:
        ValueError, TypeError: if JSON has no such value, or NaN with ``allow_nan=False``; then nothing is written.
    """
    text = json.dumps(data, **options) + "\n"
    with appearing_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
