"""``model_best.json``: of what value and iteration model_best.pth is, and of which it was before."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sgr_d2.files import write_json

logger = logging.getLogger(__name__)


class Best(NamedTuple):
    """A value of the metric that no earlier one had reached."""

    value: float
    iteration: int


def read_bests(path: Path, metric: str) -> list[Best]:
    """All that the record holds, the latest first; nothing if there is none, it is of another metric or unreadable.

    An unreadable one is logged: training matters more than which of its checkpoints is the best.
    """
    if not path.is_file():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = [content, *content.get("earlier", [])]  # older records have the latest alone
        bests = [Best(float(entry["value"]), int(entry["iteration"])) for entry in entries]
        return bests if content["metric"] == metric else []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning(
            "%s cannot be read (%s: %s): the next evaluation counts as the best so far. Remove it if it is not a "
            "record of this run.",
            *(path, type(error).__name__, error),
        )
        return []


def write_bests(path: Path, metric: str, bests: Sequence[Best]) -> None:
    """Write the record of one or more values, the latest first."""
    latest, *earlier = (best._asdict() for best in bests)
    write_json({"metric": metric, **latest, "earlier": earlier}, path)
