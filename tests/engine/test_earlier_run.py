import multiprocessing
import re
from pathlib import Path

import pytest

from sgr_d2.engine.earlier_run import (
    _locks,
    check_resume,
    claim,
    holds_run,
    keeping_config,
    put_back,
    release,
    set_aside,
)


def tagged(folder):
    for name in ("last_checkpoint", "model_final.pth"):
        (folder / name).write_text("model_final.pth")


def test_of_earlier_runs_the_one_of_the_highest_number_is_meant(tmp_path):
    for name in ("earlier_1", "earlier_9", "earlier_10", "earlier_mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "last_checkpoint").touch()
    (tmp_path / "earlier_11").mkdir()
    with pytest.raises(ValueError, match=r"holds no checkpoint, but .*earlier_10 does"):
        check_resume(tmp_path)
    tagged(tmp_path)
    assert check_resume(tmp_path) == ""


def test_a_run_without_a_line_of_figures_is_none_and_another_one_goes_aside_and_comes_back(tmp_path):
    for name in ("metrics.json", "config.yaml"):
        (tmp_path / name).touch()
    assert not holds_run(tmp_path) and set_aside(tmp_path) is None
    (tmp_path / "metrics.json").write_text("{}\n")
    assert holds_run(tmp_path) and set_aside(tmp_path) == tmp_path / "earlier_1"
    assert [path.name for path in tmp_path.iterdir()] == ["earlier_1"]
    put_back(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "metrics.json"]


@pytest.mark.parametrize("name", ["metrics.json", "last_checkpoint"])
def test_what_a_run_has_trained_before_it_failed_stays(tmp_path, name):
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    set_aside(tmp_path)
    (tmp_path / name).write_text('{"total_loss": 1.0}')
    put_back(tmp_path)
    assert (tmp_path / name).read_text() == '{"total_loss": 1.0}'
    assert (tmp_path / "earlier_1/last_checkpoint").read_text() == "model_final.pth"


def test_a_folder_is_the_same_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, relative, before = tmp_path / "run", Path("run"), dict(_locks)
    claim(relative)
    release(relative)
    assert _locks == before
    tagged(folder)
    for options in ("", "?matching_heuristics=True"):
        message = rf"MODEL.WEIGHTS = {re.escape(f'run/model_final.pth{options}')} is a file of the run in OUTPUT_DIR"
        with pytest.raises(ValueError, match=message):
            set_aside(folder, needed=f"run/model_final.pth{options}")
    set_aside(relative)
    put_back(relative)
    assert (folder / "last_checkpoint").is_file() and not (folder / "earlier_1").exists()


def test_resume_without_a_run_is_said(tmp_path):
    for _ in range(2):
        said = check_resume(tmp_path)
        assert f"--resume: OUTPUT_DIR = {tmp_path} holds no checkpoint to resume from: starting a new run" in said
        (tmp_path / "last_checkpoint").touch()  # by a job that was killed at its first checkpoint
    tagged(tmp_path)
    assert check_resume(tmp_path) == ""


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"OUTPUT_DIR = .*file: the folder cannot be created"):
        claim(tmp_path / "file")


def test_the_config_of_a_training_outlives_what_fails_meanwhile(tmp_path):
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    (tmp_path / "config.yaml").write_text("trained")
    with pytest.raises(KeyboardInterrupt), keeping_config(str(tmp_path)):
        (tmp_path / "config.yaml").write_text("evaluated")
        raise KeyboardInterrupt
    assert (tmp_path / "config.yaml").read_text() == "trained"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "last_checkpoint"]


def hold(folder, ready, leave) -> None:
    claim(folder)
    ready.set()
    leave.wait()


def test_a_folder_is_of_one_process_until_that_ends_or_gives_it_back(tmp_path):
    claim(tmp_path / "run")
    claim(tmp_path / "run")  # runs of one process follow each other
    release(tmp_path / "run")
    context = multiprocessing.get_context("fork")
    ready, leave = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "run", ready, leave))
    other.start()
    assert ready.wait(60)
    with pytest.raises(ValueError, match=r"OUTPUT_DIR = .*run: another training is running there"):
        claim(tmp_path / "run")
    claim(tmp_path / "another")
    leave.set()
    other.join(60)
    claim(tmp_path / "run")
    release(tmp_path / "run")
