import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from sgr_d2.engine import allocator
from sgr_d2.engine.allocator import KEEP_FREED_MEMORY

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")

COUNT = """
import json, resource, runpy, sys

def work():
    for _ in range(5):
        b"1" * 2**26  # 64 MiB, freed at once

def count():
    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
"""
FAULTS = """
kept = runpy.run_path(sys.argv[2])["keep_freed_memory"]() if sys.argv[1] == "keep" else False
print(json.dumps([kept, count()]))
"""
TRAINING = """
from types import SimpleNamespace
import train_net

opts = ["SOLVER.MAX_ITER", "1", "DATASETS.TEST", "()"]
train_net.main(SimpleNamespace(config_file=sys.argv[1], opts=opts, eval_only=False, resume=False, num_gpus=0))
print(json.dumps(count()))
"""


def run(code: str, *arguments: str, **environment: str):
    """What ``code`` printed last in a process of its own."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")} | environment
    done = subprocess.run(
        [sys.executable, "-c", COUNT + code, *arguments], capture_output=True, text=True, env=env, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def faults(mode: str, **environment: str) -> tuple[bool, int]:
    return tuple(run(FAULTS, mode, allocator.__file__, **environment))


def test_kept_memory_takes_no_new_pages():
    kept, few = faults("keep")
    plain, many = faults("plain")
    assert kept
    assert not plain
    assert many > 50_000
    assert few < many / 100


def test_variables_of_the_user_hold_and_ours_do_the_same():
    kept, few = faults("keep", **KEEP_FREED_MEMORY)
    assert not kept  # there was nothing to do
    assert few < 1000
    kept, many = faults("keep", MALLOC_TOP_PAD_="0")
    assert not kept
    assert many > 50_000


def test_training_keeps_its_memory(config_file):
    assert run(TRAINING, str(config_file)) < 1000
    assert run(TRAINING, str(config_file), MALLOC_TOP_PAD_="0") > 50_000
