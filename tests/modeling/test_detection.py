import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import GeneralizedRCNN, build_model
from detectron2.modeling.backbone import build_backbone
from detectron2.utils.events import EventStorage
from torch.nn import functional as F
from toy_detectors import detector_cfg, detector_input
from toys import randomize_zeros

from sgr_d2.modeling import SGRBackbone, SGRSegmentor
from sgr_d2.modeling.backbone import find_sgr_backbone


@pytest.fixture(autouse=True)
def storage():
    """Detectron2's detectors log while they train."""
    with EventStorage():
        yield


def build(seed=0, **options):
    torch.manual_seed(seed)
    return build_model(detector_cfg(**options))


def assert_same(a: dict, b: dict) -> None:
    """The detections of an image are bitwise the same."""
    a, b = a["instances"], b["instances"]
    assert len(a) > 0
    assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
    assert torch.equal(a.scores, b.scores)
    assert torch.equal(a.pred_classes, b.pred_classes)
    if a.has("pred_masks"):
        assert torch.equal(a.pred_masks, b.pred_masks)


@pytest.mark.parametrize("features", [("p3", "p4"), ("p2", "p6"), ("res3", "res5")])
def test_a_new_sgr_changes_no_detection(features):
    plain, model = build(sgr=False).eval(), build(seed=1, features=features).eval()
    report = model.load_state_dict(plain.state_dict(), strict=False)
    assert not report.unexpected_keys
    assert report.missing_keys and all(".sgr." in key for key in report.missing_keys)
    inputs = [detector_input(60, 77), detector_input(90, 52, seed=1) | {"height": 45, "width": 26}]
    with torch.no_grad():
        for a, b in zip(plain(inputs), model(inputs), strict=True):
            assert_same(a, b)
            assert "sgr" not in a and b["sgr"].regions.shape[0] == 6


@pytest.mark.parametrize("arch", ["SGRGeneralizedRCNN", "SGRRetinaNet", "SGRPanopticFPN"])
def test_every_architecture_trains_all_of_sgr_and_returns_tokens(arch):
    model = build(arch=arch)
    randomize_zeros(find_sgr_backbone(model.backbone).sgr)
    losses = model([detector_input(64, 96), detector_input(50, 80, instances=1, seed=1)])
    assert {"loss_component", "loss_diversity"} < set(losses)
    sum(losses.values()).backward()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, p in trainable.items() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in trainable.values())
    assert find_sgr_backbone(model.backbone).output is None  # its memory is not kept
    model.eval()
    with torch.no_grad():
        (result,) = model([{"image": detector_input(50, 80)["image"]}])
    assert "instances" in result
    assert result["sgr"].extent == (50 / 8, 10)
    assert result["sgr"].regions.shape == (6, 7, 10)


