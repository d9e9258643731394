"""A recipe for eight processes and 16 images, run by other numbers of them."""

import logging
from argparse import Namespace
from typing import NamedTuple

import pytest
import yaml

from sgr_d2.config import get_sgr_cfg
from sgr_d2.engine import Trainer, setup
from sgr_d2.engine.scaling import scale_solver

GIVEN = "SOLVER.IMS_PER_BATCH"


def recipe(**solver):
    cfg = get_sgr_cfg()
    cfg.SOLVER.merge_from_list(
        ["REFERENCE_WORLD_SIZE", 8, "IMS_PER_BATCH", 16, "BASE_LR", 0.8, "MAX_ITER", 1000, "STEPS", (600, 900)]
    )
    cfg.SOLVER.merge_from_list(["WARMUP_ITERS", 10, "CHECKPOINT_PERIOD", 50])
    cfg.TEST.EVAL_PERIOD = 100
    for key, value in solver.items():
        cfg.SOLVER[key] = value
    return cfg


class Numbers(NamedTuple):
    batch: int
    rate: float
    iterations: int
    steps: tuple
    warmup: int


def numbers(cfg):
    solver = cfg.SOLVER
    return Numbers(solver.IMS_PER_BATCH, solver.BASE_LR, solver.MAX_ITER, solver.STEPS, solver.WARMUP_ITERS)


@pytest.mark.parametrize(
    ("world_size", "expected"),
    [
        (8, (16, 0.8, 1000, (600, 900), 10)),
        (1, (2, 0.1, 8000, (4800, 7200), 80)),
        (2, (4, 0.2, 4000, (2400, 3600), 40)),
        (16, (32, 1.6, 500, (300, 450), 5)),
        (40, (80, 4.0, 200, (120, 180), 2)),
    ],
)
def test_the_same_recipe_on_other_machines(world_size, expected):
    cfg = scale_solver(recipe(), world_size)
    assert numbers(cfg)[:2] == pytest.approx(expected[:2])
    assert numbers(cfg)[2:] == expected[2:]
    periods = cfg.TEST.EVAL_PERIOD, cfg.SOLVER.CHECKPOINT_PERIOD
    assert periods == (expected[2] // 10, expected[2] // 20)
    # what happens at all happens at least once; a period of 0 means never
    short = recipe(CHECKPOINT_PERIOD=1, WARMUP_ITERS=0)
    short.TEST.EVAL_PERIOD = 1
    short = scale_solver(short, world_size)
    assert short.TEST.EVAL_PERIOD >= 1 and short.SOLVER.CHECKPOINT_PERIOD >= 1 and short.SOLVER.WARMUP_ITERS == 0
    # a second scaling, as the trainer's, changes nothing
    assert numbers(scale_solver(cfg, world_size)) == numbers(cfg)


def test_as_detectron2_does_it():
    for world_size in (1, 2, 4, 16):
        ours, theirs = scale_solver(recipe(), world_size), Trainer.auto_scale_workers(recipe(), world_size)
        assert ours.SOLVER == theirs.SOLVER and ours.TEST == theirs.TEST


@pytest.mark.parametrize(
    ("batch", "world_size", "scale"), [(2, 1, 1 / 8), (16, 1, 1), (16, 8, 1), (32, 8, 2), (4, 1, 1 / 4), (7, 1, 7 / 16)]
)
def test_the_others_follow_a_batch_that_is_given(batch, world_size, scale):
    cfg = scale_solver(recipe(IMS_PER_BATCH=batch), world_size, reference_batch=16, given={GIVEN})
    found = numbers(cfg)
    assert found.rate == pytest.approx(0.8 * scale)
    iterations, *steps, warmup = (round(number / scale) for number in (1000, 600, 900, 10))
    assert found == Numbers(batch, found.rate, iterations, tuple(steps), warmup)


def test_what_is_given_stays():
    cfg = recipe(IMS_PER_BATCH=1, MAX_ITER=2, BASE_LR=0.01)
    given = {GIVEN, "SOLVER.MAX_ITER", "SOLVER.BASE_LR", "TEST.EVAL_PERIOD"}
    cfg = scale_solver(cfg, 1, reference_batch=16, given=given)
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER) == (1, 0.01, 2)
    assert (cfg.TEST.EVAL_PERIOD, cfg.SOLVER.WARMUP_ITERS) == (100, 160)


def test_a_batch_too_small_for_the_processes_grows_to_an_image_each(caplog):
    with caplog.at_level(logging.INFO, logger="sgr_d2"):
        cfg = scale_solver(recipe(IMS_PER_BATCH=1), 2, reference_batch=16, given={GIVEN})
    assert numbers(cfg)[:2] == pytest.approx((2, 0.1))
    assert "SOLVER.IMS_PER_BATCH = 1 is the batch of all 2 processes" in caplog.text
    assert "BASE_LR 0.1, MAX_ITER 8000" in caplog.text
    caplog.clear()
    assert numbers(scale_solver(recipe(IMS_PER_BATCH=2), 2, reference_batch=16, given={GIVEN})) == numbers(cfg)
    assert "becomes" not in caplog.text  # an image each is enough


def test_a_reference_on_the_command_line_is_that_of_the_other_keys():
    cfg = recipe(IMS_PER_BATCH=4, REFERENCE_WORLD_SIZE=2)
    cfg = scale_solver(cfg, 1, reference_batch=16, given={GIVEN, "SOLVER.REFERENCE_WORLD_SIZE"})
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER) == (2, 2000)


def test_no_reference_no_scaling_and_one_that_does_not_divide():
    assert numbers(scale_solver(recipe(REFERENCE_WORLD_SIZE=0), 3, given={GIVEN})) == numbers(recipe())
    with pytest.raises(ValueError, match=r"IMS_PER_BATCH = 2 is the batch of SOLVER.REFERENCE_WORLD_SIZE = 8"):
        scale_solver(recipe(IMS_PER_BATCH=2), 1)


def test_setup_knows_the_command_line_and_the_trainer_keeps_to_it(config_file):
    config = yaml.safe_load(config_file.read_text())
    config["SOLVER"] |= {"REFERENCE_WORLD_SIZE": 8, "IMS_PER_BATCH": 16, "BASE_LR": 0.8}
    config["SOLVER"]["AMP"] = {"ENABLED": True}
    config_file.write_text(yaml.safe_dump(config))

    def load(*opts):
        return setup(
            Namespace(config_file=str(config_file), opts=list(opts), num_gpus=0, resume=False, eval_only=False)
        )

    cfg = load("SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "1")
    assert numbers(cfg)[:3] == pytest.approx((1, 0.05, 2))
    assert not cfg.SOLVER.AMP.ENABLED  # float16 is for GPUs
    trainer = Trainer(cfg)
    assert (trainer.max_iter, trainer.cfg.SOLVER.IMS_PER_BATCH) == (2, 1)
    assert load().SOLVER.MAX_ITER == 80
    assert load("SOLVER.AMP.ENABLED", "True").SOLVER.AMP.ENABLED
    assert load("SOLVER.IMS_PER_BATCH", "16", "SOLVER.ACCUMULATION_STEPS", "8").SOLVER.MAX_ITER == 10
