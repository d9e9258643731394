import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_sem_seg_head
from mask_targets import MaskTargets
from torch.nn import functional as F
from toys import randomize_zeros, toy_cfg, toy_features, toy_shape

from sgr_d2.modeling.mask2former.head import MaskFormerHead, OutputOptions


def head_cfg(**mask_former):
    cfg = toy_cfg(sgr=False)
    cfg.MODEL.SEM_SEG_HEAD.NAME = "MaskFormerHead"
    cfg.MODEL.SEM_SEG_HEAD.MASK_DIM = 16
    cfg.MODEL.SEM_SEG_HEAD.NORM = "GN"
    cfg.MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS = 1
    sizes = {"HIDDEN_DIM": 16, "NHEADS": 4, "DIM_FEEDFORWARD": 16, "DEC_LAYERS": 4, "NUM_OBJECT_QUERIES": 6}
    for key, value in {**sizes, "TRAIN_NUM_POINTS": 30, **mask_former}.items():
        cfg.MODEL.MASK_FORMER[key] = value
    return cfg


def build(cfg=None) -> MaskFormerHead:
    torch.manual_seed(0)
    return build_sem_seg_head(cfg or head_cfg(), toy_shape())


def labels(batch: int = 2, height: int = 64, width: int = 96) -> torch.Tensor:
    result = torch.full((batch, height, width), 255)
    result[0, :30], result[-1, :, 40:] = 3, 1
    return result


def test_training_gives_losses_and_gradients_for_everything():
    head = build()
    randomize_zeros(head)
    prediction, losses = head(toy_features(2, 64, 96), labels())
    assert prediction is None
    assert len(losses) == 3 * 4
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize("name", ["MSDeformAttnPixelDecoder", "FPNPixelDecoder"])
@pytest.mark.parametrize(("features", "stride"), [(["res2", "res3"], 4), (["res4"], 16)])
def test_a_backbone_of_one_or_two_features(name, features, stride):
    cfg = head_cfg()
    cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME = name
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = features
    cfg.MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES = features[-1:]
    cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE = stride
    head = build(cfg)
    assert len(head.predictor.level_embed.weight) == len(features)
    read = {name: value for name, value in toy_features(2, 64, 96).items() if name in features}
    _, losses = head(read, labels())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    prediction, _ = head.eval()(read)
    assert head.postprocess(prediction, 0, (64, 96), 64, 96)["sem_seg"].shape == (5, 64, 96)


def test_without_a_labelled_pixel_every_parameter_still_has_a_gradient():
    head = build()
    _, losses = head(toy_features(2, 64, 96), torch.full((2, 64, 96), 255))
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in head.parameters())


def test_labels_of_another_size_than_the_images_are_refused():
    for size in ((65, 96), (64, 300), (32, 48)):
        with pytest.raises(ValueError, match=rf"label maps are \({size[0]}, {size[1]}\).*padded images \(64, 96\)"):
            build()(toy_features(2, 64, 96), torch.zeros(2, *size, dtype=torch.long))


def test_targets_of_another_kind():
    masks = MaskTargets(
        [torch.tensor([1, 1]), torch.tensor([0])],
        [torch.rand(2, 64, 96) > 0.5, torch.rand(1, 64, 96) > 0.5],
        size=(64, 96),
        num_classes=5,
    )
    _, losses = build()(toy_features(2, 64, 96), masks)
    assert losses["loss_mask"] > 0


def test_ignore_as_background_reaches_the_targets():
    features = toy_features(2, 64, 96)
    found = []
    for flag in (True, False):
        cfg = head_cfg(IGNORE_AS_BACKGROUND=flag)
        torch.manual_seed(1)
        head = build(cfg)
        torch.manual_seed(2)
        found.append(head(features, labels())[1]["loss_mask"].item())
    assert found[0] != pytest.approx(found[1])


