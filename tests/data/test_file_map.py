"""Processes that work on files end with the one that started them."""

import os
import signal
import subprocess
import sys

import pytest

BLOCKED = """
import os, signal
from sgr_d2.data.file_map import map_files

def block(item):
    os.write(1, f"{os.getpid()}\\n".encode())  # in one piece, whatever the other writes
    signal.pause()

list(map_files(block, range(64), num_workers=2, title="", progress=False))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_when_their_parent_is_killed(number):
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", BLOCKED], stdout=subprocess.PIPE, text=True)
    workers = [int(process.stdout.readline()) for _ in range(2)]
    process.send_signal(number)
    try:
        process.communicate(timeout=60)  # ends when the last of the three has let go of the pipe
    except subprocess.TimeoutExpired:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        raise
    assert process.returncode == -number
