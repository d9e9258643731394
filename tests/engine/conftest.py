from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml
from toys import toy_cfg

import train_net
from sgr_d2.engine.checkpoint.model_card import KEY
from sgr_d2.modeling.sgr.parts import is_part_of_sgr

CLASSES = ["left", "right", "disc"]


def write_scene(folder, index: int, size=(72, 96)) -> None:
    """A two-coloured scene with a disc; no ignored pixels, so that every split of a batch labels the same number."""
    rng = np.random.default_rng(index)
    height, width = size
    labels = np.zeros(size, np.uint8)
    labels[:, int(rng.integers(width // 3, 2 * width // 3)) :] = 1
    centre = (int(rng.integers(20, width - 20)), int(rng.integers(20, height - 20)))
    cv2.circle(labels, centre, 12, 2, -1)
    colors = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])
    image = np.clip(colors[labels] + rng.normal(0, 20, (*size, 3)), 0, 255).astype(np.uint8)
    for kind, array in (("images", image), ("labels", labels)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / kind / f"{index:03d}.png"), array)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Folders of 9 training and 5 test scenes (odd numbers on purpose)."""
    root = tmp_path_factory.mktemp("scenes")
    for index in range(14):
        write_scene(root / ("train" if index < 9 else "val"), index)
    return root


@pytest.fixture
def config_file(scenes, tmp_path):
    """A yaml of a small real model (no BatchNorm) on the scenes."""
    return write_config(scenes, tmp_path)


@pytest.fixture(scope="session")
def trained(scenes, tmp_path_factory):
    """Such a yaml (``config``), and the checkpoint of two training steps with it (``checkpoint``)."""
    folder = tmp_path_factory.mktemp("trained")
    config = write_config(scenes, folder)
    flags = {"eval_only": False, "resume": False, "num_gpus": 0}
    train_net.main(SimpleNamespace(config_file=str(config), opts=["SOLVER.MAX_ITER", "2"], **flags))
    return SimpleNamespace(config=config, checkpoint=folder / "output" / "model_final.pth")


@pytest.fixture(scope="session")
def plain_checkpoint(trained, tmp_path_factory):
    """That checkpoint as if the model had been trained without SGR."""
    saved = torch.load(trained.checkpoint, weights_only=True)
    saved["model"] = {name: value for name, value in saved["model"].items() if not is_part_of_sgr(name)}
    config = yaml.safe_load(saved[KEY]["config"])
    config["MODEL"]["SGR"]["ENABLED"] = False
    saved[KEY]["config"] = yaml.safe_dump(config)
    path = tmp_path_factory.mktemp("plain") / "model_final.pth"
    torch.save(saved, path)
    return path


def write_config(scenes, folder):
    path = folder / "scenes.yaml"
    path.write_text(yaml.safe_dump(scenes_config(scenes, folder)))
    return path


def scenes_config(scenes, folder) -> dict:
    """The content of that yaml; it writes below ``folder``."""
    folders = {
        f"scenes_{split}": {
            "IMAGE_DIR": str(scenes / split / "images"),
            "LABEL_DIR": str(scenes / split / "labels"),
            "CLASSES": CLASSES,
        }
        for split in ("train", "val")
    }
    sgr = toy_cfg().MODEL.SGR
    return {
        "VERSION": 2,
        "SEED": 7,
        "OUTPUT_DIR": str(folder / "output"),
        "DATASETS": {"FOLDERS": folders, "TRAIN": ["scenes_train"], "TEST": ["scenes_val"]},
        "DATALOADER": {"NUM_WORKERS": 0},
        "INPUT": {
            "FORMAT": "RGB",
            "MIN_SIZE_TRAIN": [64, 80],
            "MIN_SIZE_TEST": 0,
            "CROP": {"ENABLED": True, "TYPE": "absolute", "SIZE": [64, 64]},
        },
        "MODEL": {
            "DEVICE": "cpu",
            "BACKBONE": {"NAME": "build_timm_fpn_backbone"},
            "TIMM": {"NAME": "resnet10t", "NORM": "FrozenBN"},
            "FPN": {"IN_FEATURES": ["res2", "res3", "res4", "res5"], "OUT_CHANNELS": 16},
            "PIXEL_MEAN": [127.5] * 3,
            "PIXEL_STD": [127.5] * 3,
            "SGR": {**dict(sgr), "IN_FEATURES": ["p3", "p4"]},
            "SEM_SEG_HEAD": {
                "NAME": "SemSegFPNHead",
                "IN_FEATURES": ["p2", "p3", "p4", "p5"],
                "CONVS_DIM": 16,
                "NORM": "",
            },
        },
        "SOLVER": {
            "OPTIMIZER": "ADAMW",
            "LR_SCHEDULER_NAME": "WarmupPolyLR",
            "BASE_LR": 1e-3,
            "WARMUP_ITERS": 2,
            "IMS_PER_BATCH": 4,
            "MAX_ITER": 10,
            "CLIP_GRADIENTS": {"ENABLED": True, "CLIP_VALUE": 1.0},
        },
    }
