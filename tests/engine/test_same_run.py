"""What a checkpoint must have in common with the run that loads it."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sgr_d2.config import get_sgr_cfg
from sgr_d2.engine.same_run import _difference, require_same_images, require_same_optimizer


def optimizer_of(*sizes):
    """With groups of so many parameters."""
    return torch.optim.AdamW([{"params": [nn.Parameter(torch.zeros(1)) for _ in range(size)]} for size in sizes])


@pytest.mark.parametrize(
    ("sizes", "more", "less", "message"),
    [
        ((1, 2), (), (), None),
        ((1, 2), ("of_a_later_torch",), (), None),
        ((1, 2), (), ("betas",), None),
        ((1, 2), ("momentum",), ("betas",), r"SOLVER.OPTIMIZER differs: this one has betas, the file's momentum"),
        ((2, 1), (), (), r"the optimizer has groups of \[1, 2\] parameters, the file's \[2, 1\]"),
        ((3,), (), (), r"the optimizer has groups of \[1, 2\] parameters, the file's \[3\]"),
    ],
)
def test_the_same_optimizer_whatever_its_version(sizes, more, less, message):
    groups = optimizer_of(*sizes).state_dict()["param_groups"]
    saved = [{key: value for key, value in group.items() if key not in less} | dict.fromkeys(more) for group in groups]
    if message is None:
        require_same_optimizer(optimizer_of(1, 2), saved, "a.pth")
    else:
        with pytest.raises(ValueError, match=rf"--resume: a.pth does not fit the config: {message}"):
            require_same_optimizer(optimizer_of(1, 2), saved, "a.pth")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, None),  # the file has no config
        ({"SOLVER": {"IMS_PER_BATCH": 16}, "DATASETS": {"TRAIN": ["a", "b"]}}, None),
        ({"DATASETS": {"TRAIN": ["b", "a"]}}, r"DATASETS.TRAIN = \['b', 'a'\], but this one has \('a', 'b'\)"),
        ({"SEED": 3}, r"SEED = 3, but this one has 0"),
        ({"SOLVER": {"IMS_PER_BATCH": 8}}, r"SOLVER.IMS_PER_BATCH = 8, but this one has 16"),
    ],
)
def test_the_same_images(settings, message):
    cfg = get_sgr_cfg()
    cfg.DATASETS.TRAIN, cfg.SOLVER.IMS_PER_BATCH, cfg.SEED = ("a", "b"), 16, 0
    checkpointer = SimpleNamespace(path="a.pth", settings=settings)
    if message is None:
        require_same_images(cfg, checkpointer)
    else:
        with pytest.raises(ValueError, match=message):
            require_same_images(cfg, checkpointer)


@pytest.mark.parametrize(
    ("found", "wanted", "difference"),
    [
        (None, ["a"], ""),
        (["a", "b"], ["a", "b"], ""),
        (["a", "b"], ["a", "c"], "class 1 is b there and c here, of 2 and 2 classes"),
        (["a", "b"], ["a"], "class 1 is b there and (none) here, of 2 and 1 classes"),
        (["a"], ["a", "b"], "class 1 is (none) there and b here, of 1 and 2 classes"),
    ],
)
def test_the_first_class_that_differs(found, wanted, difference):
    assert _difference(found, wanted) == difference
