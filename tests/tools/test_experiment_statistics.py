"""Estimates of tools/experiments, against figures worked out by hand and by another function of scipy."""

import math

import numpy as np
import pytest
from experiments.statistics import estimate, paired_difference
from scipy import stats


def test_three_numbers_by_hand():
    # mean 4, squared deviations 4 + 0 + 4, sd 2; t(0.975, 2) = 4.3027, half width 4.3027 * 2 / sqrt(3)
    figure = estimate([2.0, 4.0, 6.0])
    assert (figure.n, figure.mean, figure.sd) == (3, 4.0, 2.0)
    assert (figure.low, figure.high) == pytest.approx((4 - 4.9683, 4 + 4.9683), abs=1e-4)


def test_two_numbers_have_a_wide_interval():
    figure = estimate([1.0, 2.0])
    assert figure.high - figure.mean == pytest.approx(12.7062 * 0.5, abs=1e-3)


def test_one_number_has_no_spread_and_none_has_no_mean():
    one, none = estimate([3.0]), estimate([])
    assert (one.n, one.mean) == (1, 3.0) and all(map(math.isnan, one[2:]))
    assert none.n == 0 and all(map(math.isnan, none[1:]))


def test_the_paired_difference_uses_common_seeds_only():
    # differences 1, 3, 2 of the seeds 0, 1, 4
    figure = paired_difference({0: 11.0, 1: 23.0, 2: 99.0, 4: 7.0}, {4: 5.0, 0: 10.0, 1: 20.0, 3: -50.0})
    assert (figure.n, figure.mean, figure.sd) == (3, 2.0, 1.0)
    assert paired_difference({0: 1.0}, {1: 1.0}).n == 0


def test_interval_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(60, 1, 7), rng.normal(59, 1, 7)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    figure = paired_difference(dict(enumerate(a.tolist())), dict(enumerate(b.tolist())))
    assert (figure.low, figure.high) == pytest.approx((expected.low, expected.high))
    # a common shift of a pair (an easy seed) changes nothing
    shift = rng.normal(0, 10, 7)
    moved = paired_difference(dict(enumerate((a + shift).tolist())), dict(enumerate((b + shift).tolist())))
    assert moved == pytest.approx(figure)


def test_the_interval_covers_the_mean_19_times_of_20():
    rng = np.random.default_rng(1)
    samples = rng.normal(5.0, 2.0, (2000, 3))
    covered = [figure.low <= 5.0 <= figure.high for figure in (estimate(row.tolist()) for row in samples)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)
