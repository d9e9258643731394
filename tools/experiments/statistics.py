"""Mean, standard deviation and t-intervals of a few numbers, unpaired and paired by seed.

The interval is for the mean over all possible seeds; it assumes that the seeds are a random sample and the differences
are approximately normal. With two seeds it is wide (t = 12.7), as it has to be.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy.stats import t as student_t

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """
    Attributes:
        n: how many numbers.
        mean: NaN for none.
        sd: standard deviation with n - 1 in the denominator; NaN for fewer than two numbers.
        low, high: the 95 % interval of the mean; NaN for fewer than two numbers.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, standard deviation and interval of ``values``."""
    n = len(values)
    if n == 0:
        return Estimate(0, *[math.nan] * 4)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(1, mean, *[math.nan] * 3)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(student_t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n)
    return Estimate(n, mean, sd, mean - half, mean + half)


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Estimate:
    """Estimate of ``values[seed] - baseline[seed]`` over the seeds that both have."""
    return estimate([values[seed] - baseline[seed] for seed in sorted(values.keys() & baseline.keys())])


def relative_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Estimate:
    """Estimate of ``values[seed]`` relative to ``baseline[seed]``, in percent of it, over the seeds that both have.

    Those at which the baseline is 0 are left out.
    """
    common = sorted(seed for seed in values.keys() & baseline.keys() if baseline[seed])
    return estimate([100 * (values[seed] / baseline[seed] - 1) for seed in common])
