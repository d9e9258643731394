import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from sgr_d2.config import get_sgr_cfg
from sgr_d2.engine.checkpoint.checkpointer import Checkpointer
from sgr_d2.engine.hooks import BestCheckpoint, SeedEachStep, best_metric, misspelt_metric


def test_every_step_of_every_seed_draws_its_own_numbers():
    draws = {}
    for seed in (0, 1, 7):
        hook = SeedEachStep(seed)
        for step in (0, 1):
            hook.trainer = SimpleNamespace(iter=step)
            hook.before_step()
            draws[seed, step] = torch.rand(4)
            hook.before_step()
            assert torch.equal(torch.rand(4), draws[seed, step])
    assert len({tuple(draw.tolist()) for draw in draws.values()}) == 6


class Noted(Checkpointer):
    """Keeps what the tag of the last checkpoint has been."""

    def __init__(self, folder):
        super().__init__(nn.Linear(1, 1), str(folder))
        self.tagged = []

    def tag_last_checkpoint(self, last_filename_basename):
        super().tag_last_checkpoint(last_filename_basename)
        self.tagged.append(Path(self.get_checkpoint_file()).name)


def started(folder, start=0, metric="sem_seg/mIoU", period=1):
    """The hook of a run of 100 steps that begins or goes on at ``start``."""
    hook = BestCheckpoint(Noted(folder), period, metric)
    hook.trainer = SimpleNamespace(start_iter=start, max_iter=100, iter=start, storage=EventStorage(start))
    hook.before_train()
    return hook


def evaluated(hook, step, value):
    """The trainer stands at ``step``, with a value of the metric."""
    hook.trainer.iter = hook.trainer.storage.iter = step
    hook.trainer.storage.put_scalar(hook.metric, value)


def best(folder) -> tuple[float, int]:
    """Value and step of the record; the checkpoint is of that step."""
    record = json.loads((folder / "model_best.json").read_text())
    assert torch.load(folder / "model_best.pth", weights_only=True)["iteration"] == record["iteration"]
    return record["value"], record["iteration"]


def test_the_best_checkpoint_is_kept_over_a_resume(tmp_path):
    for start, values, expected in (
        (0, [10.0, 30.0, float("nan"), 30.0], [(10.0, 0), (30.0, 1), (30.0, 1), (30.0, 1)]),
        (4, [25.0, 31.0], [(30.0, 1), (31.0, 5)]),
    ):
        hook, found = started(tmp_path, start), []
        for step, value in enumerate(values, start):
            evaluated(hook, step, value)
            hook.after_step()
            found.append(best(tmp_path))
        assert found == expected


def test_a_run_that_goes_back_keeps_the_best_from_before(tmp_path):
    hook = started(tmp_path)
    for step, value in ((9, 50.0), (19, 61.0), (29, 60.0), (49, 62.0)):
        evaluated(hook, step, value)
        hook.after_step()
    for start, expected in ((50, 62.0), (40, 61.0), (19, 50.0), (9, -math.inf)):
        assert started(tmp_path, start).best == expected
    hook = started(tmp_path, 40)
    for step, value in ((44, 60.5), (47, 61.5)):
        evaluated(hook, step, value)
        hook.after_step()
    assert best(tmp_path) == (61.5, 47)
    for start, expected in ((50, 61.5), (47, 61.0)):
        assert started(tmp_path, start).best == expected


@pytest.mark.parametrize("content", ["", "[1]", '{"metric": "sem_seg/mIoU"}', '{"value": [], "iteration": 3}', "\xff"])
def test_a_record_that_cannot_be_read_is_told_and_replaced(tmp_path, content, caplog):
    (tmp_path / "model_best.json").write_text(content, encoding="latin1")
    hook = started(tmp_path, 4)
    assert f"{tmp_path}/model_best.json cannot be read" in caplog.text
    evaluated(hook, 5, 30.0)
    hook.after_step()
    assert best(tmp_path) == (30.0, 5)


def test_a_record_is_replaced_not_rewritten_and_older_ones_are_read(tmp_path):
    old = json.dumps({"metric": "sem_seg/mIoU", "value": 30.0, "iteration": 2})
    (tmp_path / "model_best.json").write_text(old)
    hook = started(tmp_path, 3)
    assert hook.best == 30.0
    with (tmp_path / "model_best.json").open() as before:
        evaluated(hook, 5, 31.0)
        hook.after_step()
        assert before.read() == old
    assert best(tmp_path) == (31.0, 5)


