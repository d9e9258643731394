"""Runs that go on: the same numbers, the settings of the config, and only with what they began with."""

import json
import logging
import re

import pytest
import timm
import torch
import yaml
from detectron2.engine import HookBase
from detectron2.utils.env import seed_all_rng
from toy_runs import run, weights

from sgr_d2.engine import Trainer, load_config, train
from sgr_d2.engine.earlier_run import _locks


def interrupted(cfg, *, after: int, checkpoint_period: int) -> None:
    class Stop(HookBase):
        def after_step(self):
            if self.trainer.iter + 1 == after:
                raise KeyboardInterrupt

    cfg.defrost()
    cfg.SOLVER.CHECKPOINT_PERIOD = checkpoint_period
    seed_all_rng(cfg.SEED)  # as the set-up of a run does
    trainer = Trainer(cfg)
    trainer.register_hooks([Stop()])
    trainer.resume_or_load(resume=False)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()


@pytest.mark.parametrize("precise_bn", [False, True])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(config_file, tmp_path, precise_bn):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    opts = ["SOLVER.MAX_ITER", 8]
    if precise_bn:  # before each evaluation; the statistics are then those of an uninterrupted run, too
        opts += ["TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 2, "TEST.EVAL_PERIOD", 3]
    run(config_file, "OUTPUT_DIR", whole, *opts)
    # an interruption: a run of the same schedule that dies after the checkpoint at iteration 4
    cfg = load_config(str(config_file), ["OUTPUT_DIR", str(parts), *map(str, opts)])
    interrupted(cfg, after=5, checkpoint_period=4)
    run(config_file, "OUTPUT_DIR", parts, *opts, resume=True)
    expected, actual = weights(whole), weights(parts)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[key], actual[key]) for key in expected)


def test_a_run_that_goes_on_from_the_best_checkpoint_skips_no_step(config_file, tmp_path):
    """That of the evaluation after the last step."""
    opts = ["OUTPUT_DIR", tmp_path, "SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", "SOLVER.STEPS", "(9,)"]
    run(config_file, *opts, "SOLVER.MAX_ITER", 2)
    ends = []
    for name in ("model_final.pth", "model_best.pth"):
        assert torch.load(tmp_path / name, weights_only=True)["trainer"]["iteration"] == 1
        (tmp_path / "last_checkpoint").write_text(name)
        run(config_file, *opts, "SOLVER.MAX_ITER", 4, "DATASETS.TEST", "()", resume=True)
        ends.append(weights(tmp_path))
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_a_finished_run_is_evaluated_without_another_figure(config_file, tmp_path):
    opts = ["OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", 2]
    metrics = tmp_path / "metrics.json"
    first = run(config_file, *opts)
    before = metrics.read_text().splitlines()
    assert json.loads(before[-1])["iteration"] == 2 and "sem_seg/mIoU" in before[-1]
    assert run(config_file, *opts, resume=True) == first
    assert metrics.read_text().splitlines() == before
    assert "SOLVER.MAX_ITER = 2: the run is finished" in (tmp_path / "log.txt").read_text()
    metrics.write_text("\n".join(before[:-1]) + "\n")  # killed during the evaluation
    run(config_file, *opts, resume=True)
    steps, last = metrics.read_text().splitlines()[:-1], json.loads(metrics.read_text().splitlines()[-1])
    assert steps == before[:-1]
    assert last["iteration"] == 2 and last["sem_seg/mIoU"] == json.loads(before[-1])["sem_seg/mIoU"]


