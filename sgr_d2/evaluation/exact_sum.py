"""A sum of floats that does not depend on the order of its terms.

Floating-point addition rounds, so the last bits of a mean over a test set would depend on how images are distributed
over processes. Every finite double is a multiple of 2**-1074, and summing these integer multiples is exact.
"""

import math

# The exponent of the smallest positive double: 2**-1074.
_UNIT_BITS = 1074
_ONE = 1 << _UNIT_BITS


class ExactSum:
    """Exact, order-independent, mergeable sum of finite floats, of bounded size. Can be pickled.

    Attributes:
        count: number of values added.
    """

    def __init__(self) -> None:
        self.count = 0
        self._units = 0  # the sum, in multiples of 2**-1074

    def add(self, value: float) -> None:
        """Add one value. Raises ValueError if it is not finite."""
        value = float(value)
        if not math.isfinite(value):
            raise ValueError(f"an exact sum takes finite values only, got {value}")
        numerator, denominator = value.as_integer_ratio()  # the denominator is a power of two, at most 2**1074
        self._units += numerator * (_ONE // denominator)
        self.count += 1

    def merge(self, other: "ExactSum") -> None:
        """Add all values of another sum."""
        self._units += other._units
        self.count += other.count

    def total(self) -> float:
        """The sum, correctly rounded."""
        return self._units / _ONE

    def mean(self) -> float:
        """The mean, correctly rounded; NaN if nothing was added."""
        # True division of two Python integers is correctly rounded, however long they are.
        return self._units / (self.count * _ONE) if self.count else math.nan
