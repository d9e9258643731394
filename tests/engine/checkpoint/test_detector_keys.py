import pytest
import torch
from detectron2.modeling import build_model
from toy_detectors import detector_cfg

from sgr_d2.engine.checkpoint.checkpointer import load_weights
from sgr_d2.engine.checkpoint.detector_keys import check_backbone, is_detector, transfer_keys


def segmentor(seed, *, fpn=True, sgr=True, timm="resnet10t"):
    cfg = detector_cfg(sgr=sgr, features=("p3", "p4") if fpn else ("res3", "res4"))
    cfg.MODEL.META_ARCHITECTURE = "SGRSegmentor"
    cfg.MODEL.BACKBONE.NAME = "build_timm_fpn_backbone" if fpn else "build_timm_backbone"
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = [f"{'p' if fpn else 'res'}{i}" for i in (2, 3, 4, 5)]
    cfg.MODEL.TIMM.NAME = timm
    torch.manual_seed(seed)
    return build_model(cfg)


def detector(seed, **options):
    torch.manual_seed(seed)
    return build_model(detector_cfg(**options))


def moved(tmp_path, source, target, *, what=("backbone", "sgr")):
    """Load one model's weights into the other; the shares of backbone and SGR that are bitwise the source's."""
    torch.save({"model": source.state_dict()}, tmp_path / "source.pth")
    report = load_weights(target, str(tmp_path / "source.pth"))
    target_state, source_state = target.state_dict(), source.state_dict()
    names = {new: old for old, new in transfer_keys(source_state).items()}
    same = [new for new in target_state if new in names and torch.equal(target_state[new], source_state[names[new]])]
    return report, set(same)


@pytest.mark.parametrize("fpn", [True, False])
def test_backbone_and_sgr_go_to_a_detector_and_back(tmp_path, fpn):
    """With an FPN on its levels, without one below the detector's FPN."""
    features = ("p3", "p4") if fpn else ("res3", "res4")
    a, b, c = segmentor(0, fpn=fpn), detector(1, features=features), segmentor(2, fpn=fpn)
    shared = {name for name in a.state_dict() if name.startswith(("backbone.", "sgr."))}
    report, same = moved(tmp_path, a, b)
    assert len(same) == len(shared)
    assert not report.skipped and not report.new
    assert all(name.startswith("sem_seg_head.") for name in report.unused)
    mine = {"fpn_", "proposal_generator.", "roi_heads."} if not fpn else {"proposal_generator.", "roi_heads."}
    assert {name for name in report.missing if not any(part in name for part in mine)} == set()
    report, same = moved(tmp_path, b, c)
    assert {name for name in shared if not torch.equal(c.state_dict()[name], a.state_dict()[name])} == set()
    assert all(name.startswith("sem_seg_head.") for name in report.missing)


def test_a_model_without_sgr_gives_its_backbone(tmp_path):
    report, _ = moved(tmp_path, segmentor(0, sgr=False), detector(1))
    assert report.new and all(name.startswith("backbone.sgr.") for name in report.new)
    assert not [name for name in report.missing if name.startswith("backbone.")]
    report, _ = moved(tmp_path, segmentor(0), detector(1, sgr=False))
    assert not [name for name in report.missing if name.startswith("backbone.")]
    assert [name for name in report.unused if name.startswith("sgr.")]


def test_a_detector_without_sgr_gives_all_it_has(tmp_path):
    source, target = detector(0, sgr=False), detector(1)
    torch.save({"model": source.state_dict()}, tmp_path / "plain.pth")
    report = load_weights(target, str(tmp_path / "plain.pth"))
    assert sorted(report.loaded) == sorted(source.state_dict())
    assert not report.missing and not report.unused and all(".sgr." in name for name in report.new)


def test_another_backbone_is_an_error(tmp_path):
    source = segmentor(0, timm="mobilenetv3_small_050")
    torch.save({"model": source.state_dict()}, tmp_path / "other.pth")  # its FPN would fit in part
    with pytest.raises(ValueError, match=r"MODEL.WEIGHTS: the file has another backbone: of its \d+ tensors"):
        load_weights(detector(1), str(tmp_path / "other.pth"))
    # from one detector to another, and where it does fit, nothing is said
    check_backbone([], {"backbone.x": 1, "roi_heads.x": 1}, {"roi_heads.x": 1})
    check_backbone(["backbone.x"], {"backbone.x": 1}, {"roi_heads.x": 1})
    check_backbone(["backbone.sgr.x"], {"sgr.x": 1}, {"roi_heads.x": 1})


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"backbone.bottom_up.a", "sgr.b"}, {"backbone.bottom_up.a", "backbone.sgr.b"}),
        ({"backbone.a", "sgr.b", "sem_seg_head.c"}, {"backbone.bottom_up.a", "backbone.bottom_up.sgr.b"}),
        ({"backbone.bottom_up.a", "backbone.sgr.b", "roi_heads.c"}, {"backbone.bottom_up.a", "sgr.b"}),
        ({"backbone.bottom_up.a", "backbone.bottom_up.sgr.b", "backbone.fpn_output2.c"}, None),
    ],
)
def test_names_by_hand(keys, expected):
    assert is_detector(keys) == (not any(key.startswith("sgr.") for key in keys))
    if expected is None:  # the pyramid above SGR has no place in a segmentation model without one
        expected = {"backbone.a", "sgr.b", "backbone.fpn_output2.c"}
    assert set(transfer_keys(keys).values()) == expected


def test_no_backbone():
    with pytest.raises(ValueError, match=r"no tensor is named backbone"):
        transfer_keys({"sgr.a", "x"})
