import itertools
import math
import pickle

import numpy as np
import pytest

from sgr_d2.evaluation import TokenSemantics, TokenSemanticsMeter, token_semantics

NAN = math.nan


def random_results(count, seed=0):
    rng = np.random.default_rng(seed)
    results = []
    for _ in range(count):
        regions = rng.random((4, 3, 3), dtype=np.float32)
        classes = token_semantics(regions, rng.integers(0, 3, (9, 10)))
        components = token_semantics(regions, rng.integers(0, 7, (9, 10)), ignore_label=0)
        results.append((classes, components))
    return results


def meter_of(results):
    meter = TokenSemanticsMeter()
    for result in results:
        meter.update(*result)
    return meter


def merged(meters):
    total = TokenSemanticsMeter()
    for meter in meters:
        total.merge(pickle.loads(pickle.dumps(meter)))
    return total


def test_mean_over_images_by_hand():
    meter = TokenSemanticsMeter()
    one = TokenSemantics(S=0.5, D=1.0, I=0.5, label_entropy=2.0, num_active=1, num_tokens=4, overlap=0.25)
    two = TokenSemantics(S=0.25, D=2.0, I=1.75, label_entropy=1.0, num_active=4, num_tokens=4, overlap=0.5)
    meter.update(one, two)
    meter.update(two, two)
    figures = meter.compute()
    assert (figures["S_C"], figures["D_C"], figures["I_C"]) == (0.375, 1.5, 1.125)
    assert (figures["S_I"], figures["D_I"], figures["I_I"]) == (0.25, 2.0, 1.75)
    # The mean of the ratios, not the ratio of the means.
    assert figures["S_C_normalized"] == (0.25 + 0.25) / 2
    assert figures["D_C_normalized"] == (0.5 + 2.0) / 2
    assert figures["active_rate"] == (0.25 + 1.0) / 2
    assert figures["overlap"] == (0.25 + 0.5) / 2
    assert figures["num_images"] == 2


def test_images_that_do_not_enter_are_counted():
    meter = TokenSemanticsMeter()
    good = TokenSemantics(0.5, 1.0, 0.5, 2.0, 2, 4, 0.125)
    meter.update(good, good)
    meter.update(TokenSemantics(NAN, NAN, NAN, NAN, 0, 4), good)  # nothing labelled
    meter.update(TokenSemantics(NAN, NAN, NAN, 1.0, 0, 4), good)  # no active token
    meter.update(TokenSemantics(0.0, 0.0, 0.0, 0.0, 4, 4, 0.375), good)  # one class
    figures = meter.compute()
    assert figures["S_C"] == 0.25 and figures["S_C_normalized"] == 0.25
    assert figures["active_rate"] == pytest.approx((0.5 + 0.0 + 1.0) / 3)
    assert (figures["num_unlabelled_C"], figures["num_inactive_C"], figures["num_single_label_C"]) == (1, 1, 1)
    assert (figures["num_unlabelled_I"], figures["num_inactive_I"], figures["num_single_label_I"]) == (0, 0, 0)
    assert figures["S_I"] == 0.5 and figures["num_images"] == 4
    assert figures["overlap"] == 0.25


def test_a_rare_second_label_is_enough_for_the_normalized_means():
    meter = TokenSemanticsMeter()
    meter.update(TokenSemantics(S=1e-4, D=2e-4, I=1e-4, label_entropy=1e-3, num_active=1, num_tokens=1))
    figures = meter.compute()
    assert (figures["S_C_normalized"], figures["num_single_label_C"]) == (0.1, 0)


def test_empty_meter_and_missing_components_give_nan():
    assert math.isnan(TokenSemanticsMeter().compute()["S_C"])
    meter = TokenSemanticsMeter()
    meter.update(TokenSemantics(0.5, 1.0, 0.5, 2.0, 2, 4))
    assert meter.compute()["S_C"] == 0.5
    assert math.isnan(meter.compute()["S_I"])


def test_every_split_over_two_ranks_gives_the_same_bits():
    results = random_results(7)
    expected = meter_of(results).compute()
    for mask in itertools.product((False, True), repeat=7):
        first = [r for r, chosen in zip(results, mask, strict=True) if chosen]
        second = [r for r, chosen in zip(results, mask, strict=True) if not chosen]
        assert merged([meter_of(first), meter_of(second)]).compute() == expected


def test_every_order_of_merging_gives_the_same_bits():
    results = random_results(9, seed=3)
    meters = [meter_of(results[:1]), meter_of(results[1:6]), meter_of([]), meter_of(results[6:])]
    expected = meter_of(results).compute()
    for order in itertools.permutations(meters):
        assert merged(order).compute() == expected


def test_memory_does_not_grow_with_the_number_of_images():
    results = random_results(5)
    assert len(pickle.dumps(meter_of(results * 200))) < len(pickle.dumps(meter_of(results))) + 200
