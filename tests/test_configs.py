"""Promises about configs and keys that a machine can check."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_backbone, build_model
from detectron2.projects.deeplab import add_deeplab_config
from detectron2.projects.point_rend import add_pointrend_config
from torch import nn

from sgr_d2.config import add_sgr_config, get_sgr_cfg
from sgr_d2.engine import load_config, load_weights
from sgr_d2.engine.machine import use_machine

ROOT = Path(__file__).parents[1]
FRAGMENTS = sorted((ROOT / "configs/_base_").rglob("*.yaml"))
LEAVES = sorted(set((ROOT / "configs").rglob("*.yaml")) - set(FRAGMENTS))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def loaded(path: Path) -> CfgNode:
    return load_config(str(path), [])


def flat(node: dict, prefix: str = "") -> dict:
    result = {}
    for key, value in node.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result


def test_adding_the_keys_leaves_the_others_as_they_are():
    known, cfg = get_cfg(), get_cfg()
    add_deeplab_config(known)
    add_pointrend_config(known)
    add_sgr_config(cfg)
    ours = flat(cfg)
    assert {key: ours[key] for key in flat(known)} == flat(known)
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, cfg.MODEL.DEVICE = "SGRSegmentor", 0, "cpu"
    with pytest.raises(ValueError, match=r"SEM_SEG_HEAD.NUM_CLASSES = 0: give the number of classes"):
        build_model(cfg)


def own_and_inherited(path: Path) -> tuple[dict, dict]:
    """The values a file sets itself, and those that its bases give it."""
    own = yaml.safe_load(path.read_text())
    bases = own.pop("_BASE_", [])
    inherited: dict = {}
    for base in [bases] if isinstance(bases, str) else bases:  # later files win
        inherited |= flat(CfgNode.load_yaml_with_base(str(path.parent / base)))
    return flat(own), inherited


# Built in the default run: the small models, and of the published data sets each head once, with R50.
SMALL = ("shapes/", "shapes_context/", "camvid/", "mask_rcnn_sgr_effnet_lite0_tiny_coco")
ONE_A_HEAD = ("ade20k/deeplab_v3_plus_sgr.yaml", "cityscapes/fpn_sgr.yaml", "coco_stuff/m2f_sgr.yaml")
QUICK = [path for path in LEAVES if any(part in name(path) for part in SMALL) or name(path).endswith(ONE_A_HEAD)]
NO_WEIGHTS = ("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.TIMM.WEIGHTS", "")


@pytest.mark.parametrize(
    "path", [pytest.param(p, marks=[] if p in QUICK else pytest.mark.slow, id=name(p)) for p in LEAVES]
)
def test_every_leaf_builds_and_predicts(path):
    cfg = load_config(str(path), [*NO_WEIGHTS]).clone()
    cfg.defrost()
    use_machine(cfg, 1)
    model = build_model(cfg).eval()
    with torch.no_grad():
        (result,) = model([{"image": torch.zeros(3, 70, 90, dtype=torch.uint8)}])
    if cfg.MODEL.META_ARCHITECTURE == "SGRSegmentor":
        assert result["sem_seg"].shape == (cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, 70, 90)
    else:
        assert result["instances"].image_size == (70, 90)
        assert result["instances"].has("pred_masks") == cfg.MODEL.MASK_ON
    assert ("sgr" in result) == cfg.MODEL.SGR.ENABLED


@pytest.mark.parametrize("path", LEAVES, ids=name)
def test_every_leaf_loads(path):
    cfg = loaded(path)
    assert name(path).removeprefix("configs/").removesuffix(".yaml") == cfg.OUTPUT_DIR.removeprefix("output/")
    enabled = cfg.MODEL.SGR.ENABLED
    assert enabled == ("_sgr" in path.stem)


@pytest.mark.parametrize("path", LEAVES, ids=name)
def test_a_leaf_begins_with_its_command_and_restates_nothing(path):
    assert f"python train_net.py --config-file {name(path)}" in path.read_text().splitlines()[0]
    own, inherited = own_and_inherited(path)
    restated = [key for key, value in own.items() if key in inherited and inherited[key] == value]
    assert restated == []


@pytest.mark.parametrize("path", FRAGMENTS, ids=name)
def test_fragments_have_known_keys(path):
    get_sgr_cfg().merge_from_file(str(path))


# Each looked up where it is published, for a name that looks right may be an address that nothing is at: Detectron2's
# model zoo, the READMEs of its DeepLab and Panoptic-DeepLab projects, torchvision's resnet.py, Swin's README.
ADDRESSES = {
    "detectron2://ImageNetPretrained/MSRA/R-50.pkl",
    "detectron2://ImageNetPretrained/MSRA/R-101.pkl",
    "detectron2://ImageNetPretrained/torchvision/R-50.pkl",
    "detectron2://DeepLab/R-52.pkl",
    "detectron2://DeepLab/R-103.pkl",
    "https://download.pytorch.org/models/resnet101-63fe2227.pth",
    *(
        f"https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_{file}.pth"
        for file in (
            "tiny_patch4_window7_224",
            "small_patch4_window7_224",
            "base_patch4_window12_384_22k",
            "large_patch4_window12_384_22k",
        )
    ),
}


def test_initial_weights_are_at_known_addresses():
    trained = {f"{loaded(path).OUTPUT_DIR}/model_final.pth" for path in LEAVES}
    assert {loaded(path).MODEL.WEIGHTS for path in LEAVES} - {""} - trained == ADDRESSES


def test_torchvision_files_fill_the_backbone_of_r101(tmp_path):
    cfg = loaded(ROOT / "configs/ade20k/m2f_r101.yaml").clone()
    cfg.defrost()
    cfg.MODEL.RESNETS.NORM = "BN"  # as `use_machine` does for one process
    torch.save(torchvision.models.resnet101().state_dict(), tmp_path / "resnet101.pth")
    report = load_weights(nn.ModuleDict({"backbone": build_backbone(cfg)}), tmp_path / "resnet101.pth")
    assert not report.missing and not report.skipped and report.unused == ["fc.bias", "fc.weight"]


@pytest.mark.parametrize("leaf", [path for path in LEAVES if "_sgr" in path.stem], ids=name)
def test_baseline_and_sgr_differ_in_sgr_alone(leaf):
    plain = leaf.with_name(leaf.name.replace("_sgr", ""))
    a, b = (flat(loaded(path)) for path in (plain, leaf))
    different = {key for key in a if a[key] != b[key]}
    free = {"OUTPUT_DIR", "TEST.NUM_PICTURES"} | ({"MODEL.WEIGHTS"} if "transfer" in leaf.stem else set())
    assert {key for key in different if not key.startswith("MODEL.SGR.")} <= free


def test_every_baseline_has_its_sgr_and_every_data_set_the_same_models():
    stems = {folder: {p.stem for p in LEAVES if p.parent.name == folder} for folder in {p.parent.name for p in LEAVES}}
    for folder, names in stems.items():
        plain = {stem for stem in names if "_sgr" not in stem}
        assert {stem.replace("_sgr", "") for stem in names - plain} == plain, folder
    assert stems["ade20k"] == stems["cityscapes"] == stems["coco_stuff"]
    assert len(stems["ade20k"]) == 22


def test_every_key_is_read_by_the_package():
    known = get_cfg()
    add_deeplab_config(known)
    add_pointrend_config(known)
    ours = set(flat(get_sgr_cfg())) - set(flat(known)) | {"DATASETS.FOLDERS"}
    files = [path for path in (ROOT / "sgr_d2").rglob("*.py") if path.name != "config.py"]
    read = {tail for path in files for tail in keys_read(path.read_text())}
    unread = {key for key in ours if tuple(key.split(".")[-2:]) not in read}
    assert unread == {"IMPORTS"}  # which is read before there is a config


def keys_read(code: str) -> set[tuple[str, str]]:
    """The last two parts of all keys that a module reads: of ``cfg.A.B.C``, and of ``b.C`` after ``b = cfg.A.B``."""
    nodes = list(ast.walk(ast.parse(code)))
    held: dict[str, set[str]] = {}  # by variables that hold a node of the config: the last part of its key
    for node in nodes:
        for target, value in assigned(node):
            if isinstance(target, ast.Name) and isinstance(value, ast.Attribute) and value.attr.isupper():
                held.setdefault(target.id, set()).add(value.attr)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr.isupper():
            holder = node.value
            name_of = getattr(holder, "id", "")
            parents = {holder.attr} if isinstance(holder, ast.Attribute) else held.get(name_of, set())
            found |= {(parent, node.attr) for parent in parents}
    return found


def assigned(node: ast.AST) -> list[tuple[ast.expr, ast.expr]]:
    """(target, value) of ``a = x`` and of ``a, b = x, y``."""
    if not isinstance(node, ast.Assign):
        return []
    target, value = node.targets[0], node.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return list(zip(target.elts, value.elts, strict=False))  # a starred value may stand for several targets
    return [(target, value)]


def test_reading_a_key_by_its_last_part_is_not_enough():
    code = (
        "head, sgr = cfg.MODEL.HEAD, cfg.MODEL.SGR\nx = head.NAME\ny = sgr.NORM\nz = other.DEPTH\nw = cfg.TEST.AUG.FLIP"
    )
    pairs = {("HEAD", "NAME"), ("SGR", "NORM"), ("AUG", "FLIP"), ("TEST", "AUG"), ("MODEL", "HEAD"), ("MODEL", "SGR")}
    assert keys_read(code) == pairs


# Keys that share the comment of the key above them.
GROUPED = {"mask.DICE_WEIGHT", "mask.MASK_WEIGHT", "mask.TEST.INSTANCE_ON", "mask.TEST.PANOPTIC_ON"}


def test_every_key_has_a_line_of_meaning():
    lines = (ROOT / "sgr_d2/config.py").read_text().splitlines()
    key = re.compile(r"    ((?:cfg|mask|head)\.[A-Z_.]+) = (?!CN\(\))")
    keys = {i: found[1] for i, line in enumerate(lines) if (found := key.match(line))}
    bare = {key for i, key in keys.items() if not lines[i - 1].strip().startswith("#")}
    assert len(keys) > 80 and all(key in GROUPED or key.endswith("NUM_CLASSES") for key in bare)
