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


def test_files_that_the_documents_point_to_exist():
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} points to {target}"


def test_configs_named_in_the_readme_exist():
    for path in re.findall(r"configs/[\w/]+\.yaml", README):
        assert (ROOT / path).is_file(), path