def test_a_new_run_does_not_overwrite_an_earlier_one(config_file, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sgr_d2.engine.setup"), "handlers", [caplog.handler])
    for steps in (1, 2, 3):
        run(config_file, "OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", steps)
        (tmp_path / "notes.txt").write_text("not of a run")
    assert f"is now in {tmp_path}/earlier_2; --resume" in caplog.text
    found = [torch.load(file, weights_only=True)["iteration"] for file in sorted(tmp_path.rglob("model_final.pth"))]
    assert found == [0, 1, 2]
    kept = {path.name.split(".")[0] for path in (tmp_path / "earlier_1").iterdir()}
    assert {"config", "curves", "evaluation", "events", "last_checkpoint", "log", "metrics", "model_final"} <= kept
    assert (tmp_path / "notes.txt").is_file()
    rows = (tmp_path / "metrics.json").read_text().splitlines()
    assert min(json.loads(row)["iteration"] for row in rows) == 2
    run(config_file, "MODEL.WEIGHTS", tmp_path / "model_final.pth", "OUTPUT_DIR", tmp_path, eval_only=True)
    assert not (tmp_path / "earlier_3").exists()
    with pytest.raises(ValueError, match=r"model_final.pth is a file of the run in OUTPUT_DIR.*another OUTPUT_DIR"):
        run(config_file, "MODEL.WEIGHTS", tmp_path / "model_final.pth", "OUTPUT_DIR", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"MODEL.WEIGHTS = typo.pth: no such checkpoint"):
        run(config_file, "MODEL.WEIGHTS", "typo.pth", "OUTPUT_DIR", tmp_path)
    assert not (tmp_path / "earlier_3").exists()
    (tmp_path / "last_checkpoint").unlink()
    with pytest.raises(ValueError, match=r"holds no checkpoint, but .*earlier_2 does"):
        run(config_file, "OUTPUT_DIR", tmp_path, resume=True)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("MODEL.SGR.NORM", "GN"), r"MODEL.SGR.NORM = 'GN'"),
        (("SOLVER.REFERENCE_WORLD_SIZE", 3), r"IMS_PER_BATCH = 4 is the batch of SOLVER.REFERENCE_WORLD_SIZE = 3"),
        (("INPUT.CROP.SIZE", "(2.5, 3.5)"), r"INPUT.CROP.SIZE must be two whole numbers"),
    ],
)
def test_a_refused_run_leaves_the_earlier_one_where_it_was(config_file, tmp_path, options, error):
    run(config_file, "OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".pth", ".yaml", ".json")}
    with pytest.raises(ValueError, match=error):
        run(config_file, "OUTPUT_DIR", tmp_path, *options)
    assert not (tmp_path / "earlier_1").exists()
    assert before == {name: (tmp_path / name).read_bytes() for name in before} and len(before) >= 4
    run(config_file, "OUTPUT_DIR", tmp_path, "MODEL.WEIGHTS", tmp_path / "model_final.pth", eval_only=True)


@pytest.mark.parametrize("scheduler", ["WarmupPolyLR", "WarmupMultiStepLR"])
def test_a_resumed_run_follows_the_schedule_of_its_config(config_file, tmp_path, scheduler, caplog):
    solver = ["SOLVER.LR_SCHEDULER_NAME", scheduler, "SOLVER.STEPS", "(7,)", "SOLVER.WARMUP_ITERS", 0]
    solver += ["OUTPUT_DIR", tmp_path, "DATASETS.TEST", "()", "SOLVER.BACKBONE_MULTIPLIER", 0.5]
    run(config_file, *solver, "SOLVER.MAX_ITER", 4, "SOLVER.BASE_LR", 0.001)
    with caplog.at_level("WARNING", logger="sgr_d2"):
        run(config_file, *solver, "SOLVER.MAX_ITER", 8, "SOLVER.BASE_LR", 0.002, resume=True)
    assert "base_lrs up to 0.001 -> up to 0.002" in caplog.text
    assert ("max_iters 4 -> 8" in caplog.text) == (scheduler == "WarmupPolyLR")
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert saved["iteration"] == 7
    rates = [group["lr"] for group in saved["trainer"]["_trainer"]["optimizer"]["param_groups"]]
    end = 0.0 if scheduler == "WarmupPolyLR" else 0.1  # of the rate at the start
    assert [min(rates), max(rates)] == pytest.approx([0.001 * end, 0.002 * end])
    with pytest.raises(ValueError, match=r"is of iteration 8, but SOLVER.MAX_ITER is 6"):
        run(config_file, *solver, "SOLVER.MAX_ITER", 6, resume=True)


def test_a_resumed_run_has_the_decays_and_the_momentum_of_its_config(config_file, tmp_path):
    solver = ["SOLVER.OPTIMIZER", "SGD", "OUTPUT_DIR", tmp_path, "DATASETS.TEST", "()"]
    run(config_file, *solver, "SOLVER.MAX_ITER", 1, "SOLVER.WEIGHT_DECAY", 0.01)
    changed = ["SOLVER.WEIGHT_DECAY", 0.5, "SOLVER.MOMENTUM", 0.7]
    run(config_file, *solver, "SOLVER.MAX_ITER", 2, *changed, resume=True)
    log = (tmp_path / "log.txt").read_text()
    assert "weight_decay 0.01 -> 0.5" in log and "momentum 0.9 -> 0.7" in log
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    groups = saved["trainer"]["_trainer"]["optimizer"]["param_groups"]
    assert {group["momentum"] for group in groups} == {0.7}
    assert {group["weight_decay"] for group in groups} == {0.5, 0.0}  # none for norms and embeddings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("MODEL.SGR.NUM_TOKENS", 5), r"lacks \d+ parameters of the model, or has them in another shape: .*region"),
        (("SOLVER.OPTIMIZER", "SGD"), r"SOLVER.OPTIMIZER differs: this one has .*momentum.*, the file's .*betas"),
        (("MODEL.SGR.ENABLED", False), r"the optimizer has groups of \[.+\] parameters, the file's \["),
        (("SOLVER.IMS_PER_BATCH", 2), r"with SOLVER.IMS_PER_BATCH = 4, but this one has 2: .*_BATCH 4, with"),
        (("SEED", 11), r"is from a run with SEED = \d+, but this one has 11: .* Give SEED \d+, with"),
        (("DATASETS.TRAIN_FRACTION", 0.5), r"DATASETS.TRAIN_FRACTION = 1.0, but this one has 0.5"),
        (("DATASETS.TRAIN", "('scenes_val',)"), r"TRAIN = \['scenes_train'\], but this one has \('scenes_val',\)"),
    ],
)
def test_a_run_is_resumed_with_its_model_and_its_optimizer(config_file, trained, options, message):
    opts = ["OUTPUT_DIR", trained.checkpoint.parent, "SOLVER.MAX_ITER", 4]
    settings = trained.checkpoint.with_name("config.yaml")
    before = settings.read_text()
    with pytest.raises(ValueError, match=rf"--resume: .*model_final.pth.*{message}.*without --resume"):
        run(config_file, *opts, *options, resume=True)
    assert settings.read_text() == before and "MAX_ITER: 2\n" in before


