"""Chooses a fraction of the training images, for learning curves."""

import math
from typing import Any

import numpy as np

Record = dict[str, Any]
# Makes this permutation independent of others drawn from the same seed.
STREAM = 0x5CB5E7


def choose_fraction(records: list[Record], fraction: float, seed: int) -> list[Record]:
    """Return ``ceil(fraction * len(records))`` random records, in their original order; ours.

    With the same seed, a smaller fraction is a subset of a larger one, so a learning curve only adds images.

    Args:
        records: of a data set.
        fraction: in (0, 1]; 1 returns all.
        seed: of the choice, not negative.

    Raises:
        ValueError: if the fraction is out of range.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"DATASETS.TRAIN_FRACTION = {fraction}: must be above 0 and at most 1.")
    if fraction == 1:
        return records
    # 0.07 * 100 is slightly above 7 in floating point; that must not add an image.
    count = math.ceil(round(fraction * len(records), 9))
    chosen = np.random.default_rng([seed, STREAM]).permutation(len(records))[:count]
    return [records[index] for index in sorted(chosen.tolist())]
