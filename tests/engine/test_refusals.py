"""Errors in the files of a data set, while a run reads them, and in the size of its batch."""

import re
import shutil

import pytest
from toy_runs import run

from sgr_d2.checks import check_accumulation_steps
from sgr_d2.config import get_sgr_cfg
from sgr_d2.data.bad_record import BadRecordError, CheckedMapper
from sgr_d2.engine import refusals_in_a_line
from sgr_d2.engine.refusals import TRACEBACK


@pytest.fixture
def own_scenes(scenes, config_file, tmp_path):
    """A copy of the scenes to be spoilt, in the yaml of the model."""
    copy = tmp_path / "own"
    shutil.copytree(scenes, copy)
    config_file.write_text(config_file.read_text().replace(str(scenes), str(copy)))
    return copy


@pytest.mark.parametrize("workers", [0, 1])
def test_a_label_that_cannot_be_trained_on(own_scenes, config_file, tmp_path, capsys, workers):
    config_file.write_text(re.sub(r"\n +- disc", "", config_file.read_text()))
    line, printed = refused(capsys, config_file, "DATALOADER.NUM_WORKERS", workers)
    assert "holds 2" not in printed  # the line says it
    assert re.match(r"mine\.py: error: Label \S+/labels/00\d\.png holds 2, neither a class \(0\.\.1\)", line)
    log = (tmp_path / "output" / "log.txt").read_text()
    assert "Exception during training: Label " in log and "Traceback" not in log


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_evaluated(own_scenes, config_file, trained, capsys, workers):
    for path in (own_scenes / "val" / "images").iterdir():
        path.write_bytes(path.read_bytes()[:500])
    options = ["DATALOADER.NUM_WORKERS", workers, "MODEL.WEIGHTS", trained.checkpoint]
    line, _ = refused(capsys, config_file, *options, eval_only=True)
    assert re.match(r"mine\.py: error: Cannot read image file \S+/images/0\d\d\.png: ", line)


def test_more_parts_than_images_in_a_batch_are_told_before_the_training(config_file, capsys):
    line, _ = refused(capsys, config_file, "SOLVER.ACCUMULATION_STEPS", 5)
    assert line.startswith("mine.py: error: SOLVER.ACCUMULATION_STEPS = 5: the batch cannot be split")
    assert "SOLVER.IMS_PER_BATCH = 4. Give 4 or less, or IMS_PER_BATCH 5 or more." in line
    cfg = get_sgr_cfg()
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATION_STEPS = 16, 5
    check_accumulation_steps(cfg, 3)
    with pytest.raises(ValueError, match=r"of all 4 processes together, 4 image.*Give 4 or less, or .*BATCH 20 or mo"):
        check_accumulation_steps(cfg, 4)


def refused(capsys, *arguments, **flags) -> tuple[str, str]:
    """The last line of a run that is refused, and what it printed before."""
    with pytest.raises(SystemExit) as stop, refusals_in_a_line("mine.py"):
        run(*arguments, **flags)
    assert stop.value.code == 2
    stop.value.__context__.__traceback__ = None  # breaks a cycle through torch's frames, which would keep the workers
    out, err = capsys.readouterr()
    return err.splitlines()[-1], out


def test_the_traceback_of_a_worker_is_there_on_request(own_scenes, config_file, tmp_path, monkeypatch):
    monkeypatch.setenv(TRACEBACK, "1")
    (own_scenes / "train" / "images" / "000.png").write_bytes(b"")
    with pytest.raises(BadRecordError) as caught, refusals_in_a_line("mine.py"):
        run(config_file, "DATALOADER.NUM_WORKERS", 1, "SOLVER.IMS_PER_BATCH", 9)
    assert str(caught.value).startswith("Cannot read image file ") and "\n" not in str(caught.value)
    assert "in DataLoader worker process 0" in str(caught.value.__cause__)
    assert "Traceback" in (tmp_path / "output" / "log.txt").read_text()
    caught.value.__traceback__ = None  # as in `refused`


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (ValueError("a.png: no image"), BadRecordError),
        (FileNotFoundError("No label file b.png."), BadRecordError),
        (ValueError("operands could not be broadcast together"), ValueError),
        (KeyError("a.png"), KeyError),
    ],
)
def test_only_errors_that_name_a_file_of_the_record_are_about_it(error, found):
    def mapper(record):
        raise error

    with pytest.raises(found) as caught:
        CheckedMapper(mapper)({"file_name": "a.png", "sem_seg_file_name": "b.png", "image_id": "operands"})
    assert type(caught.value) is found and str(caught.value) == str(error)


@pytest.mark.parametrize("eval_only", [False, True])
def test_weights_that_cannot_be_fetched_are_told_in_one_line(config_file, capsys, eval_only):
    line, _ = refused(capsys, config_file, "MODEL.WEIGHTS", "http://localhost:9/x.pth", eval_only=eval_only)
    assert line.startswith("mine.py: error: MODEL.WEIGHTS = http://localhost:9/x.pth: cannot be fetched")
    assert "with --eval-only the checkpoint of a training run" in line and "'' to train from random weights" in line
