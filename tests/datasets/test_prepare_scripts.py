"""The command lines of datasets/prepare_*.py."""

import subprocess
import sys
from pathlib import Path

import _command
import miniatures
import numpy as np
import pytest
from PIL import Image

from sgr_d2.data.prepare import plan_ade20k, plan_camvid, plan_cityscapes, plan_coco_stuff_10k, plan_coco_stuff_164k

ROOT = Path(__file__).parents[2]
SCRIPTS = [f"prepare_{name}.py" for name in ("coco_stuff_10k", "coco_stuff_164k", "ade20k", "cityscapes", "camvid")]


@pytest.fixture
def prepare(monkeypatch, tmp_path):
    """``prepare(plan function, *arguments)`` runs the command line on ``tmp_path`` and returns its exit code."""

    def run(make_plan, *arguments):
        monkeypatch.setattr(sys, "argv", ["prepare", "--root", str(tmp_path), "--num-workers", "1", *arguments])
        return _command.main(make_plan, "what it does")

    return run


@pytest.mark.parametrize(
    ("build", "make_plan"),
    [
        (miniatures.coco_stuff_10k, plan_coco_stuff_10k),
        (miniatures.coco_stuff_164k, plan_coco_stuff_164k),
        (miniatures.ade20k, plan_ade20k),
        (miniatures.cityscapes, plan_cityscapes),
        (miniatures.camvid, plan_camvid),
    ],
)
def test_a_part_of_a_release_is_prepared_if_that_is_accepted(prepare, tmp_path, capsys, build, make_plan):
    build(tmp_path)
    assert prepare(make_plan) == 1
    shown = capsys.readouterr()
    assert "3 label maps are ready, the release has" in shown.out
    assert shown.err.endswith("error: the data set is not complete; --partial accepts that.\n")
    assert prepare(make_plan, "--partial") == 0
    shown = capsys.readouterr()
    assert "error" not in shown.err
    assert "100%" in shown.err  # the progress bar
    row = next(line.split() for line in shown.out.splitlines() if line.startswith("train"))
    assert row[2:8] == ["3", "0", "0", "0", "3", "0"]  # ready, written, repaired, replaced, kept, broken


@pytest.mark.parametrize(
    ("build", "make_plan", "image"),
    [
        (miniatures.coco_stuff_10k, plan_coco_stuff_10k, "images/COCO_train2014_000000000077.jpg"),
        (miniatures.coco_stuff_164k, plan_coco_stuff_164k, "train2017/000000000100.jpg"),
        (miniatures.ade20k, plan_ade20k, "images/training/ADE_train_00000001.jpg"),
        (miniatures.cityscapes, plan_cityscapes, "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png"),
        (miniatures.camvid, plan_camvid, "train/0000.png"),
    ],
)
def test_label_maps_without_an_image_are_left_out_of_a_part(prepare, tmp_path, capsys, build, make_plan, image):
    (build(tmp_path) / image).unlink()
    assert prepare(make_plan, "--partial") == 0
    out = capsys.readouterr().out
    assert ": 1 label maps are left out: not all of their files are there.\n" in out
    assert next(line for line in out.splitlines() if line.startswith("train")).split()[2] == "2"
    assert prepare(make_plan) == 1
    assert "1 files are broken:\n" in capsys.readouterr().out


def test_a_broken_file_is_listed_and_the_exit_code_is_1(prepare, tmp_path, capsys):
    folder = miniatures.ade20k(tmp_path)
    Image.fromarray(np.full((72, 96), 200, np.uint8)).save(folder / "annotations/training/ADE_train_00000002.png")
    assert prepare(plan_ade20k, "--partial") == 1
    out = capsys.readouterr().out
    assert "1 files are broken:\n" in out
    assert (
        out.rstrip().splitlines()[-1].startswith(f"  {folder}/annotations/training/ADE_train_00000002.png: holds 200")
    )


def test_nothing_there(prepare, tmp_path, capsys):
    assert prepare(plan_cityscapes, "--partial") == 1
    assert f"error: No folder {tmp_path}/cityscapes/leftImg8bit/train." in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "-1", "two"])
def test_bad_number_of_workers(prepare, capsys, number):
    with pytest.raises(SystemExit):
        prepare(plan_ade20k, "--num-workers", number)
    assert f"{number!r} is not a positive number" in capsys.readouterr().err or number == "-1"


def test_the_root_is_that_of_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert _command.parser("x").parse_args([]).root == tmp_path
    assert _command.parser("x").parse_args(["--root", "~/d"]).root == Path.home() / "d"


def test_readme_has_one_command_a_script():
    text = (ROOT / "datasets/README.md").read_text(encoding="utf-8")
    assert [name for name in SCRIPTS if text.count(f"python datasets/{name}") != 1] == []


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_run_as_a_user_runs_them(script, tmp_path):
    command = [sys.executable, "-W", "ignore", str(ROOT / "datasets" / script)]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert shown.returncode == 0 and f"python datasets/{script}" in shown.stdout
    miniatures.coco_stuff_10k(tmp_path)
    for build in (miniatures.coco_stuff_164k, miniatures.ade20k, miniatures.cityscapes, miniatures.camvid):
        build(tmp_path)
    command += ["--root", str(tmp_path), "--num-workers", "2", "--partial"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "3 label maps are ready" in done.stdout
