"""What the command line of train_net.py says to wrong input."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHAPES = str(ROOT / "configs/shapes/fpn_sgr.yaml")
CAMVID = str(ROOT / "configs/camvid/fpn_effnet_lite0.yaml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config-file", "no/such.yaml"], "--config-file no/such.yaml: no such file."),
        ([], "No config: give --config-file"),
        (["--config-file", SHAPES, "SOLVER.MAX_ITR", "3"], "no config key SOLVER.MAX_ITR. Did you mean"),
        (["--config-file", SHAPES, "--num-gpus", "2", "SOLVER.MAX_ITER"], "give options in pairs"),
        (["--config-file", CAMVID, "--num-gpus", "2"], "nowhere/camvid"),
    ],
)
def test_a_command_line_that_cannot_work_is_refused_in_one_line(options, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", "nowhere")
    num_gpus = [] if "--num-gpus" in options else ["--num-gpus", "0"]
    monkeypatch.setattr(sys, "argv", ["train_net.py", *num_gpus, *options])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "train_net.py"), run_name="__main__")
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("train_net.py: error: ") and message in last
    assert not list(tmp_path.iterdir())