def test_the_ignore_value_reaches_the_targets():
    """The same label map with another number for ignored pixels."""
    found = []
    for value in (255, 4):
        cfg = head_cfg()
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = 4, value
        head = build(cfg)
        torch.manual_seed(1)
        found.append(head(toy_features(2, 64, 96), labels().masked_fill(labels() == 255, value))[1])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("CLASS_WEIGHT", 3.0, lambda h: (h.criterion.weights["loss_ce"], h.criterion.matcher.class_weight)),
        ("MASK_WEIGHT", 7.0, lambda h: (h.criterion.weights["loss_mask"], h.criterion.matcher.mask_weight)),
        ("DICE_WEIGHT", 9.0, lambda h: (h.criterion.weights["loss_dice"], h.criterion.matcher.dice_weight)),
        ("NO_OBJECT_WEIGHT", 0.25, lambda h: (h.criterion.empty_weight[-1].item(),)),
        ("TRAIN_NUM_POINTS", 40, lambda h: (h.criterion.num_points, h.criterion.matcher.num_points)),
        ("OVERSAMPLE_RATIO", 2.0, lambda h: (h.criterion.num_candidates / h.criterion.num_points,)),
        ("IMPORTANCE_SAMPLE_RATIO", 0.5, lambda h: (h.criterion.num_uncertain / h.criterion.num_points,)),
        ("DEEP_SUPERVISION", False, lambda h: (h.criterion.deep_supervision,)),
        ("PRE_NORM", True, lambda h: (h.predictor.transformer_ffn_layers[0].pre_norm,)),
        ("DROPOUT", 0.3, lambda h: (h.predictor.transformer_ffn_layers[0].dropout.p,)),
        ("NHEADS", 2, lambda h: (h.predictor.transformer_self_attention_layers[0].self_attn.num_heads,)),
        ("DIM_FEEDFORWARD", 24, lambda h: (h.predictor.transformer_ffn_layers[0].linear1.out_features,)),
        ("DEC_LAYERS", 6, lambda h: (len(h.predictor.transformer_ffn_layers) + 1,)),
        ("NUM_OBJECT_QUERIES", 9, lambda h: (h.predictor.query_feat.num_embeddings,)),
        ("ENFORCE_INPUT_PROJ", True, lambda h: (any(True for _ in h.predictor.input_proj.parameters()),)),
        ("TEST.OBJECT_MASK_THRESHOLD", 0.35, lambda h: (h.outputs.object_threshold,)),
        ("TEST.OVERLAP_THRESHOLD", 0.45, lambda h: (h.outputs.overlap_threshold,)),
        ("TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE", True, lambda h: (h.outputs.resize_masks_first,)),
    ],
)
def test_every_key_of_the_config_reaches_its_part(key, value, found):
    cfg = head_cfg(HIDDEN_DIM=32)
    cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 32
    assert value not in found(build(cfg))
    cfg.merge_from_list([f"MODEL.MASK_FORMER.{key}", value])
    assert set(found(build(cfg))) == {value}


def test_inference_of_a_batch():
    head = build().eval()
    with torch.no_grad():
        prediction, losses = head(toy_features(2, 64, 96))
    assert losses == {}
    assert prediction.class_logits.shape == (1, 2, 6, 6)
    for index in range(2):
        result = head.postprocess(prediction, index, (60, 90), 31, 47)
        assert result.keys() == {"sem_seg"}
        assert result["sem_seg"].shape == (5, 31, 47)
        assert result["sem_seg"].min() >= 0
    same = head.postprocess(prediction, 1, (60, 90), 60, 90)["sem_seg"]
    probs = prediction.class_logits[0, 1].softmax(-1)[:, :-1]
    large = F.interpolate(prediction.masks()[1, None], size=(64, 96), mode="bilinear")[0]
    expected = torch.einsum("qk,qhw->khw", probs, large.sigmoid())[:, :60, :90]
    torch.testing.assert_close(same, expected, rtol=0, atol=1e-5)


def semantic_by_hand(prediction, *sizes, within):
    """Class probabilities times masks, which are resized to one size after the other and cut."""
    masks = prediction.masks()
    for size in sizes:
        masks = F.interpolate(masks, size=size, mode="bilinear", align_corners=False)
    probs = prediction.class_logits[0, 0].softmax(-1)[:, :-1]
    return torch.einsum("qk,qhw->khw", probs, masks[0].sigmoid())[:, : within[0], : within[1]]


def test_masks_of_another_stride_are_resized_by_it():
    cfg = head_cfg()
    cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE, cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = 8, ["res3", "res4", "res5"]
    head = build(cfg).eval()
    with torch.no_grad():
        prediction, _ = head(toy_features(1, 64, 96))
        scores = head.postprocess(prediction, 0, (60, 90), 60, 90)["sem_seg"]
    assert prediction.mask_features.shape[-2:] == (8, 12)
    expected = semantic_by_hand(prediction, (64, 96), within=(60, 90))
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("decoder", ["MSDeformAttnPixelDecoder", "FPNPixelDecoder"])
def test_a_feature_that_the_pixel_decoder_does_not_read_is_refused(decoder):
    cfg = head_cfg()
    cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME = decoder
    cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE, cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = 8, ["res2", "res3", "res4", "res5"]
    with pytest.raises(ValueError, match=rf"IN_FEATURES = .*: {decoder} does not read \['res2'\]\. Leave them out, or"):
        build(cfg)


