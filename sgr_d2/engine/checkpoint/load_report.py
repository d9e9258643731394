"""Reports what happened to the tensors of a checkpoint, for programs and, abbreviated, for the log."""

import logging
import re
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from sgr_d2.modeling.sgr.parts import is_part_of_sgr

MAX_NAMES = 10
# Buffers that a model computes or counts itself.
MADE_ANEW = re.compile(r"\.num_batches_tracked$|\.attn_mask$|\.relative_position_index$")
# Tensors that a file may have although the model does not need them; no cause for concern.
_KNOWN_UNUSED = re.compile(
    r"^criterion\.empty_weight$"  # Mask2Former keeps the class weights of its loss; here they come from the config
    r"|^(module\.)?(stem\.)?(fc|fc1000|linear|head|classifier|norm)\."  # ImageNet classes
    rf"|{MADE_ANEW.pattern}"
    r"|^pixel_(mean|std)$"  # from the config
)


class Skipped(NamedTuple):
    key: str
    in_file: tuple[int, ...]
    in_model: tuple[int, ...]


class LoadReport(NamedTuple):
    """Names of the model's tensors that were ``loaded``, ``skipped`` (for their shape), ``missing`` in the file, or
    ``new`` (of SGR, if the file has nothing of it), and names of the file's tensors that are ``unused``.
    """

    loaded: list[str]
    skipped: list[Skipped]
    missing: list[str]
    new: list[str]
    unused: list[str]

    def __str__(self) -> str:
        text = (
            f"{len(self.loaded)} tensors loaded, {len(self.skipped)} skipped for their shape, "
            f"{len(self.missing)} missing in the file, {len(self.unused)} of the file not used"
        )
        return f"{text}, {len(self.new)} new" if self.new else text

    def log(self, logger: logging.Logger) -> None:
        logger.info("Weights: %s", self)
        for key, in_file, in_model in self.skipped[:MAX_NAMES]:
            logger.warning("Skipped %s: %s in the file, %s in the model", key, in_file, in_model)
        if len(self.skipped) > MAX_NAMES:
            logger.warning("Skipped in all: %s", summary([key for key, *_ in self.skipped]))
        expected = [key for key in self.unused if _KNOWN_UNUSED.search(key)]
        for level, what, keys in (
            (logging.WARNING, "Missing in the file", self.missing),
            (logging.INFO, "New, at their initial values", self.new),
            (logging.INFO, "Not used, as expected", expected),
            (logging.WARNING, "Not used", sorted(set(self.unused) - set(expected))),
        ):
            if keys:
                logger.log(level, "%s: %s", what, summary(keys))


def make_report(own: Collection[str], missing: list[str], skipped: list[Skipped], unused: list[str]) -> LoadReport:
    """
    Args:
        own: keys of the model.
        missing: those of ``own`` for which no tensor was loaded.
        skipped: those of ``missing`` that the file has in another shape.
        unused: keys of the file that the model does not have.
    """
    odd = {entry.key for entry in skipped}
    absent = sorted(set(missing) - odd)
    of_sgr = {key for key in own if is_part_of_sgr(key)}
    in_file = any(is_part_of_sgr(key) for key in unused)
    new = [key for key in absent if key in of_sgr] if of_sgr <= set(absent) and not in_file else []
    return LoadReport(
        loaded=sorted(set(own) - set(absent) - odd),
        skipped=skipped,
        missing=sorted(set(absent) - set(new)),
        new=new,
        unused=sorted(unused),
    )


def summary(names: list[str]) -> str:
    """The names, or if there are more than ten, their longest prefixes of which there are at most ten, with counts."""
    if len(names) <= MAX_NAMES:
        return ", ".join(names)
    groups: Counter = Counter()
    for depth in range(1, max(name.count(".") for name in names) + 1):
        deeper = Counter(_head(name, depth) for name in names)
        if len(deeper) > MAX_NAMES:
            break
        groups = deeper
    if not groups:
        return f"{', '.join(names[:MAX_NAMES])} and {len(names) - MAX_NAMES} more"
    return ", ".join(f"{head} ({count})" if count > 1 else head for head, count in groups.items())


def _head(name: str, depth: int) -> str:
    parts = name.split(".")
    return name if len(parts) <= depth else ".".join(parts[:depth]) + ".*"
