"""A sum of floats that does not depend on the order of its terms.

Floating-point addition rounds, so the mean over a test set would differ in its last bits with the way images are
shared out over processes. Every finite double is a whole number of 2**-1074; summing these whole numbers is exact.
"""

import math

# The exponent of the smallest positive double: 2**-1074.
_UNIT_BITS = 1074
_ONE = 1 << _UNIT_BITS


class ExactSum:
    """Exact, order-free, mergeable sum of finite floats. Its size does not grow with their number; it pickles.

    Attributes:
        count: number of values added.
    """

    def __init__(self) -> None:
        self.count = 0
        self._units = 0  # the sum, in multiples of 2**-1074

    def add(self, value: float) -> None:
        """Add one value. Raises ValueError when it is not finite."""
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
        """The mean, correctly rounded; NaN when nothing was added."""
        # True division of two Python integers is correctly rounded, however long they are.
        return self._units / (self.count * _ONE) if self.count else math.nan
