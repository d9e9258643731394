import pytest

from sgr_d2.engine import Trainer, load_config


def load(config_file, *opts):
    return load_config(str(config_file), list(opts))


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("MODEL.META_ARCHITECTURE", "SemanticSegmentor"), 0),
        (("MODEL.BACKBONE.NAME", "build_sgr_timm_fpn_backbone"), 2),
    ],
)
def test_as_many_sgr_as_asked_for(config_file, options, found):
    """A plain baseline under the name of SGR, or two of them, would train without a word."""
    message = rf"SGR.ENABLED is True, but the model has {found} SGR modules.*{options[1]}"
    with pytest.raises(ValueError, match=message):
        Trainer.build_model(load(config_file, *options))
    Trainer.build_model(load(config_file, *options, "MODEL.SGR.ENABLED", "False"))


def test_channels_that_a_group_norm_cannot_divide_are_named(config_file):
    options = ("MODEL.SEM_SEG_HEAD.NORM", "GN", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "48")
    with pytest.raises(ValueError, match=r"GroupNorm .*MODEL\.SEM_SEG_HEAD\.CONVS_DIM is 48"):
        Trainer.build_model(load(config_file, *options))


def test_a_pyramid_on_levels_that_its_resnet_does_not_return(config_file):
    """Detectron2's default for the ResNet is res4 alone, which fits no pyramid."""
    options = ["MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", "MODEL.FPN.IN_FEATURES", "['res2', 'res3']"]
    with pytest.raises(ValueError, match=r"FPN.IN_FEATURES.*RESNETS.OUT_FEATURES.*Choose from \['res4'\]"):
        load(config_file, *options)
    load(config_file, *options, "MODEL.RESNETS.OUT_FEATURES", "['res2', 'res3']")


@pytest.mark.parametrize(
    ("backbone", "depth", "choices"),
    [
        ("build_resnet_fpn_backbone", 77, r"\[18, 34, 50, 101, 152\]"),
        ("build_resnet_deeplab_backbone", 34, r"\[50, 101, 152\]"),
    ],
)
def test_a_depth_that_detectron2_has_not(config_file, backbone, depth, choices):
    with pytest.raises(ValueError, match=rf"MODEL\.RESNETS\.DEPTH = {depth}: choose from {choices}"):
        load(config_file, "MODEL.BACKBONE.NAME", backbone, "MODEL.RESNETS.DEPTH", str(depth))


@pytest.mark.parametrize("head", ["SemSegFPNHead", "SparsePointRendSemSegHead"])
@pytest.mark.parametrize("stride", [3, 8])
def test_a_stride_that_doubling_does_not_reach(config_file, head, stride):
    options = ("MODEL.SEM_SEG_HEAD.NAME", head, "MODEL.POINT_HEAD.IN_FEATURES", "['p2']")
    options += ("MODEL.SEM_SEG_HEAD.COMMON_STRIDE", str(stride))
    message = rf"COMMON_STRIDE = {stride}: .*SEM_SEG_HEAD.IN_FEATURES = .* are \[4, 8, 16, 32\]\. Set it to 4"
    with pytest.raises(ValueError, match=message):
        Trainer.build_model(load(config_file, *options))
