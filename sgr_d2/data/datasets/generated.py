"""Folders of generated data: made once, by the first process, only ever complete, and stamped with their origin."""

import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

STAMP = "generator.json"

logger = logging.getLogger(__name__)


def generate_once(target: Path, wanted: dict, write: Callable[[Path], None]) -> Path:
    """Generate ``target`` unless it exists already, and return it.

    Several processes may call this at once: each writes to its own hidden folder next to the target, and the first to
    finish moves the complete folder into place. The stamp ``generator.json`` is written last.

    Args:
        target: the folder to generate.
        wanted: JSON-serialisable arguments of the generator, including its "version".
        write: creates and fills a folder.

    Raises:
        FileExistsError: if ``target`` was not made by this generator, or with other arguments.
    """
    if _is_ready(target, wanted):
        return target
    logger.info("Generating %s", target)
    target.parent.mkdir(parents=True, exist_ok=True)
    # On the target's file system, so that the rename is atomic; a killed process leaves it behind, harmlessly.
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        folder = Path(scratch) / target.name
        write(folder)
        (folder / STAMP).write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        _publish(folder, target, wanted)
    return target


def _is_ready(target: Path, wanted: dict) -> bool:
    """Whether ``target`` holds what is wanted; a folder of another version is set aside first.

    Raises:
        FileExistsError: if ``target`` exists and must not be replaced.
    """
    found = _read_stamp(target)
    if found is None:
        return False
    for key in wanted.keys() - {"version"}:
        if found.get(key) != wanted[key]:
            raise FileExistsError(
                f"{target / STAMP}: {key} is {found.get(key)}, but {wanted[key]} is wanted. "
                f"Delete or rename the folder {target}, or choose another root."
            )
    if found.get("version") == wanted["version"]:
        return True
    _set_aside(target, target.with_name(f"{target.name}_version_{found.get('version')}"))
    return False


def _read_stamp(target: Path) -> dict | None:
    """Return the stamp of ``target``, or None if there is no such folder."""
    try:
        found = json.loads((target / STAMP).read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
        reason = "is not a table"
    except (OSError, ValueError) as error:
        # Checked after the failed read: another process may have set the folder aside just before.
        if not target.exists():
            return None
        reason = f"cannot be read ({error})"
    raise FileExistsError(
        f"{target} exists, but its {STAMP} {reason}: it is not a complete generated data set. "
        f"Delete or rename that folder; it is then generated again."
    )


def _set_aside(target: Path, aside: Path) -> None:
    logger.warning("%s was made by another version of the generator: renaming it to %s", target, aside)
    try:
        target.rename(aside)
    except FileNotFoundError:
        logger.info("Another process has already renamed %s", target)
    except OSError as error:
        raise FileExistsError(
            f"{target} is of another version and cannot be renamed to {aside} ({error}). Delete one of the two folders."
        ) from error


def _publish(folder: Path, target: Path, wanted: dict) -> None:
    """Move the finished ``folder`` to ``target``, unless another process has already done so."""
    try:
        folder.rename(target)
    except OSError:
        if not _is_ready(target, wanted):
            raise
        logger.info("Another process has generated %s in the meantime", target)
