import itertools
import math
import pickle
import random
from fractions import Fraction

import pytest

from sgr_d2.evaluation import ExactSum


def total_of(values):
    total = ExactSum()
    for value in values:
        total.add(value)
    return total


def test_mean_is_exact_where_float_sums_are_not():
    values = [1e16, 1.0, -1e16, 1.0]
    assert sum(values) == 1.0  # float addition has lost one of the ones
    assert total_of(values).mean() == 0.5


def test_every_order_gives_the_same_bits():
    values = [0.1, 1e-300, 3e5, 5e-324, 0.7, -0.3]
    means = {total_of(order).mean() for order in itertools.permutations(values)}
    assert means == {float(sum(map(Fraction, values)) / len(values))}


def test_merge_equals_one_sum_for_any_split():
    rng = random.Random(0)
    values = [rng.random() * 10.0 ** rng.randint(-12, 3) for _ in range(101)]
    for split in (0, 1, 50, 101):
        left, right = total_of(values[:split]), total_of(values[split:])
        right.merge(pickle.loads(pickle.dumps(left)))
        assert right.count == 101
        assert right.mean() == total_of(values).mean()


def test_extremes_of_double_precision():
    assert total_of([5e-324]).mean() == 5e-324
    assert total_of([1.7e308, 1.7e308]).mean() == 1.7e308
    assert total_of([-0.0]).mean() == 0.0
    both = pickle.loads(pickle.dumps(total_of([5e-324, 1.7e308])))  # the widest there are
    both.add(-1.7e308)
    assert both.total() == 5e-324


def test_empty_mean_is_nan():
    assert math.isnan(ExactSum().mean())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="finite"):
        ExactSum().add(value)
