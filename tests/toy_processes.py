"""Programs in processes of their own, as users and `launch` start them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
# without the GPUs that there may be: those would be used instead; one thread a process: on some CPUs sums depend on it
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
# with them, and without convolutions that round to ten bits
WITH_GPUS = os.environ | {"PYTHONPATH": str(ROOT), "NVIDIA_TF32_OVERRIDE": "0"}


def train_net(config_file, output, *opts, processes=1, flags=(), environment=ENVIRONMENT):
    """Run train_net.py as a user does; its log on failure."""
    command = _train_net(config_file, output, opts, processes, flags)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def interrupted_train_net(config_file, output, *opts, line, processes=1, environment=ENVIRONMENT):
    """Run train_net.py and press Ctrl-C when it has logged ``line``; the exit code and what it then wrote to stderr."""
    program = subprocess.Popen(
        _train_net(config_file, output, opts, processes, ()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
        start_new_session=True,  # a process group of its own, as in a terminal
    )
    try:
        next(text for text in program.stdout if line in text)
        os.killpg(program.pid, signal.SIGINT)
        _, errors = program.communicate(timeout=60)
    finally:
        if program.poll() is None:
            os.killpg(program.pid, signal.SIGKILL)
    return program.returncode, errors


def _train_net(config_file, output, opts, processes, flags):
    command = [sys.executable, "-W", "ignore", str(ROOT / "train_net.py"), "--config-file", str(config_file)]
    return [
        *command,
        *("--num-gpus", str(processes), "--dist-url", "auto", *flags, "OUTPUT_DIR", str(output)),
        *map(str, opts),
    ]


def run_program(program, folder):
    """Run the text of a program on ``folder``."""
    (folder / "program.py").write_text(program)
    command = [sys.executable, "-W", "ignore", str(folder / "program.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]


def run_two(program, folder):
    """What the two ranks of a program save."""
    run_program(program, folder)
    return [torch.load(folder / f"{rank}.pth", weights_only=True) for rank in (0, 1)]
