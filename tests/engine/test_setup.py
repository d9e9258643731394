import re
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
import yaml
from detectron2.engine import default_argument_parser
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.logger import setup_logger
from toy_checkpoint import write_checkpoint

from sgr_d2.engine import SGRPredictor, Trainer, load_config, setup
from sgr_d2.engine.checkpoint.model_card import KEY, ModelCard
from sgr_d2.engine.machine import use_machine
from sgr_d2.modeling import SGRSegmentor


def arguments(*words):
    return default_argument_parser().parse_args(words)


def load(config_file, *opts):
    return load_config(str(config_file), list(opts))


def test_classes_and_ignore_label_come_from_the_data_set(config_file):
    cfg = load(config_file)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == cfg.MODEL.POINT_HEAD.NUM_CLASSES == 3
    assert cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE == 255
    config_file.write_text(re.sub("(CLASSES:)", r"IGNORE_LABEL: 7\n      \1", config_file.read_text()))
    assert load(config_file).MODEL.SEM_SEG_HEAD.IGNORE_VALUE == 7
    with pytest.raises(ValueError, match=r"IGNORE_VALUE = 0, but the ignore label of scenes_train, scenes_val is 7"):
        load(config_file, "MODEL.SEM_SEG_HEAD.IGNORE_VALUE", "0")


def test_panoptic_models_are_refused(config_file):
    with pytest.raises(ValueError, match=r"SGRPanopticFPN needs instances and label maps at once"):
        load(config_file, "MODEL.META_ARCHITECTURE", "SGRPanopticFPN")


@pytest.mark.parametrize(
    ("model", "data_set", "tasks"),
    [
        ("SGRGeneralizedRCNN", "scenes_train", "is for detection.*scenes_train, are for segmentation"),
        ("SGRSegmentor", "tiny_coco_train", "is for segmentation.*tiny_coco_train, are for detection"),
    ],
)
def test_a_model_for_another_task_than_the_data_sets(config_file, model, data_set, tasks):
    options = ["DATASETS.TRAIN", f"('{data_set}',)", "DATASETS.TEST", "()"]
    with pytest.raises(ValueError, match=rf"MODEL.META_ARCHITECTURE = {model} {tasks}.*SGR"):
        load(config_file, "MODEL.META_ARCHITECTURE", model, *options)


def test_a_model_of_ones_own_may_be_for_any_task(config_file):
    META_ARCH_REGISTRY._obj_map["Mine"] = SGRSegmentor
    try:
        load(
            config_file,
            "MODEL.META_ARCHITECTURE",
            "Mine",
            "DATASETS.TRAIN",
            "('tiny_coco_train',)",
            "DATASETS.TEST",
            "()",
        )
    finally:
        del META_ARCH_REGISTRY._obj_map["Mine"]


def test_a_config_that_contradicts_the_data_set_stops_with_both_numbers(config_file):
    with pytest.raises(ValueError, match=r"SEM_SEG_HEAD.NUM_CLASSES = 19.*scenes_train.* 3 classes"):
        load(config_file, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "19")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"MODEL: \xff", "codec can't decode"),
        (b"MODEL: [", "while parsing"),
        (b"", "holds no config"),
        (b"- MODEL", "holds no config"),
        (b"VERSION: 3", "Cannot merge a v3 config"),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path, content, why):
    config = tmp_path / "mine.yaml"
    config.write_bytes(content)
    with pytest.raises(ValueError, match=rf"mine.yaml: .*{why}"):
        load_config(str(config))


