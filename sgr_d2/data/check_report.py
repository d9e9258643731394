"""Reports the check of a data set as text and as JSON."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from sgr_d2.data.check import KINDS, DatasetCheck
from sgr_d2.data.check_hints import suspicions
from sgr_d2.messages import first_few

# Number of messages of one kind that are printed; the JSON has all of them.
SHOWN = 20
# What comes before a path in a message, the path, and the rest.
_OF_A_FILE = re.compile(
    r"(Label|Image|(?:Cannot read|No) (?:label|image) file) "
    r"(.+?\.(?:png|jpe?g|tiff?|bmp|webp|p[bgp]m|gif))([ :.].+)",
    re.DOTALL | re.IGNORECASE,
)


def format_check(check: DatasetCheck, name: str, classes: Sequence[str]) -> str:
    """Return the report as text: errors, suspicions, classes, components."""
    rules = check.rules
    lines = [f"{name}: {check.num_pairs} images, {rules.num_classes} classes, ignore label {rules.ignore_label}"]
    lines += [*_errors(check), *(f"suspicious: {text}" for text in suspicions(check, classes))]
    lines += ["", _class_table(check, classes), "", *_labelled(check), *_components(check)]
    return "\n".join(lines)


def check_to_json(check: DatasetCheck, name: str, classes: Sequence[str]) -> dict[str, Any]:
    """Return everything as a JSON-serialisable dict."""
    share = check.unlabelled_share
    return {
        "dataset": name,
        "num_images": check.num_pairs,
        "ignore_label": check.rules.ignore_label,
        "min_area": check.rules.limits.min_area,
        "max_components": check.rules.limits.max_components,
        "errors": check.errors,
        "wrong_values": {str(value): images for value, images in sorted(check.wrong.items())},
        "suspicions": suspicions(check, classes),
        "unlabelled_share": None if math.isnan(share) else share,
        "unlabelled_images": check.unlabelled_images,
        "classes": [
            {"name": name, "pixels": int(pixels), "images": int(images)}
            for name, pixels, images in zip(classes, check.pixels, check.images, strict=True)
        ],
        "components_kept_small_cut": check.components,
    }


def _errors(check: DatasetCheck) -> list[str]:
    if not check.errors:
        return ["no errors"]
    lines = []
    for kind in KINDS:
        messages = check.errors.get(kind, [])
        if messages:
            lines.append(f"error: {kind}, {len(messages)} times:")
            alike = _alike(messages)
            lines += [f"  {line}" for line in alike[:SHOWN]]
            if len(alike) > SHOWN:
                lines.append(f"  ... and {len(alike) - SHOWN} more")
    if check.wrong:
        values = first_few([f"{value} in {images}" for value, images in sorted(check.wrong.items())], SHOWN)
        lines.append(f"values out of range, with the number of images: {values}")
    return lines


def _alike(messages: Sequence[str]) -> list[str]:
    """Messages that differ in their file alone become one, followed by the other files."""
    files: dict[tuple[str, str], list[str]] = {}
    for number, message in enumerate(messages):
        found = _OF_A_FILE.match(message)
        what, path, rest = found.groups() if found else (message, "", str(number))
        files.setdefault((what, rest), []).append(path)
    lines = []
    for (what, rest), paths in files.items():
        more = first_few([Path(path).name for path in paths[1:]])
        same = f" The same in {len(paths) - 1} more: {more}." if more else ""
        lines.append(f"{what} {paths[0]}{rest}{same}" if paths[0] else what)
    return lines


def _class_table(check: DatasetCheck, classes: Sequence[str]) -> str:
    total = max(1, check.pixels.sum())
    rows = [
        [index, name, f"{100 * pixels / total:.3f} %", images]
        for index, (name, pixels, images) in enumerate(zip(classes, check.pixels, check.images, strict=True))
    ]
    return tabulate(rows, headers=["label", "class", "of labelled pixels", "images"])


def _labelled(check: DatasetCheck) -> list[str]:
    share = check.unlabelled_share
    lines = [] if math.isnan(share) else [f"not labelled: {100 * share:.2f} % of the pixels"]
    if check.unlabelled_images:
        lines.append(f"{check.unlabelled_images} images have no labelled pixel, the first {check.first_unlabelled}")
    absent = int(np.count_nonzero(check.pixels == 0))
    if absent:
        lines.append(f"{absent} of {len(check.pixels)} classes never occur")
    return lines


def _components(check: DatasetCheck) -> list[str]:
    if not check.components:
        return []
    kept, small, cut = np.array(check.components).T
    low, median, high = np.percentile(kept, (5, 50, 95))
    every = max(1, int((kept + small + cut).sum()))
    return [
        f"components per image, at full size: {median:.0f} in the median, {low:.0f} to {high:.0f} in nine of ten "
        f"images, at most {kept.max()}; {np.count_nonzero(kept == 0)} images have none",
        f"left out: {small.sum()} ({100 * small.sum() / every:.1f} %) below MIN_AREA {check.rules.limits.min_area}; "
        f"{cut.sum()} in {np.count_nonzero(cut)} images beyond MAX_COMPONENTS {check.rules.limits.max_components}",
    ]
