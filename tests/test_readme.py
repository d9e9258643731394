"""What the README tells works."""

import re
from pathlib import Path

from sgr_d2.engine import load_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_config_for_own_images_loads(tmp_path):
    block = re.search(r"((?:    .*\n)*    _BASE_: configs/(?:.*\n)(?:    .*\n)+)", README)[1]
    text = re.sub(r"^    ", "", block, flags=re.M).replace("configs/", f"{ROOT}/configs/")
    (tmp_path / "my.yaml").write_text(text)
    cfg = load_config(str(tmp_path / "my.yaml"))
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3
    assert cfg.MODEL.SGR.ENABLED and cfg.DATASETS.TRAIN == ("my_train",)
