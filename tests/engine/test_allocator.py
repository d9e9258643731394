import json
import os
import platform
import subprocess
import sys

import pytest

from sgr_d2.engine import allocator
from sgr_d2.engine.allocator import KEEP_FREED_MEMORY

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")

FAULTS = """
import json, resource, runpy, sys

kept = runpy.run_path(sys.argv[2])["keep_freed_memory"]() if sys.argv[1] == "keep" else False

def work():
    for _ in range(5):
        b"1" * 2**26  # 64 MiB, freed at once

work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(json.dumps([kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""


def faults(mode: str, **environment: str) -> tuple[bool, int]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")} | environment
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, mode, allocator.__file__], capture_output=True, text=True, env=env, check=True
    )
    return tuple(json.loads(done.stdout))


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
