"""The scripts of examples/ run as a user runs them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


def run(*arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples/ten_images.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)


@pytest.mark.parametrize("given", ["--images", "--labels"])
def test_ten_images_needs_images_and_labels(tmp_path, given):
    done = run(given, tmp_path, "--output", tmp_path / "out")
    assert done.returncode == 2 and "--images and --labels need each other" in done.stderr
    assert not (tmp_path / "out").exists()


def test_ten_images_tells_a_wrong_label_in_one_line(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        Image.new("RGB", (40, 30), (9, 8, 7)).save(tmp_path / kind / "a.png")  # a label of colours
    folders = ["--images", tmp_path / "images", "--labels", tmp_path / "labels"]
    done = run(*folders, "--output", tmp_path / "out")
    (line,) = done.stderr.strip().splitlines()
    assert done.returncode == 2 and line.startswith("ten_images.py: ") and "labels/a.png" in line
    assert not (tmp_path / "out/ten_images.yaml").exists()
    Image.fromarray(np.uint8([[7, 8, 9]])).save(tmp_path / "labels/a.png")  # more values than classes
    done = run(*folders, "--output", tmp_path / "out")
    assert done.returncode == 2 and done.stderr.rstrip().endswith("of DATASETS.FOLDERS are for train_net.py.)")
    done = run(*folders[:2], "--labels", tmp_path / "absent", "--output", tmp_path / "out")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_ten_images(tmp_path):
    done = run("--steps", 4, "--output", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "WARMUP_ITERS" not in done.stdout + done.stderr
    assert re.search(r"4 steps: mIoU \d+\.\d", done.stdout)
    assert len(re.findall(r"S_C \d\.\d\d  D_C \d\.\d\d nats", done.stdout)) == 10
    pictures = sorted((tmp_path / "pictures").glob("*.png"))
    assert len(pictures) == 10 and Image.open(pictures[0]).width > 500
    # the same folder, named by hand
    folders = ["--images", tmp_path / "shapes/images/train", "--labels", tmp_path / "shapes/labels/train"]
    classes = ["--classes", *"abcdefgh"]
    again = run("--steps", 1, "--output", tmp_path / "own", *folders, *classes)
    assert again.returncode == 0, again.stderr[-2000:]
    assert (tmp_path / "own/pictures/0000.png").is_file() and "1 steps: mIoU" in again.stdout
