"""The configs of the published data sets, on miniature trees of their layouts: a step, an evaluation, the command."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import miniatures
import pytest
from detectron2.utils.events import EventStorage

from sgr_d2.engine import Trainer, load_config
from sgr_d2.engine.machine import use_machine

ROOT = Path(__file__).parents[2]
DATA_SETS = ("ade20k", "cityscapes", "coco_stuff")
LEAVES = [path for name in DATA_SETS for path in sorted((ROOT / "configs" / name).glob("*.yaml"))]
QUICK = ("ade20k/deeplab_v3_plus_sgr.yaml", "cityscapes/fpn_sgr.yaml", "coco_stuff/m2f_sgr.yaml")
# The published models on small images, without files from elsewhere.
SMALL = (
    *("MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0),
    *("INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.MIN_SIZE_TEST", 64, "INPUT.CROP.SIZE", [64, 64]),
    *("INPUT.COMPONENTS.MIN_AREA", 8, "MODEL.MASK_FORMER.TRAIN_NUM_POINTS", 256, "SOLVER.IMS_PER_BATCH", 2),
    *("SOLVER.REFERENCE_WORLD_SIZE", 0, "SOLVER.WARMUP_ITERS", 0),
)
WINDOWS_AND_SCALES = (
    *("TEST.SLIDING_WINDOW.ENABLED", True, "TEST.SLIDING_WINDOW.SIZE", [96, 96]),
    *("TEST.SLIDING_WINDOW.STRIDE", [64, 64], "TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (64, 128)),
)


def name(path: Path) -> str:
    return path.relative_to(ROOT / "configs").as_posix()


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    return miniatures.prepared(tmp_path_factory.mktemp("miniatures"), train=2, test=1)


@pytest.fixture
def data(tree, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tree))


def small_config(path, output, *opts):
    cfg = load_config(str(path), [*SMALL, "OUTPUT_DIR", str(output), *opts]).clone()
    cfg.defrost()
    use_machine(cfg, 1)
    return cfg


def check(results, cfg):
    assert 0 <= results["sem_seg"]["mIoU"] <= 100 and results["sem_seg"]["num_images"] == 1
    assert ("token_semantics" in results) == cfg.MODEL.SGR.ENABLED
    if cfg.MODEL.SGR.ENABLED:
        assert results["token_semantics"]["num_images"] == 1
        assert all(results["token_semantics"][figure] >= 0 for figure in ("S_C", "S_I", "D_C", "D_I"))
    if cfg.DATASETS.TEST[0].startswith("cityscapes"):
        assert {"IoU", "iIoU"} <= set(results["cityscapes"])


@pytest.mark.parametrize(
    "path", [pytest.param(p, marks=[] if name(p) in QUICK else pytest.mark.slow, id=name(p)) for p in LEAVES]
)
def test_a_step_and_an_evaluation(path, data, tmp_path):
    cfg = small_config(path, tmp_path)
    trainer = Trainer(cfg)
    trainer._trainer.data_loader = Trainer.build_train_loader(cfg)
    before = [float(parameter.detach().sum()) for parameter in trainer.model.parameters()]  # no second Swin-L in memory
    with EventStorage() as storage:
        trainer.run_step()
        assert math.isfinite(storage.latest()["total_loss"][0])
    parameters = dict(trainer.model.named_parameters())
    assert [key for key, parameter in parameters.items() if parameter.grad is None] == []
    moved = [old != float(new.detach().sum()) for old, new in zip(before, parameters.values(), strict=True)]
    assert sum(moved) > len(moved) / 2
    check(Trainer.test(cfg, trainer.model), cfg)


@pytest.mark.parametrize("leaf", QUICK)
def test_windows_and_scales_with_every_head(leaf, data, tmp_path):
    cfg = small_config(ROOT / "configs" / leaf, tmp_path, *WINDOWS_AND_SCALES)
    check(Trainer.test(cfg, Trainer.build_model(cfg)), cfg)


def test_cityscapes_without_instances_is_told_before_the_training(tree, tmp_path, monkeypatch):
    """Its labels alone train, but the official metrics of the evaluation at the end need the instances."""
    shutil.copytree(tree / "cityscapes", tmp_path / "cityscapes")
    for path in (tmp_path / "cityscapes/gtFine/val").rglob("*_instanceIds.png"):
        path.unlink()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    path = ROOT / "configs/cityscapes/fpn_sgr.yaml"
    with pytest.raises(ValueError, match=r"sem_seg_val: 1 of 1 images have no \*_gtFine_instanceIds\.png"):
        Trainer(small_config(path, tmp_path))
    Trainer(small_config(path, tmp_path, "TEST.FULL_SIZE", False))


@pytest.mark.slow
def test_the_command_of_the_readme_on_one_and_two_processes(tree, tmp_path):
    """Train, evaluate, evaluate again, with one process and with two; figures of a checkpoint do not depend on them."""

    def run(processes, output, *opts, flags=()):
        command = [sys.executable, "-W", "ignore", "train_net.py", "--config-file", "configs/coco_stuff/m2f_sgr.yaml"]
        command += ["--num-gpus", str(processes), "--dist-url", "auto", *flags, *SMALL_SIZES]
        command += ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "1", "OUTPUT_DIR", str(output), *map(str, opts)]
        environment = {"DETECTRON2_DATASETS": str(tree), "PATH": "", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=ROOT, env=environment)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert all(figure in done.stdout for figure in ("mIoU", "S_C", "S_I", "D_C", "D_I"))
        folder = output / "evaluation/coco_2017_test_stuff_10k_sem_seg"
        return json.loads((folder / "metrics.json").read_text()), done.stdout

    for processes in (0, 2):
        output = tmp_path / str(processes)
        trained, log = run(processes, output)
        assert f"IMS_PER_BATCH {max(processes, 1)}, " in log and "MAX_ITER 2," in log
        weights = ("MODEL.WEIGHTS", output / "model_final.pth")
        assert run(2 - processes, tmp_path / "again", *weights, flags=["--eval-only"])[0] == trained


SMALL_SIZES = (
    *("MODEL.WEIGHTS", "", "DATALOADER.NUM_WORKERS", "0", "INPUT.MIN_SIZE_TRAIN", "(64,)"),
    *("INPUT.MIN_SIZE_TEST", "64", "INPUT.CROP.SIZE", "[64,64]", "MODEL.MASK_FORMER.TRAIN_NUM_POINTS", "256"),
)
