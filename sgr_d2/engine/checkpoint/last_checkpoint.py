"""``last_checkpoint``, the file that names the checkpoint from which a run goes on."""

import logging
import os
from pathlib import Path

from sgr_d2.files import appearing_whole

from .checkpoint_file import read_checkpoint

# Part of the name of a checkpoint while it is being written.
UNFINISHED = ".unfinished"
_TAG = "last_checkpoint"

logger = logging.getLogger(__name__)


def tag(folder: str | Path, name: str) -> None:
    """Let runs in ``folder`` go on from its checkpoint ``name``; at any moment the tag is the former or the new one."""
    with appearing_whole(Path(folder, _TAG)) as temporary:
        temporary.write_text(name, encoding="utf-8")


def find_last(folder: str | Path, *, warn: bool = False) -> str:
    """The path of the checkpoint from which a run in ``folder`` goes on; "" if there is none.

    That is the one which ``last_checkpoint`` names. If that file is empty or names no file, as after a killed job or a
    full disk, it is the newest complete model_*.pth; of these model_best.pth, which may be old, only if it is alone.

    Args:
        folder: OUTPUT_DIR.
        warn: log a warning if it is not the one that is named.
    """
    try:
        name = Path(folder, _TAG).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    path = os.path.join(folder, name)
    if os.path.isfile(path):
        return path
    path = next((str(file) for file in _newest_first(Path(folder)) if _is_complete(file)), "")
    if warn and path:
        logger.warning(
            "%s names no checkpoint (%r): %s, the newest one, is taken. To use another one, write its name there.",
            *(Path(folder, _TAG), name, path),
        )
    return path


def _newest_first(folder: Path) -> list[Path]:
    files = [file for file in folder.glob("model_*.pth") if UNFINISHED not in file.name]
    return sorted(files, key=lambda file: (file.name != "model_best.pth", file.stat().st_mtime_ns, file.name))[::-1]


def _is_complete(file: Path) -> bool:
    """Whether the file can be read and holds the state of a training, without which no run goes on."""
    try:
        return "trainer" in read_checkpoint(file)
    except (OSError, ValueError):
        return False
