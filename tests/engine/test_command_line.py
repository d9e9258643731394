"""What a command line asks for in vain is refused before anything is made."""

import pickle
from importlib import import_module
from pathlib import Path

import pytest
from detectron2.engine import default_argument_parser

from sgr_d2.engine import load_config, read_command_line


def read(config_file, *words):
    return read_command_line(default_argument_parser().parse_args(["--config-file", str(config_file), *words]))


@pytest.mark.parametrize(
    ("flags", "opts", "message"),
    [
        ([], ["MODEL.WEIGHTS", "none.pth"], r"MODEL\.WEIGHTS = none\.pth: no such checkpoint"),
        (["--eval-only"], ["MODEL.WEIGHTS", "none.pth"], r"MODEL\.WEIGHTS = none\.pth: no such checkpoint"),
        ([], ["DATASETS.TRAIN", "()"], r"DATASETS\.TRAIN is empty: name"),
        ([], ["OUTPUT_DIR", ""], r"OUTPUT_DIR is empty: name"),
        (["--num-gpus", "3"], ["SOLVER.IMS_PER_BATCH", "4"], r"IMS_PER_BATCH = 4 is the batch of all 3 processes"),
    ],
)
def test_what_cannot_work_is_found_before_anything_is_made(config_file, tmp_path, flags, opts, message):
    before = set(tmp_path.iterdir())
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(config_file, *flags, *opts)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"the weights are on the other disk", r"model\.pth is damaged, truncated or not a checkpoint.*again"),
        (b"<!DOCTYPE html>", r"model\.pth is a web page\. Download"),
        (pickle.dumps({"epoch": 3}), r"model\.pth holds no tensors"),
    ],
)
def test_weights_that_are_none_are_found_before_the_data_are_listed(
    config_file, tmp_path, monkeypatch, content, message
):
    (tmp_path / "model.pth").write_bytes(content)
    module = import_module("sgr_d2.engine.setup")  # the name is that of a function, too
    monkeypatch.setattr(module, "require_folders", lambda names: pytest.fail("the data were listed"))
    with pytest.raises(ValueError, match=message):
        read(config_file, "MODEL.WEIGHTS", str(tmp_path / "model.pth"))
    with pytest.raises(pytest.fail.Exception, match="were listed"):
        read(config_file, "--resume", "MODEL.WEIGHTS", str(tmp_path / "model.pth"))


def test_an_image_without_label_is_found_before_anything_is_made(config_file):
    cfg = load_config(str(config_file))
    folder = cfg.DATASETS.FOLDERS.scenes_train.LABEL_DIR
    lost = sorted(Path(folder).iterdir())[0]
    lost.rename(lost.with_suffix(".gone"))
    try:
        with pytest.raises(ValueError, match=r"scenes_train: 1 of \d+ images have no label"):
            read(config_file)
    finally:
        lost.with_suffix(".gone").rename(lost)
