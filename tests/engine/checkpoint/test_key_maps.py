"""Every layout of names that the package reads, against real modules of the codes that publish them."""

import pytest
import timm
import torch
import torchvision
from detectron2.modeling import build_backbone
from official_keys import official_state

import sgr_d2.modeling  # noqa: F401  registers backbones
from sgr_d2.config import get_sgr_cfg
from sgr_d2.engine.checkpoint.key_maps import LAYOUTS, match_keys


def shapes(**sizes) -> dict[str, torch.Tensor]:
    return {key.replace("__", "."): torch.zeros(size) for key, size in sizes.items()}


def backbone_keys(name: str, prefix: str, **options) -> dict[str, torch.Tensor]:
    """The state dict of a registered backbone, under ``prefix``, beside a head."""
    cfg = get_sgr_cfg()
    cfg.MODEL.BACKBONE.NAME = name
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.merge_from_list([item for pair in options.items() for item in (pair[0].replace("__", "."), pair[1])])
    state = {f"{prefix}{key}": value for key, value in build_backbone(cfg).state_dict().items()}
    return {**state, "sem_seg_head.predictor.weight": torch.zeros(3, 8, 1, 1)}


def check(file: dict, model: dict, layout: str, *, unused: set[str], missing: set[str]) -> dict[str, str]:
    name, keys = match_keys(file, model)
    assert name == layout and list(keys) == list(file)
    assert {old for old, new in keys.items() if new not in model} == unused
    assert set(model) - set(keys.values()) == missing
    assert all(model[new].shape == file[old].shape for old, new in keys.items() if new in model)
    return keys


HEAD = {"sem_seg_head.predictor.weight"}


def test_names_of_the_model_are_left_alone():
    model = shapes(backbone__a=2, sem_seg_head__b=3)
    keys = check(model, model, "the model's own", unused=set(), missing=set())
    assert all(old == new for old, new in keys.items())
    assert match_keys({}, model) == ("the model's own", {})
    assert match_keys(shapes(x=1), {})[1] == {"x": "x"}


def test_the_prefix_of_data_parallel_training_goes():
    model = shapes(backbone__a=2, sem_seg_head__b=3)
    keys = check(
        {f"module.{key}": value for key, value in model.items()},
        model,
        "the model's own",
        unused=set(),
        missing=set(),
    )
    assert keys["module.backbone.a"] == "backbone.a"


@pytest.mark.parametrize(
    ("backbone", "prefix"), [("build_resnet_backbone", "backbone."), ("build_resnet_fpn_backbone", "backbone.")]
)
@pytest.mark.parametrize("wrapper", ["", "module.", "model.", "backbone."])
def test_torchvision_resnets_fit_resnets_of_detectron2(backbone, prefix, wrapper):
    source = {f"{wrapper}{key}": value for key, value in torchvision.models.resnet18().state_dict().items()}
    model = backbone_keys(backbone, prefix)
    fpn = {key for key in model if ".fpn_" in key}
    unused = {f"{wrapper}fc.weight", f"{wrapper}fc.bias"}
    keys = check(source, model, "torchvision ResNet", unused=unused, missing=HEAD | fpn)
    inner = "backbone.bottom_up." if fpn else "backbone."
    assert keys[f"{wrapper}conv1.weight"] == f"{inner}stem.conv1.weight"
    assert keys[f"{wrapper}bn1.running_var"] == f"{inner}stem.conv1.norm.running_var"
    assert keys[f"{wrapper}layer2.0.downsample.0.weight"] == f"{inner}res3.0.shortcut.weight"
    assert keys[f"{wrapper}layer2.0.downsample.1.bias"] == f"{inner}res3.0.shortcut.norm.bias"
    assert keys[f"{wrapper}layer4.1.bn2.weight"] == f"{inner}res5.1.conv2.norm.weight"


def test_torchvision_resnets_fit_resnets_of_timm():
    source = torchvision.models.resnet18().state_dict()
    model = backbone_keys("build_timm_backbone", "backbone.", MODEL__TIMM__NAME="resnet18")
    keys = check(source, model, "Detectron2 backbone", unused={"fc.weight", "fc.bias"}, missing=HEAD)
    assert keys["layer1.0.conv1.weight"] == "backbone.model.layer1.0.conv1.weight"


def test_converted_torchvision_files_fit():
    """As Detectron2's and Mask2Former's converters write them: stem., res2. and so on, of the backbone alone."""
    model = backbone_keys("build_resnet_fpn_backbone", "backbone.")
    source = {key.split("bottom_up.")[1]: value for key, value in model.items() if "bottom_up." in key}
    source["stem.fc.weight"] = torch.zeros(1000, 512)
    missing = HEAD | {key for key in model if ".fpn_" in key}
    check(source, model, "Detectron2 backbone", unused={"stem.fc.weight"}, missing=missing)


SWIN_OPTIONS = {"MODEL__SWIN__EMBED_DIM": 24, "MODEL__SWIN__NUM_HEADS": [1, 2, 4, 8]}