@pytest.mark.parametrize(
    ("key", "value", "choice"),
    [
        ("MODEL.SEM_SEG_HEAD.NAME", "SemSegFPNHed", "SemSegFPNHead"),
        ("MODEL.BACKBONE.NAME", "build_tim_backbone", "build_timm_backbone"),
        ("MODEL.META_ARCHITECTURE", "SGRSegmenter", "SGRSegmentor"),
    ],
)
def test_unknown_parts_list_the_choices(config_file, key, value, choice):
    with pytest.raises(ValueError, match=rf"{key} = '{value}'.*Did you mean '{choice}'"):
        load(config_file, key, value)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("TEST.NUM_PICTURES", "-1", "0 or more"),
        ("TEST.TOKEN_SEMANTICS.MIN_MASS", "1.0", "0 or more and less than 1"),
        ("MODEL.SEM_SEG_HEAD.MASK_DIM", "0", "1 or more"),
        ("SOLVER.SGR_MULTIPLIER", "-0.5", "0 or more"),
        ("SOLVER.BASE_LR", "-0.1", "0 or more"),
        ("SOLVER.WARMUP_ITERS", "-1", "0 or more"),
        ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "-1.0", "0 or more"),
        ("INPUT.MAX_SIZE_TRAIN", "0", "1 or more"),
        ("INPUT.MIN_SIZE_TEST", "-1", "0 or more"),
        ("INPUT.MAX_SIZE_TEST", "0", "1 or more"),
        ("TEST.AUG.MAX_SIZE", "0", "1 or more"),
        ("TEST.SLIDING_WINDOW.BATCH_SIZE", "0", "1 or more"),
        ("TEST.SLIDING_WINDOW.BATCH_SIZE", "-1", "1 or more"),
        ("SOLVER.IMS_PER_BATCH", "0", "1 or more"),
        ("MODEL.SGR.NUM_TOKENS", "0", "1 or more"),
        ("MODEL.TIMM.DROP_PATH_RATE", "nan", "0 or more and less than 1"),
        ("MODEL.PIXEL_MEAN", "[0.0, 0.0]", "three numbers, in the order of INPUT.FORMAT (RGB)"),
        ("MODEL.PIXEL_STD", "[1.0, 0.0, 1.0]", "three numbers above zero, in the order of INPUT.FORMAT (RGB)"),
    ],
)
def test_numbers_out_of_their_range_are_found_at_once(config_file, key, value, wanted):
    with pytest.raises(ValueError, match=re.escape(f"{key} = {value}: give {wanted}.")):
        load(config_file, key, float(value) if value == "nan" else value)


@pytest.mark.parametrize("part", ["FPN", "SEM_SEG_HEAD"])
def test_an_unknown_norm_is_found_at_once(config_file, part):
    with pytest.raises(ValueError, match=rf"MODEL\.{part}\.NORM = 'GroupNorm': choose from \['', 'BN', .*'GN'"):
        load(config_file, f"MODEL.{part}.NORM", "GroupNorm")


def test_an_unknown_precision_is_found_at_once(config_file):
    with pytest.raises(ValueError, match=r"SOLVER\.AMP\.DTYPE = 'half': choose from \['bfloat16', 'float16'\]\."):
        load(config_file, "SOLVER.AMP.DTYPE", "half")


def test_unknown_or_no_data_sets(config_file):
    with pytest.raises(ValueError, match=r"scenes_trian.*scenes_train"):
        load(config_file, "DATASETS.TRAIN", "('scenes_trian',)")
    with pytest.raises(ValueError, match=r"DATASETS.TRAIN and DATASETS.TEST are both empty"):
        load(config_file, "DATASETS.TRAIN", "()", "DATASETS.TEST", "()")


def test_no_config():
    with pytest.raises(ValueError, match="--config-file"):
        load_config("")
    with pytest.raises(FileNotFoundError, match=r"nowhere.yaml: no such file"):
        load_config("nowhere.yaml")


def test_a_base_that_is_not_there_is_named_with_the_file_that_asks_for_it(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("_BASE_: configs/nowhere.yaml\n")
    with pytest.raises(FileNotFoundError, match=r"mine.yaml: no file .*/nowhere.yaml. Paths in _BASE_ are relative"):
        load_config(str(config))


@pytest.mark.parametrize(("world", "why"), [(1, "one process"), (2, "no GPU")])
def test_syncbn_becomes_bn_with_a_log_line(config_file, caplog, world, why):
    cfg = load(config_file, "MODEL.SEM_SEG_HEAD.NORM", "SyncBN", "MODEL.TIMM.NORM", "SyncBN").clone()
    cfg.defrost()
    setup_logger(name="sgr_d2").propagate = True
    with caplog.at_level("INFO", logger="sgr_d2"):
        use_machine(cfg, world)
    assert cfg.MODEL.SEM_SEG_HEAD.NORM == cfg.MODEL.TIMM.NORM == "BN"
    assert f"SyncBN becomes BN ({why}): " in caplog.text
    assert "MODEL.SEM_SEG_HEAD.NORM" in caplog.text
    assert cfg.MODEL.SGR.NORM == "SyncBN" and "MODEL.SGR.NORM" not in caplog.text  # which works anywhere


def test_the_machine_decides_the_device(config_file):
    cfg = load(config_file, "MODEL.DEVICE", "cuda").clone()
    cfg.defrost()
    use_machine(cfg, 1)
    assert ("cuda" if torch.cuda.is_available() else "cpu") == cfg.MODEL.DEVICE


def test_arguments(config_file, tmp_path):
    cfg = setup(arguments("--config-file", str(config_file), "--eval-only", "SEED", "-1"))
    assert cfg.SEED >= 0  # drawn, so that the saved config repeats the run
    assert (tmp_path / "output/config.yaml").is_file()


def test_batch_rate_and_schedule_scale_with_the_number_of_processes(config_file):
    cfg = load(
        config_file,
        *("SOLVER.REFERENCE_WORLD_SIZE", "8", "SOLVER.IMS_PER_BATCH", "16", "SOLVER.BASE_LR", "0.01"),
        *("SOLVER.MAX_ITER", "100", "SOLVER.WARMUP_ITERS", "10", "TEST.EVAL_PERIOD", "50"),
    )
    solver = Trainer.auto_scale_workers(cfg, 2).SOLVER
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.MAX_ITER, solver.WARMUP_ITERS) == (4, 0.0025, 400, 40)


