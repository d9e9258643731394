"""The user commands import what lies beside them, as they do when they are run; inputs of tools/predict.py."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))


@pytest.fixture
def photos(tmp_path):
    """Two good images of odd sizes, one of them in a subfolder, and a broken one."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(rng.integers(0, 255, (45, 63, 3), np.uint8)).save(folder / "one.png")
    Image.fromarray(rng.integers(0, 255, (64, 50, 3), np.uint8)).save(folder / "sub/two.jpg")
    (folder / "broken.jpg").write_bytes(b"not a picture")
    return folder
