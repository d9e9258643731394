"""Two processes against one, with gloo on the CPU and NCCL on GPUs: the same training, the same figures."""

import json

import cv2
import numpy as np
import pytest
import torch
import yaml
from toy_processes import WITH_GPUS, train_net

# drawn at random by each process
PLACES = ("MODEL.SGR.NUM_PLACES", 3, "MODEL.SGR.FUSION_POSITION", True)


def metrics(output):
    return json.loads((output / "evaluation/scenes_val/metrics.json").read_text())


# with SyncBN rounding makes 3e-4 in SGR's last weights, and all there is of biases that a norm takes away again (1e-6)
@pytest.mark.parametrize(
    ("norm", "limit", "least"), [("LN", 1e-5, 1e-12), ("SyncBN", 1e-3, 1e-4)], ids=["LN", "SyncBN"]
)
def test_two_processes_train_and_evaluate_like_one(config_file, tmp_path, norm, limit, least):
    one, two = tmp_path / "one", tmp_path / "two"
    # SGD: Adam would blow rounding up where a gradient is zero but for it (the bias of attention keys)
    solver = ("SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", 0.01, "TEST.ERROR_KINDS.ENABLED", True)
    solver += ("MODEL.SGR.NORM", norm, *PLACES)
    train_net(config_file, one, *solver)
    log = train_net(config_file, two, *solver, processes=2)
    a, b = (torch.load(folder / "model_final.pth", weights_only=True)["model"] for folder in (one, two))
    for key, expected in a.items():
        error = (expected - b[key]).float().norm() / expected.float().norm().clamp(min=least)
        assert error < min(limit, 1e-4 if "running" in key else limit), (
            f"{key}: relative difference {error:.2e} after 10 steps. {log[-500:]}"
        )
    # the very same weights on one rank and on two, five images: bitwise the same figures
    weights = (
        "MODEL.WEIGHTS",
        one / "model_final.pth",
        "TEST.ERROR_KINDS.ENABLED",
        True,
        "MODEL.SGR.NORM",
        norm,
        *PLACES,
    )
    train_net(config_file, two, *weights, processes=2, flags=["--eval-only"])
    assert metrics(one) == metrics(two) and "error_kinds" in metrics(two)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_and_evaluate_like_one(config_file, tmp_path):
    """With SyncBN, which in one process is BN over the same batch."""
    options = ("MODEL.DEVICE", "cuda", "MODEL.TIMM.NORM", "SyncBN", "SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", 0.01)
    one, two = tmp_path / "one", tmp_path / "two"
    for processes, folder in ((1, one), (2, two)):
        train_net(config_file, folder, *options, processes=processes, environment=WITH_GPUS)
    a, b = (torch.load(f / "model_final.pth", map_location="cpu", weights_only=True)["model"] for f in (one, two))
    for key, expected in a.items():
        error = (expected.float() - b[key].float()).norm() / expected.float().norm().clamp(min=1e-4)
        assert error < 1e-2, f"{key}: relative difference {error:.2e} after 10 steps"
    weights = ("MODEL.WEIGHTS", one / "model_final.pth", "MODEL.DEVICE", "cuda")
    train_net(config_file, two, *weights, processes=2, flags=["--eval-only"], environment=WITH_GPUS)
    assert metrics(one)["sem_seg"] == pytest.approx(metrics(two)["sem_seg"], abs=0.01, nan_ok=True)


def test_statistics_of_the_first_rank_are_evaluated(config_file, tmp_path):
    """Each rank's BatchNorm sees its own images; a checkpoint holds the statistics of one."""
    options = ("MODEL.TIMM.NORM", "BN", "SOLVER.MAX_ITER", 3)
    train_net(config_file, tmp_path / "two", *options, processes=2)
    weights = ("MODEL.WEIGHTS", tmp_path / "two/model_final.pth")
    train_net(config_file, tmp_path / "one", *options, *weights, flags=["--eval-only"])
    assert metrics(tmp_path / "one") == metrics(tmp_path / "two")


@pytest.mark.slow
def test_two_processes_with_two_parts_a_step_train_like_one(config_file, tmp_path):
    """Without SGR, whose component loss is a mean over the components of a part."""
    opts = ("SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", 0.01, "MODEL.SGR.ENABLED", False, "DATASETS.TEST", "()")
    train_net(config_file, tmp_path / "one", *opts)
    train_net(config_file, tmp_path / "two", *opts, "SOLVER.ACCUMULATION_STEPS", 2, processes=2)
    a, b = (torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"] for name in ("one", "two"))
    for key, expected in a.items():
        error = (expected - b[key]).norm() / expected.norm().clamp(min=1e-12)
        assert error < 1e-5, f"{key}: relative difference {error:.2e} after 10 steps"


def test_one_rank_of_two_without_components(config_file, tmp_path, scenes):
    """Every other image is unlabelled, so that now one rank, now both have no component: finite, and no hang."""
    config = yaml.safe_load(config_file.read_text())
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for index, file in enumerate(sorted((scenes / "train/labels").iterdir())):
        label = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(tmp_path / "labels" / file.name), np.full_like(label, 255) if index % 2 else label)
        image = cv2.imread(str(scenes / "train/images" / file.name))
        cv2.imwrite(str(tmp_path / "images" / file.name), image)
    folder = config["DATASETS"]["FOLDERS"]["scenes_train"]
    folder["IMAGE_DIR"], folder["LABEL_DIR"] = str(tmp_path / "images"), str(tmp_path / "labels")
    config["SOLVER"]["IMS_PER_BATCH"] = 2
    config["SOLVER"]["MAX_ITER"] = 6
    config_file.write_text(yaml.safe_dump(config))
    train_net(config_file, tmp_path / "out", "DATASETS.TEST", "()", processes=2)
    saved = torch.load(tmp_path / "out/model_final.pth", weights_only=True)["model"]
    assert all(torch.isfinite(value).all() for value in saved.values() if value.is_floating_point())


def test_windows_in_an_evaluation_during_training(config_file, tmp_path):
    """Two processes, whose model is wrapped; fixed regions, which each would draw for itself."""
    opts = ["MODEL.SGR.REGIONS", "fixed", "MODEL.SGR.COMPONENT_WEIGHT", 0.0, "MODEL.SGR.DIVERSITY_WEIGHT", 0.0]
    opts += ["SOLVER.MAX_ITER", 2, "TEST.SLIDING_WINDOW.ENABLED", True, "TEST.SLIDING_WINDOW.SIZE", "[64, 64]"]
    opts += ["TEST.SLIDING_WINDOW.STRIDE", "[32, 32]", "TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", "(48,)"]
    train_net(config_file, tmp_path, *opts, processes=2)
    assert 0 <= metrics(tmp_path)["sem_seg"]["mIoU"] <= 100