def test_padding_takes_no_part():
    """An image beside a larger one has the regions and tokens that it has alone."""
    model = build().eval()
    randomize_zeros(find_sgr_backbone(model.backbone).sgr)
    small, large = detector_input(64, 64), detector_input(128, 160, seed=1)
    shapes = []
    holder = find_sgr_backbone(model.backbone)
    holder.sgr.register_forward_pre_hook(lambda _, args: shapes.append(args[1].tolist()))
    with torch.no_grad():
        model([small, large])
    assert shapes == [[[64, 64], [128, 160]]]
    features = {name: torch.randn(2, 16, 128 // s, 160 // s) for name, s in (("p3", 8), ("p4", 16))}
    changed = {name: f.clone() for name, f in features.items()}
    for name, s in (("p3", 8), ("p4", 16)):
        changed[name][0, :, 64 // s :] = 7.0
        changed[name][0, :, :, 64 // s :] = -7.0
    sizes = torch.tensor([[64, 64], [128, 160]])
    a, b = holder.sgr(features, sizes), holder.sgr(changed, sizes)
    torch.testing.assert_close(a.tokens, b.tokens)
    assert not torch.allclose(a.tokens, holder.sgr(changed, torch.tensor([[128, 160]] * 2)).tokens)


def test_the_padding_of_components_is_in_no_component():
    model, seen = build(), []
    model.criterion.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    model([detector_input(64, 64), detector_input(128, 160, seed=1)])
    (components,) = seen
    assert components.shape == (2, 128, 160) and components[0, :64, :64].max() == 2
    assert components[0, 64:].sum() == 0 and components[0, :, 64:].sum() == 0


def test_padding_takes_no_part_where_cells_are_larger_than_what_images_are_padded_to():
    """A cell of p6 is 64 pixels, images are padded to multiples of 32: of 96 pixels, p6 covers 128."""
    model = build(features=("p2", "p6")).eval()
    sgr = find_sgr_backbone(model.backbone).sgr
    randomize_zeros(sgr)
    alone = {"p2": torch.randn(1, 16, 24, 24), "p6": torch.randn(1, 16, 2, 2)}
    beside = {  # beside an image of 128 x 160 pixels
        name: torch.cat([F.pad(f, (0, extra[1], 0, extra[0]), value=7.0), torch.randn(1, 16, *size)])
        for (name, f), extra, size in zip(alone.items(), [(8, 16), (0, 1)], [(32, 40), (2, 3)], strict=True)
    }
    with torch.no_grad():
        a = sgr(alone, torch.tensor([[96, 96]]))
        b = sgr(beside, torch.tensor([[96, 96], [128, 160]]))
    torch.testing.assert_close(b.tokens[:1], a.tokens)
    torch.testing.assert_close(b.region_logits[:1, :, :24, :24], a.region_logits)
    torch.testing.assert_close(b.features["p2"][:1, :, :24, :24], a.features["p2"])
    torch.testing.assert_close(b.features["p6"][:1, :, :2, :2], a.features["p6"])


def test_a_detector_of_detectron2_works_too_but_says_what_is_lacking(caplog):
    cfg = detector_cfg(arch="GeneralizedRCNN")
    model = build_model(cfg)
    assert type(model) is GeneralizedRCNN
    with caplog.at_level("WARNING"):
        losses = model([detector_input(64, 96)])
    assert "loss_component" not in losses
    assert "padding counts as image" in caplog.text and "SGRGeneralizedRCNN" in caplog.text


def test_without_components_there_are_no_losses_of_sgr_and_all_of_it_learns():
    model = build()
    randomize_zeros(find_sgr_backbone(model.backbone).sgr)
    inputs = detector_input(64, 96)
    del inputs["components"], inputs["component_classes"]
    losses = model([inputs])
    assert not {"loss_component", "loss_diversity"} & set(losses)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_batch_of_which_some_images_have_components_is_refused(lacking):
    batch = [detector_input(64, 96), detector_input(64, 96)]
    del batch[lacking]["components"], batch[lacking]["file_name"]
    with pytest.raises(ValueError, match=rf'^image {lacking} of the batch: no "components"'):
        build()(batch)


def test_a_class_loss_without_components_is_refused():
    cfg = detector_cfg()
    cfg.MODEL.SGR.CLASS_WEIGHT = 1.0
    model = build_model(cfg)
    inputs = detector_input(64, 96)
    assert "loss_token_class" in model([inputs])
    del inputs["components"], inputs["component_classes"]
    with pytest.raises(ValueError, match=r'no "components".*MODEL.SGR.CLASS_WEIGHT = 1.0 to 0'):
        model([inputs])


def test_an_image_without_instances_has_finite_losses():
    losses = build()([detector_input(64, 96, instances=0)])
    assert losses["loss_component"] == 0
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_frozen():
    cfg = detector_cfg()
    cfg.MODEL.SGR.FREEZE = True
    model = build_model(cfg)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable and not [name for name in trainable if ".sgr." in name]
    sum(model([detector_input(64, 96)]).values()).backward()


def test_the_baseline_is_the_plain_pyramid():
    backbone = build_backbone(detector_cfg(sgr=False))
    assert find_sgr_backbone(backbone) is None
    model = build(sgr=False)
    assert "loss_component" not in model([detector_input(64, 96)])


@pytest.mark.parametrize("features", [("p3", "p4"), ("res3", "res5")])
def test_sgr_starts_where_its_baseline_starts(features):
    with_sgr, baseline = build(features=features), build(sgr=False)
    weights = with_sgr.state_dict()
    for name, weight in baseline.state_dict().items():
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=0)


@pytest.mark.parametrize("features", [("p3", "p4"), ("res3", "res5")])
def test_shapes_strides_and_names_are_those_of_the_wrapped_backbone(features):
    plain, wrapped = (build_backbone(detector_cfg(sgr=sgr, features=features)) for sgr in (False, True))
    assert wrapped.output_shape() == plain.output_shape()
    assert wrapped.size_divisibility == plain.size_divisibility
    assert wrapped.padding_constraints == plain.padding_constraints
    names = set(plain.state_dict())
    assert names < set(wrapped.state_dict())
    prefix = "sgr." if features[0].startswith("p") else "bottom_up.sgr."
    assert all(name.startswith(prefix) for name in set(wrapped.state_dict()) - names)
    assert wrapped.bottom_up.state_dict().keys() >= plain.bottom_up.state_dict().keys()
    with pytest.raises(AttributeError, match="no_such_part"):
        wrapped.no_such_part  # noqa: B018


def test_state_dicts_go_round_and_name_what_is_missing():
    a, b = build(), build(seed=1)
    state = a.state_dict()
    b.load_state_dict(state)
    assert all(torch.equal(value, b.state_dict()[key]) for key, value in state.items())
    del state["backbone.fpn_output2.weight"]
    state["backbone.extra"] = torch.zeros(1)
    report = b.load_state_dict(state, strict=False)
    assert report.missing_keys == ["backbone.fpn_output2.weight"]
    assert report.unexpected_keys == ["backbone.extra"]


def test_detectron2s_checkpointer_skips_tensors_of_another_shape(tmp_path):
    model = build()
    state = model.state_dict()
    state["backbone.fpn_output2.weight"] = torch.zeros(1, 1, 3, 3)
    torch.save({"model": state}, tmp_path / "other.pth")
    before = model.backbone.fpn_output2.weight.clone()
    DetectionCheckpointer(model).load(str(tmp_path / "other.pth"))
    assert torch.equal(model.backbone.fpn_output2.weight, before)


def test_levels_that_are_nowhere_list_the_choices():
    with pytest.raises(ValueError, match=r"SGR.IN_FEATURES = \['p3', 'res4'\].*'p6'.*'res5'"):
        build(features=("p3", "res4"))
    with pytest.raises(ValueError, match=r"SGR.IN_FEATURES.*empty list"):
        build(features=())


def test_the_wrapper_alone():
    """By hand, on a backbone of a segmentation model: sizes hold for one pass."""
    cfg = detector_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME = "SGRSegmentor", "build_timm_fpn_backbone"
    segmentor = build_model(cfg)
    assert isinstance(segmentor, SGRSegmentor)
    backbone = SGRBackbone(segmentor.backbone, segmentor.sgr)
    backbone.image_sizes = [(40, 64)]
    features = backbone(torch.zeros(1, 3, 64, 64))
    assert set(features) == set(segmentor.backbone.output_shape())
    assert backbone.image_sizes is None
    assert backbone.take_output().valid[0, 0].all(1).tolist() == [True] * 5 + [False] * 3
    assert backbone.take_output() is None
    backbone(torch.zeros(1, 3, 64, 64))
    assert backbone.take_output().valid.all()