def test_beside_other_outputs_semantic_scores_come_from_resized_masks():
    """As in the official code: resizing scores and resizing masks are not the same."""
    with torch.no_grad():
        prediction, _ = build().eval()(toy_features(1, 64, 96))
    prediction = prediction._replace(mask_features=20 * prediction.mask_features)
    expected = semantic_by_hand(prediction, (64, 96), (150, 200), within=(150, 200))
    for key in ("", "INSTANCE_ON", "PANOPTIC_ON", "SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE"):
        cfg = head_cfg()
        cfg.MODEL.MASK_FORMER.TEST.merge_from_list([key, True] if key else [])
        scores = build(cfg).postprocess(prediction, 0, (64, 96), 150, 200)["sem_seg"]
        assert torch.allclose(scores, expected, rtol=0, atol=1e-4) == bool(key)


def test_all_outputs_by_config():
    cfg = head_cfg()
    test = cfg.MODEL.MASK_FORMER.TEST
    test.INSTANCE_ON = test.PANOPTIC_ON = True
    test.OBJECT_MASK_THRESHOLD = 0.0
    cfg.TEST.DETECTIONS_PER_IMAGE = 7
    cfg.DATASETS.TRAIN = ("mask_former_head_test",)
    MetadataCatalog.get("mask_former_head_test").thing_dataset_id_to_contiguous_id = {11: 0, 12: 1}
    try:
        head = build(cfg).eval()
    finally:
        MetadataCatalog.remove("mask_former_head_test")
    assert head.outputs.thing_classes == (0, 1)
    with torch.no_grad():
        prediction, _ = head(toy_features(1, 64, 96))
    result = head.postprocess(prediction, 0, (64, 96), 64, 96)
    assert result.keys() == {"sem_seg", "instances", "panoptic_seg"}
    assert result["panoptic_seg"][0].shape == (64, 96)
    assert len(result["instances"]) <= 7
    assert set(result["instances"].pred_classes.tolist()) <= {0, 1}


@pytest.mark.parametrize(
    ("panoptic", "things", "classes"), [(False, (1,), {0, 1, 2, 3, 4}), (True, (1,), {1}), (True, (), set())]
)
def test_instances_are_things_alone_beside_panoptic_output_and_all_classes_without(panoptic, things, classes):
    head = build().eval()
    head.outputs = OutputOptions(instance=True, panoptic=panoptic, thing_classes=things)
    with torch.no_grad():
        prediction, _ = head(toy_features(1, 64, 96))
    found = head.postprocess(prediction, 0, (64, 96), 64, 96)["instances"]
    assert set(found.pred_classes.tolist()) == classes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_trains_and_infers(dtype):
    head, features = build(), toy_features(1, 64, 64)
    with torch.autocast("cpu", dtype=dtype):
        _, losses = head(features, labels(1, 64, 64))
        prediction, _ = head.eval()(features)
        scores = head.postprocess(prediction, 0, (64, 64), 64, 64)["sem_seg"]
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()


def test_things_of_panoptic_outputs_come_from_the_metadata(caplog):
    cfg = head_cfg()
    cfg.MODEL.MASK_FORMER.TEST.PANOPTIC_ON = True
    cfg.DATASETS.TRAIN = ("toy_panoptic_names",)
    metadata = MetadataCatalog.get("toy_panoptic_names")
    metadata.set(stuff_classes=["road", "car", "sky", "person", "tree"])
    with caplog.at_level("WARNING", logger="sgr_d2"):
        assert tuple(build(cfg).outputs.thing_classes) == ()
    assert "metadata of ['toy_panoptic_names'] names no thing_classes" in caplog.text
    metadata.set(thing_classes=["car", "person"])
    assert tuple(build(cfg).outputs.thing_classes) == (1, 3)
    metadata.set(thing_dataset_id_to_contiguous_id={7: 3})
    assert tuple(build(cfg).outputs.thing_classes) == (3,)


def test_state_dict_has_the_official_names_only():
    names = {key.split(".")[0] for key in build().state_dict()}
    assert names == {"pixel_decoder", "predictor"}


def test_errors_name_key_and_choices():
    cfg = head_cfg()
    cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME = "FPNPixelDecoderr"
    with pytest.raises(ValueError, match=r"PIXEL_DECODER_NAME = 'FPNPixelDecoderr'.*Did you mean 'FPNPixelDecoder'"):
        build(cfg)
    cfg = head_cfg()
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["res2", "res9"]
    with pytest.raises(ValueError, match=r"IN_FEATURES.*res9"):
        build(cfg)
    cfg = head_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 0
    with pytest.raises(ValueError, match=r"NUM_CLASSES = 0"):
        build(cfg)
    with pytest.raises(ValueError, match=r"SEMANTIC_ON, INSTANCE_ON and PANOPTIC_ON are all False"):
        OutputOptions(semantic=False)
    with pytest.raises(ValueError, match=r"DETECTIONS_PER_IMAGE = -1: Mask2Former needs 1 or more"):
        OutputOptions(instance=True, max_instances=-1)
