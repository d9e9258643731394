"""Finds mistakes that no single file shows: shifted labels, a wrong ignore value, masks instead of classes, images
trained and tested at different scales. Ours.
"""

from collections.abc import Sequence
from statistics import median

import numpy as np

from sgr_d2.data.check import DatasetCheck
from sgr_d2.data.label_values import OF_A_MASK, one_wrong_value
from sgr_d2.data.reading import DARK, FEW_BITS
from sgr_d2.messages import first_few

# Above this fraction of all pixels, a value is suspected not to be a class, or not to mean "not labelled".
LARGE_SHARE = 0.5
# By this factor images may be larger or smaller in evaluation than in training without a hint.
SCALE_SLACK = 1.25


def suspicions(check: DatasetCheck, classes: Sequence[str]) -> list[str]:
    """Return sentences on what looks wrong with the labels as a whole; empty if nothing does.

    Args:
        check: the counts of the data set.
        classes: C names.
    """
    labelled = int(check.pixels.sum())
    if not labelled and not check.wrong:
        return ["No pixel is labelled at all."] if check.ignored else []
    return [text for rule in _RULES if (text := rule(check, classes))]


def far_apart(train_edges: Sequence[int], tested: int) -> bool:
    """Whether the shorter edge of an image in evaluation or prediction is well outside those of the training.

    Args:
        train_edges: INPUT.MIN_SIZE_TRAIN, pixels; if empty, or if 0 is among them (the size of the file), nothing is
            known, and the result False.
        tested: pixels.
    """
    if not train_edges or min(train_edges) <= 0:
        return False
    return not min(train_edges) / SCALE_SLACK <= tested <= max(train_edges) * SCALE_SLACK


def _offset(check: DatasetCheck, classes: Sequence[str]) -> str:
    count, ignore = check.rules.num_classes, check.rules.ignore_label
    used = check.pixels > 0
    if set(check.wrong) == {count}:
        remedy = one_wrong_value(count, count, ignore, has_zero=bool(used[0]))
        if not used[0]:
            return f"Labels look shifted by one: 0 never occurs and {count} does. {remedy}"
        if not check.ignored:
            return (
                f"{count} occurs, one beyond the last class, and the ignore label {ignore} never does. {remedy} For "
                "published data sets, the scripts datasets/prepare_*.py do this."
            )
    if count < 3 or used.sum() < (count + 1) // 2:  # too few classes occur for a missing one to stand out
        return ""
    if not used[0] and used[1:].all():
        return f"Labels look shifted by one: class 0 ({classes[0]}) never occurs, and all others do."
    if not used[-1] and used[:-1].all():
        return (
            f"Labels may be shifted by one: the last class ({classes[-1]}) never occurs, and all others do. Was 1 "
            "subtracted twice?"
        )
    return ""


def _ignore_value(check: DatasetCheck, classes: Sequence[str]) -> str:
    if len(check.wrong) != 1 or check.ignored:
        return ""
    (value,) = check.wrong
    if value == 255 and not check.pixels[1:].any():
        return f"The labels are only 0 and 255, as in masks. {OF_A_MASK}"
    count, ignore = check.rules.num_classes, check.rules.ignore_label
    if value == count:
        return ""
    remedy = one_wrong_value(value, count, ignore, has_zero=bool(check.pixels[0]))
    return f"The only value that is not a class is {value}, and the ignore label {ignore} never occurs. {remedy}"


def _background(check: DatasetCheck, classes: Sequence[str]) -> str:
    share = check.pixels[0] / max(1, check.pixels.sum())
    if check.ignored or share <= LARGE_SHARE or (check.pixels > 0).sum() < 2:
        return ""
    return (
        f"Label 0 ({classes[0]}) covers {100 * share:.0f} % of the pixels and the ignore label "
        f"{check.rules.ignore_label} never occurs. If 0 means 'not labelled' or background here, it is learned as a "
        "class."
    )


def _one_class(check: DatasetCheck, classes: Sequence[str]) -> str:
    used = np.flatnonzero(check.pixels)
    if len(used) != 1 or check.wrong:
        return ""
    text = f"Only one class occurs: {classes[used[0]]} ({used[0]})."
    if check.ignored and used[0] == 0:
        text += (
            f" Files of 0 and {check.rules.ignore_label} look like masks, and {check.rules.ignore_label} is ignored."
        )
        text += f" {OF_A_MASK}" if check.rules.ignore_label == 255 else ""
    return f"{text} Any model scores 100 % on it."


def _palette(check: DatasetCheck, classes: Sequence[str]) -> str:
    for value, colors in sorted(check.palette.items()):
        if len(colors) > 1:
            (one, first), (other, second) = sorted(colors.items())[:2]
            return (
                f"{value} is shown as {list(one)} in {first} and as {list(other)} in {second}, by the palettes of the "
                "files. If the colours are what counts, map them: LABEL_MAP: [[[R, G, B], label], ...] in "
                "DATASETS.FOLDERS."
            )
    return ""


def _mostly_ignored(check: DatasetCheck, classes: Sequence[str]) -> str:
    if not check.unlabelled_share > LARGE_SHARE:
        return ""
    return (
        f"{100 * check.unlabelled_share:.0f} % of the pixels have the ignore label {check.rules.ignore_label} and are "
        "left out of training and evaluation. Is a class stored under that value?"
    )


def _dark(check: DatasetCheck, classes: Sequence[str]) -> str:
    if not 0 < check.brightest < DARK:
        return ""
    return f"All images are almost black: the largest value is {check.brightest} of 255. {FEW_BITS}"


def _scale(check: DatasetCheck, classes: Sequence[str]) -> str:
    rules = check.rules
    if not check.shorter_edges:
        return ""
    middle = round(median(check.shorter_edges))
    tested = rules.test_edge or middle
    if not far_apart(rules.train_edges, tested):
        return ""
    return (
        f"Training scales the shorter edge of the images ({middle} pixels in the median) to {min(rules.train_edges)} "
        f"to {max(rules.train_edges)} (INPUT.MIN_SIZE_TRAIN); evaluation and prediction see {tested} "
        f"(INPUT.MIN_SIZE_TEST {rules.test_edge}). A "
        "model is worse at other scales than those of its training: adapt one to the other, and INPUT.CROP.SIZE, too."
    )


def _turned(check: DatasetCheck, classes: Sequence[str]) -> str:
    if not check.turned:
        return ""
    return (
        f"{len(check.turned)} images are turned upright by their EXIF orientation, and their labels have none: "
        f"{first_few(check.turned, 3)}. Make sure that these labels are those of the upright images."
    )


_RULES = (_offset, _ignore_value, _background, _one_class, _palette, _mostly_ignored, _dark, _scale, _turned)
