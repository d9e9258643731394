"""What the command line of train_net.py says to wrong input."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sgr_d2.engine import load_config, refusals_in_a_line
from sgr_d2.engine.loop import split_batch
from sgr_d2.engine.refusals import TRACEBACK

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


def test_a_model_that_cannot_be_built_is_refused_in_one_line(monkeypatch, capsys, tmp_path):
    """After the log and the config were printed."""
    options = ["OUTPUT_DIR", str(tmp_path / "out"), "MODEL.SGR.IN_FEATURES", "['p9']"]
    monkeypatch.setattr(sys, "argv", ["train_net.py", "--config-file", SHAPES, "--num-gpus", "0", *options])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "train_net.py"), run_name="__main__")
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("train_net.py: error: MODEL.SGR.IN_FEATURES = ['p9']") and "SGR_D2_TRACEBACK=1" in last


def test_what_sgr_d2_refuses_is_told_in_a_line(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop, refusals_in_a_line("mine.py"):
        load_config("")
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("mine.py: error: No config: give --config-file")
    monkeypatch.setenv(TRACEBACK, "1")
    with pytest.raises(ValueError, match="No config"), refusals_in_a_line("mine.py"):
        load_config("")


def test_all_other_errors_keep_their_traceback():
    def own():
        raise ValueError("of a module of one's own")

    def of_torch():
        torch.zeros(2).view(3)

    def in_a_step():
        split_batch([{}], 2)

    for function, error in ((own, ValueError), (of_torch, RuntimeError), (in_a_step, ValueError)):
        with pytest.raises(error), refusals_in_a_line("mine.py"):
            function()
    with refusals_in_a_line("mine.py"):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train_net.py", "tools/check_dataset.py"])
def test_a_command_starts_without_warnings(command):
    command_line = [sys.executable, "-W", "default::FutureWarning", str(ROOT / command), "--help"]
    shown = subprocess.run(command_line, capture_output=True, text=True, timeout=300)
    assert shown.returncode == 0 and not shown.stderr
