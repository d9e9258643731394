"""Evaluating a large image keeps within its memory. All slow: each measures in a process of its own."""

import math

import pytest
from benchmarks.inference_memory import CASES, HEIGHT, WIDTH, benchmark_inference_memory, measure
from benchmarks.settings import Settings


@pytest.mark.slow
@pytest.mark.parametrize("config", CASES.values())
def test_a_street_scene_with_171_classes_takes_less_than_two_gibibytes(config):
    loaded, peak = measure(config, (HEIGHT, WIDTH))
    scores = 171 * HEIGHT * WIDTH * 4
    assert scores < peak - loaded < 2 * 2**30


@pytest.mark.slow
def test_quick_run():
    report = benchmark_inference_memory(Settings(quick=True))
    assert [row["model"] for row in report.rows] == list(CASES.values())
    assert all(math.isfinite(ratio.value) and not ratio.limit for ratio in report.ratios.values())


@pytest.mark.slow
def test_a_process_that_fails_is_an_error():
    with pytest.raises(RuntimeError, match=r"nothing.yaml: the process that measures failed"):
        measure("nothing.yaml", (64, 128))