@pytest.mark.parametrize("backbone", ["build_swin_backbone", "build_swin_fpn_backbone"])
def test_microsofts_swin_fits(backbone):
    """Its file: the trunk's own keys, the masks of the shifted windows, a last norm and a head."""
    model = backbone_keys(backbone, "backbone.", **SWIN_OPTIONS)
    inner = "backbone.bottom_up." if "fpn" in backbone else "backbone."
    outputs = {f"{inner}norm{i}.{part}" for i in range(4) for part in ("weight", "bias")}
    trunk = {key: value for key, value in model.items() if key.startswith(f"{inner}patch") or ".layers." in key}
    source = {key.removeprefix(inner): value for key, value in trunk.items()}
    assert source["patch_embed.proj.weight"].shape == (24, 3, 4, 4)
    extra = shapes(
        layers__0__blocks__1__attn_mask=(64, 49, 49), norm__weight=192, norm__bias=192, head__weight=(9, 192)
    )
    fpn = {key for key in model if ".fpn_" in key}
    check(source | extra, model, "Detectron2 backbone", unused=set(extra), missing=HEAD | fpn | outputs)


def test_timms_swin_fits():
    source = timm.create_model("swin_tiny_patch4_window7_224", embed_dim=24, num_heads=(1, 2, 4, 8)).state_dict()
    model = backbone_keys("build_swin_backbone", "backbone.", **SWIN_OPTIONS)
    name, keys = match_keys(source, model)
    assert name == "timm Swin"
    assert keys["layers.1.downsample.reduction.weight"] == "backbone.layers.0.downsample.reduction.weight"
    assert {old for old, new in keys.items() if new not in model} == {
        "norm.weight",
        "norm.bias",
        "head.fc.weight",
        "head.fc.bias",
    }
    # buffers that the model makes itself, and the norms of the outputs, that no classifier has
    missing = set(model) - set(keys.values()) - HEAD
    assert all("relative_position_index" in key or key.startswith("backbone.norm") for key in missing)
    assert all(model[new].shape == source[old].shape for old, new in keys.items() if new in model)


@pytest.mark.parametrize("name", ["convnext_atto", "regnetx_002", "tf_efficientnet_lite0"])
def test_classifiers_of_timm_fit_its_feature_extractors(name):
    source = timm.create_model(name).state_dict()
    model = backbone_keys("build_timm_fpn_backbone", "backbone.", MODEL__TIMM__NAME=name)
    _, keys = match_keys(source, model)
    missing = set(model) - set(keys.values()) - HEAD
    assert all(".fpn_" in key for key in missing)
    assert all(model[new].shape == source[old].shape for old, new in keys.items() if new in model)


@pytest.mark.parametrize("model_name", ["r50", "swin_tiny"])
def test_old_names_of_mask2former_become_new_ones(model_name):
    model = official_state(model_name)

    def old(key: str, *, headless: bool) -> str:
        key = key.replace("predictor.query_feat", "predictor.static_query")
        return key.replace("sem_seg_head.pixel_decoder.", "sem_seg_head.") if headless else key

    for headless in (False, True):  # as published; MaskFormer's first release
        source = {old(key, headless=headless): value for key, value in model.items()}
        keys = check(source, model, "Mask2Former", unused=set(), missing=set())
        assert keys == {old(key, headless=headless): key for key in model}


def test_a_model_fits_with_and_without_an_fpn():
    trunk = {"stem.conv1.weight": (8, 3, 7, 7), "res2.0.conv1.weight": (8, 8, 1, 1)}
    plain = {f"backbone.{key}": torch.zeros(size) for key, size in trunk.items()}
    fpn = {f"backbone.bottom_up.{key}": torch.zeros(size) for key, size in trunk.items()}
    fpn |= shapes(backbone__fpn_output2__weight=(4, 8, 1, 1))
    head = shapes(sem_seg_head__a=4, sgr__b=5)
    lateral = {"backbone.fpn_output2.weight"}
    keys = check(plain | head, fpn | head, "model without FPN", unused=set(), missing=lateral)
    assert keys["sgr.b"] == "sgr.b"
    check(fpn | head, plain | head, "model with FPN", unused=lateral, missing=set())


def test_the_shape_decides_between_layouts():
    """Both readings of these keys exist in the model; only one has the shapes."""
    model = shapes(backbone__layers__0__downsample__w=(2, 8), backbone__layers__1__downsample__w=(4, 16))
    early = shapes(layers__1__downsample__w=(2, 8), layers__2__downsample__w=(4, 16))
    late = shapes(layers__0__downsample__w=(2, 8), layers__1__downsample__w=(4, 16))
    assert match_keys(early, model)[0] == "timm Swin"
    assert match_keys(late, model)[0] == "Detectron2 backbone"


def test_two_tensors_of_one_name_do_not_hide_each_other():
    model = shapes(sem_seg_head__predictor__query_feat__weight=(2, 3), sem_seg_head__predictor__a=1)
    file = model | shapes(sem_seg_head__predictor__static_query__weight=(2, 3), module__x=1)
    _, keys = match_keys(file, model)
    assert len(set(keys.values())) == len(keys)
    assert keys["sem_seg_head.predictor.query_feat.weight"] == "sem_seg_head.predictor.query_feat.weight"


def test_names_of_layouts_are_told_apart():
    assert len({layout.name for layout in LAYOUTS}) == len(LAYOUTS)
