"""Figures that tools/experiments/outcome.py draws from the files of a run."""

import numpy as np
import torch
from detectron2.layers import FrozenBatchNorm2d
from experiments.outcome import _head_loss, _parameters, training_rows
from torch import nn


def test_the_heads_loss_of_the_last_fifth():
    alone = [{"iteration": i, "total_loss": 10.0 - i} for i in range(10)]
    assert _head_loss([*alone, {"iteration": 10, "sem_seg/mIoU": 3.0}]) == 1.5  # of 2 and 1
    parts = {"loss_ce": 0.25, "loss_mask": 0.5, "loss_component": 4.0, "loss_diversity": 8.0, "loss_peer": 16.0}
    assert _head_loss([row | parts for row in alone]) == 0.75
    # steps 5 to 9 were made again after an interruption, and only their second rows count
    again = [{"iteration": i, "total_loss": 20.0} for i in range(5, 10)]
    assert _head_loss([*alone[:5], *again, *alone[5:]]) == 1.5
    assert _head_loss([]) is None and _head_loss([{"iteration": 0, "total_loss": float("nan")}]) is None


def test_lines_that_a_killed_run_left_are_skipped(tmp_path):
    assert training_rows(tmp_path) == []
    for text, rows in (('{"itera', []), ('{"iteration": 0}\n[1]\n\n{"itera', [{"iteration": 0}])):
        (tmp_path / "metrics.json").write_text(text)
        assert training_rows(tmp_path) == rows


def test_parameters_are_the_values_that_are_learnt(tmp_path):
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), FrozenBatchNorm2d(3), nn.Linear(3, 4))
    torch.save({"model": model.state_dict(), "best": np.float64(71.2)}, tmp_path / "model.pth")
    assert _parameters(tmp_path / "model.pth") == (2 * 3 + 3) + (3 + 3) + 0 + (3 * 4 + 4)
