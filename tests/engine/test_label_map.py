"""Labels that LABEL_MAP maps are worth as much as those of class indices."""

import json
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from sgr_d2.data.datasets import get_dataset_records, metadata_of
from sgr_d2.engine import NamedModel, SGRPredictor, evaluate, explore, load_config

PALETTE = np.array([[0, 0, 0], [0, 0, 255], [255, 0, 0], [255, 255, 0]], np.uint8)


@pytest.fixture(
    params=[
        [255, 0, 1, 2],
        [[2, 1], [3, 2], [0, 255], [1, 0]],
        [[[255, 0, 0], 1], [[255, 255, 0], 2], [[0, 0, 0], 255], [[0, 0, 255], 0]],
    ],
    ids=["list", "pairs", "colours"],
)
def shifted_config(trained, scenes, tmp_path, request):
    """The config with validation labels where 0, or black, means "not labelled" and the classes count from 1."""
    shutil.copytree(scenes / "val", tmp_path / "val")
    in_colors = isinstance(request.param[0], list) and isinstance(request.param[0][0], list)
    for path in (tmp_path / "val/labels").iterdir():
        values = np.asarray(Image.open(path)) + np.uint8(1)
        Image.fromarray(PALETTE[values] if in_colors else values).save(path)
    config = yaml.safe_load(trained.config.read_text())
    folder = config["DATASETS"]["FOLDERS"].pop("scenes_val") | {"LABEL_MAP": request.param}
    folder |= {"IMAGE_DIR": str(tmp_path / "val/images"), "LABEL_DIR": str(tmp_path / "val/labels")}
    folder["COLORS"] = [list(color) for color in metadata_of(["scenes_val"]).colors]
    config["DATASETS"]["FOLDERS"]["shifted_val"] = folder
    config["DATASETS"]["TEST"] = ["shifted_val"]
    (tmp_path / "shifted.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "shifted.yaml"


def test_evaluation_pictures_and_explorer(trained, shifted_config, tmp_path):
    model = SGRPredictor.from_checkpoint(trained.checkpoint, device="cpu")
    figures = []
    for config, name in ((trained.config, "scenes_val"), (shifted_config, "shifted_val")):
        cfg = load_config(str(config), ["OUTPUT_DIR", str(tmp_path / name), "TEST.NUM_PICTURES", "1"])
        figures.append(evaluate(cfg, model.model, name))
        explore(
            [NamedModel("run", "", model)],
            get_dataset_records(name),
            tmp_path / name / "e",
            title="t",
            dataset_name=name,
        )
    assert json.dumps(figures[0]) == json.dumps(figures[1])
    plain, shifted = (tmp_path / name for name in ("scenes_val", "shifted_val"))
    (picture,) = (plain / "evaluation/scenes_val/pictures").iterdir()
    assert picture.read_bytes() == (shifted / "evaluation/shifted_val/pictures" / picture.name).read_bytes()
    truth = sorted(path.relative_to(plain) for path in (plain / "e/data/truth").rglob("*") if path.is_file())
    assert truth and all((plain / path).read_bytes() == (shifted / path).read_bytes() for path in truth)
