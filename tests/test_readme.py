"""What the README tells works."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

from sgr_d2.engine import load_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_runs_that_are_compared_are_trained_before():
    """Every pattern of the example of tools/compare_runs.py fits the OUTPUT_DIR of a command above it."""
    before, after = README.split("tools/compare_runs.py ", 1)
    patterns = after.partition("#")[0].split()
    folders = [name.replace("$seed", "1") for name in re.findall(r"OUTPUT_DIR (\S+)", before)]
    assert len(patterns) == 2 and [p for p in patterns if not any(fnmatchcase(f, p) for f in folders)] == []


def test_the_config_for_own_images_loads(tmp_path):
    block = re.search(r"((?:    .*\n)*    _BASE_: configs/(?:.*\n)(?:    .*\n)+)", README)[1]
    text = re.sub(r"^    ", "", block, flags=re.M).replace("configs/", f"{ROOT}/configs/")
    (tmp_path / "my.yaml").write_text(text)
    cfg = load_config(str(tmp_path / "my.yaml"))
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3
    assert cfg.MODEL.SGR.ENABLED and cfg.DATASETS.TRAIN == ("my_train",)
