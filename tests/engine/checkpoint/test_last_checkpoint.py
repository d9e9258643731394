"""The checkpoint from which a run goes on, also after whatever has happened to the file that names it."""

import json
import os

import pytest
import torch
from toy_runs import run

from sgr_d2.engine.checkpoint.checkpointer import Checkpointer

# An empty file, the name of none, and what a power failure leaves.
BROKEN = [b"", b"model_0000007.pth", b"\0" * 15, b"\xff\xfe"]


def save(folder, *names):
    """Checkpoints, each a second younger than the one before; those named slim without the state of a training."""
    for second, name in enumerate(names):
        more = {} if "slim" in name else {"trainer": {"iteration": 3}}
        torch.save({"model": {"weight": torch.zeros(1)}, **more}, folder / name)
        os.utime(folder / name, (second, second))


def test_a_tag_is_replaced_not_rewritten(tmp_path):
    checkpointer = Checkpointer(torch.nn.Linear(2, 2), str(tmp_path))
    checkpointer.save("model_0000001", iteration=1)
    with (tmp_path / "last_checkpoint").open() as before:
        checkpointer.save("model_0000002", iteration=2)
        assert before.read() == "model_0000001.pth"
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"


@pytest.mark.parametrize("tag", BROKEN)
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model_final.pth", "model_0000002.pth", "model_best.pth"], "model_0000002.pth"),
        (["model_0000002.pth", "model_final.pth", "model_0000005.unfinished.pth"], "model_final.pth"),
        (["model_best.pth"], "model_best.pth"),
        (["model_0000002.pth", "model_slim.pth"], "model_0000002.pth"),
    ],
)
def test_without_a_name_the_newest_checkpoint_is_taken(tmp_path, tag, names, expected, caplog):
    save(tmp_path, *names)
    checkpointer = Checkpointer(torch.nn.Linear(2, 2), str(tmp_path))
    assert not checkpointer.has_checkpoint() and checkpointer.get_checkpoint_file() == ""  # without the file itself
    (tmp_path / "last_checkpoint").write_bytes(tag)
    (tmp_path / "model_0000006.pth").write_bytes(b"PK half of a file")
    assert checkpointer.has_checkpoint() and not caplog.text
    assert checkpointer.get_checkpoint_file() == str(tmp_path / expected)
    assert (
        f"last_checkpoint names no checkpoint ({tag.decode(errors='replace')!r}): {tmp_path}/{expected}" in caplog.text
    )


@pytest.mark.parametrize("tag", BROKEN)
def test_without_a_checkpoint_there_is_none(tmp_path, tag):
    (tmp_path / "last_checkpoint").write_bytes(tag)
    checkpointer = Checkpointer(torch.nn.Linear(2, 2), str(tmp_path))
    assert not checkpointer.has_checkpoint() and checkpointer.get_checkpoint_file() == ""


def test_a_run_goes_on_and_is_evaluated_without_a_name(config_file, tmp_path):
    opts = ["OUTPUT_DIR", tmp_path]
    whole = run(config_file, *opts, "SOLVER.MAX_ITER", 2)
    (tmp_path / "last_checkpoint").write_text("")
    assert json.dumps(run(config_file, *opts, eval_only=True, resume=True)) == json.dumps(whole)
    run(config_file, *opts, "SOLVER.MAX_ITER", 3, "DATASETS.TEST", "()", resume=True)
    assert torch.load(tmp_path / "model_final.pth", weights_only=True)["iteration"] == 2
    assert (tmp_path / "log.txt").read_text().count("names no checkpoint (''): ") == 2
    for path in (*tmp_path.glob("model_*"), tmp_path / "metrics.json"):
        path.unlink()
    (tmp_path / "last_checkpoint").write_text("")
    with pytest.raises(ValueError, match=r"--eval-only needs a checkpoint"):
        run(config_file, *opts, eval_only=True, resume=True)
    run(config_file, *opts, "SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()", resume=True)
    assert "holds no checkpoint to resume from: starting a new run" in (tmp_path / "log.txt").read_text()
    assert torch.load(tmp_path / "model_final.pth", weights_only=True)["iteration"] == 0