MY_NET = """
from detectron2.config import CfgNode
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn

def add_config(cfg):
    cfg.MODEL.MY_NET = CfgNode({"WIDTH": 16})

if "MyHead" not in SEM_SEG_HEADS_REGISTRY:
    @SEM_SEG_HEADS_REGISTRY.register()
    class MyHead(nn.Module):
        def __init__(self, cfg, input_shape):
            super().__init__()
            width = cfg.MODEL.MY_NET.WIDTH
            self.layers = nn.Sequential(nn.Conv2d(input_shape["p2"].channels, width, 1), nn.Conv2d(width, 3, 1))

        def forward(self, features, targets=None):
            return nn.functional.interpolate(self.layers(features["p2"]), scale_factor=4), {}
"""


def test_modules_and_keys_of_ones_own(config_file, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    own = yaml.safe_load(config_file.read_text())
    own["MODEL"] |= {"MY_NET": {"WIDTH": 8}, "SEM_SEG_HEAD": {"NAME": "MyHead", "IN_FEATURES": ["p2", "p3", "p4"]}}
    config_file.write_text(yaml.safe_dump(own))
    with pytest.raises(KeyError, match=r"no config key MODEL.MY_NET.*IMPORTS"):
        load(config_file)
    with pytest.raises(ValueError, match=r"scenes.yaml: IMPORTS: my_net cannot be imported.*PYTHONPATH"):
        load(config_file, "IMPORTS", "['my_net']")
    with pytest.raises(ValueError, match=r"IMPORTS = 'my_net': give a list"):
        load(config_file, "IMPORTS", "my_net")
    (tmp_path / "my_net.py").write_text(MY_NET)
    config_file.write_text(yaml.safe_dump(own | {"IMPORTS": ["my_net"]}))
    flags = ("--eval-only", "--num-gpus", "0")
    cfg = setup(arguments("--config-file", str(config_file), *flags, "MODEL.MY_NET.WIDTH", "9"))
    model = Trainer.build_model(cfg)
    assert model.sem_seg_head.layers[0].out_channels == 9
    torch.save({"model": model.state_dict(), KEY: asdict(ModelCard.of(cfg))}, tmp_path / "own.pth")
    image = np.zeros((64, 64, 3), np.uint8)
    assert SGRPredictor.from_checkpoint(tmp_path / "own.pth")(image).labels.shape == (64, 64)  # it is imported already
    monkeypatch.delitem(sys.modules, "my_net")
    with pytest.raises(ValueError, match=r"checkpoint has IMPORTS: my_net, which would run code"):
        SGRPredictor.from_checkpoint(tmp_path / "own.pth")
    assert "my_net" not in sys.modules
    given = SGRPredictor.from_checkpoint(tmp_path / "own.pth", opts=["IMPORTS", ["my_net"]])
    assert given(image).labels.shape == (64, 64)


def test_a_checkpoint_of_parts_that_are_not_registered(tmp_path):
    path = write_checkpoint(tmp_path / "a.pth", change=lambda config: config["MODEL"]["BACKBONE"].update(NAME="mine"))
    with pytest.raises(ValueError, match=r"BACKBONE.NAME = 'mine' is not registered.*or add the module.* to IMPORTS"):
        SGRPredictor.from_checkpoint(path)