@pytest.mark.parametrize(
    ("start", "metric", "expected"),
    [
        (10, "sem_seg/mIoU", (40.0, 9)),
        (9, "sem_seg/mIoU", (30.0, 9)),  # gone back before it: that model is yet to be trained
        (0, "sem_seg/mIoU", (30.0, 0)),
        (10, "sem_seg/pACC", (30.0, 10)),
    ],
)
def test_the_best_of_another_metric_or_of_a_later_step_is_not_the_best(tmp_path, start, metric, expected):
    hook = started(tmp_path)
    evaluated(hook, 9, 40.0)
    hook.after_step()
    hook = started(tmp_path, start, metric)
    evaluated(hook, start, 30.0)
    hook.after_step()
    assert best(tmp_path) == expected


def test_the_best_is_looked_for_once_an_evaluation_and_only_then(tmp_path):
    hook = started(tmp_path, period=4)
    for step in range(3):
        evaluated(hook, step, 50.0)
        hook.after_step()
    hook.after_train()  # of an interrupted run
    assert not (tmp_path / "model_best.json").exists()
    evaluated(hook, 3, 50.0)
    hook.after_step()
    assert best(tmp_path) == (50.0, 3)
    evaluated(hook, 99, 60.0)
    hook.after_step()  # the evaluation of the last step comes after training
    hook.after_train()  # without one, if that step failed
    assert best(tmp_path) == (50.0, 3)
    evaluated(hook, 100, 70.0)
    hook.after_train()
    assert best(tmp_path) == (70.0, 99)


def test_a_resume_goes_on_from_the_latest_checkpoint_not_from_the_best(tmp_path):
    hook = started(tmp_path)
    hook.checkpointer.save("model_0000003", iteration=3)
    evaluated(hook, 4, 50.0)
    hook.after_step()
    assert best(tmp_path) == (50.0, 4)
    assert hook.checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000003.pth")
    assert set(hook.checkpointer.tagged) - {""} == {"model_0000003.pth"}


def test_the_best_checkpoint_is_one_to_go_on_from_as_long_as_there_is_no_other(tmp_path):
    hook = started(tmp_path)
    for step in (4, 5):
        evaluated(hook, step, 50.0 + step)
        hook.after_step()
    assert hook.checkpointer.get_checkpoint_file() == str(tmp_path / "model_best.pth")


@pytest.mark.parametrize(
    ("names", "metric", "expected"),
    [
        (("a_val",), "segm/AP", "segm/AP"),
        (("a_val", "b_val"), "segm/AP", "a_val/segm/AP"),
        (("a_val", "b_val"), "b_val/segm/AP", "b_val/segm/AP"),
    ],
)
def test_the_first_of_several_data_sets_decides(names, metric, expected):
    cfg = get_sgr_cfg()
    cfg.DATASETS.TEST, cfg.TEST.BEST_METRIC = names, metric
    assert best_metric(cfg) == expected


@pytest.mark.parametrize(
    ("metric", "meant"),
    [
        ("sem_seg/mIoU", ""),
        ("a_val/sem_seg/mIoU", ""),
        ("sem_seg/IoU-Sky", ""),
        ("sem_seg/IoU-sky", "sem_seg/IoU-Sky"),
        ("mine/IoU-small", ""),
        ("a_val/sem_seg/ACC-tre", "a_val/sem_seg/ACC-tree"),
        ("bbox/APs", ""),
        ("accuracy/top1", ""),
        ("sem_seg/miou", "sem_seg/mIoU"),
        ("mIoU", "sem_seg/mIoU"),
        ("a_val/sem_seg/mIOU", "a_val/sem_seg/mIoU"),
        ("semseg/mIoU", "sem_seg/mIoU"),
    ],
)
def test_a_metric_whose_name_is_nearly_right(metric, meant):
    assert misspelt_metric(metric, ("a_val",), ("Sky", "tree")) == meant


def test_a_metric_that_there_is_not_is_told_with_those_that_there_are(tmp_path, caplog):
    hook = started(tmp_path, metric="sem_seg/IoU")
    hook.after_step()
    assert "no best checkpoint. There are no results at all." in caplog.text
    hook.trainer._last_eval_results = {"a": {"sem_seg": {"mIoU": 1.0, "IoU-car": 2.0}}, "b": {"bbox": {"AP": 3.0}}}
    hook.after_step()
    assert "sem_seg/IoU was not computed: no best checkpoint. There are a/sem_seg/mIoU, b/bbox/AP." in caplog.text