def test_a_model_without_the_state_of_its_training_is_not_resumed(config_file, trained, tmp_path):
    model = torch.load(trained.checkpoint, weights_only=True)["model"]
    torch.save({"model": model}, tmp_path / "slim.pth")
    (tmp_path / "last_checkpoint").write_text("slim.pth")
    with pytest.raises(ValueError, match=r"slim\.pth holds a model but no state of its training"):
        run(config_file, "OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", 9, resume=True)


def test_a_run_that_goes_on_has_its_new_settings_on_disk(config_file, tmp_path):
    start = tmp_path / "start.pth"
    torch.save(timm.create_model("resnet10t").state_dict(), start)
    opts = ["OUTPUT_DIR", tmp_path, "MODEL.TIMM.WEIGHTS", start]
    run(config_file, *opts, "SOLVER.MAX_ITER", 1)
    start.unlink()  # not needed a second time
    with (tmp_path / "evaluation/scenes_val/config.yaml").open() as before:
        first = run(config_file, *opts, "SOLVER.MAX_ITER", 2, resume=True)
        assert "MAX_ITER: 1\n" in before.read()  # replaced, not rewritten
    settings = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (settings["SOLVER"]["MAX_ITER"], settings["MODEL"]["TIMM"]["WEIGHTS"]) == (2, str(start))
    # of a run that is at its end there is only the evaluation left
    before = (tmp_path / "config.yaml").read_text()
    assert run(config_file, *opts, "SOLVER.MAX_ITER", 2, "INPUT.CROP.SIZE", "(16, 16)", resume=True) == first
    assert (tmp_path / "config.yaml").read_text() == before
    assert re.search(
        r"--resume: .*other settings: INPUT.CROP.SIZE \[.+\] -> \[16, 16\]\. ", (tmp_path / "log.txt").read_text()
    )
    assert tmp_path.resolve() not in _locks
    # the same without `setup`, which writes the file, too
    more = ["SOLVER.MAX_ITER", 3, "DATASETS.TEST", "()"]
    with (tmp_path / "config.yaml").open() as former:
        train(load_config(str(config_file), [str(opt) for opt in [*opts, *more]]), resume=True)
        assert former.read() == before
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["SOLVER"]["MAX_ITER"] == 3


def test_a_seed_that_was_drawn_is_that_of_the_whole_run(config_file, tmp_path):
    opts = ["SEED", -1, "DATASETS.TEST", "()"]
    run(config_file, *opts, "OUTPUT_DIR", tmp_path / "whole", "SOLVER.MAX_ITER", 4)
    drawn = yaml.safe_load((tmp_path / "whole/config.yaml").read_text())["SEED"]
    cfg = load_config(str(config_file), ["SEED", str(drawn), "OUTPUT_DIR", str(tmp_path / "parts")])
    cfg.defrost()
    cfg.merge_from_list(["SOLVER.MAX_ITER", 4, "DATASETS.TEST", ()])
    interrupted(cfg, after=3, checkpoint_period=2)
    (tmp_path / "parts/config.yaml").write_text(cfg.dump())
    run(config_file, *opts, "OUTPUT_DIR", tmp_path / "parts", "SOLVER.MAX_ITER", 4, resume=True)
    expected, actual = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(expected[key], actual[key]) for key in expected)


def test_classes_in_another_order_are_not_evaluated_nor_resumed(config_file, trained, tmp_path):
    config_file.write_text(config_file.read_text().replace("- left\n      - right", "- right\n      - left"))
    opts = ["MODEL.WEIGHTS", trained.checkpoint, "SOLVER.MAX_ITER", 1]
    message = r"model_final.pth was .*scenes_train, scenes_val: class 0 is left there and right here, of 3 and 3"
    with pytest.raises(ValueError, match=message):
        run(config_file, *opts, eval_only=True)
    with pytest.raises(ValueError, match=message):
        run(config_file, *opts, "OUTPUT_DIR", trained.checkpoint.parent, resume=True)
    run(config_file, *opts, "OUTPUT_DIR", tmp_path / "tuned", "DATASETS.TEST", "()")
    assert "class 0 is left there and right here" in (tmp_path / "tuned/log.txt").read_text()
