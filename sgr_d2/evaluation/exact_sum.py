"""A sum of floats that does not depend on the order of its terms.

Floating-point addition rounds, so the last bits of a mean over a test set would depend on how images are distributed
over processes. Sums of fractions are exact.
"""

import math
from fractions import Fraction


class ExactSum:
    """Exact, order-independent, mergeable sum of finite floats, of bounded size. Can be pickled.

    Attributes:
        count: number of values added.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum = Fraction(0)  # its denominator is a power of two, at most 2**1074

    def add(self, value: float) -> None:
        """Add one value. Raises ValueError if it is not finite."""
        value = float(value)
        if not math.isfinite(value):
            raise ValueError(f"an exact sum takes finite values only, got {value}")
        self._sum += Fraction(value)
        self.count += 1

    def merge(self, other: "ExactSum") -> None:
        """Add all values of another sum."""
        self._sum += other._sum
        self.count += other.count

    def total(self) -> float:
        """The sum, correctly rounded."""
        return float(self._sum)

    def mean(self) -> float:
        """The mean, correctly rounded; NaN if nothing was added."""
        return float(self._sum / self.count) if self.count else math.nan
