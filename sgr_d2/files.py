"""Text files of users, and files that are either whole or absent."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def read_text(path: Path, key: str) -> str:
    """The text of a UTF-8 file, without the mark that Windows' editors put before it.

    Raises:
        ValueError: it has another encoding; the message begins with ``key``, which names the file.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{key}: {path} is not UTF-8 text ({error}). Save it as UTF-8.") from error


@contextmanager
def appearing_whole(path: Path) -> Iterator[Path]:
    """Yield a path to write to, which becomes ``path`` at the end, or is removed after an error; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, so that no data set lists it; of this process alone, since another run may write the same file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
