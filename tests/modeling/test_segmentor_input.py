import pytest
import torch
from toy_heads import build, with_head
from toys import toy_cfg, toy_input


@pytest.mark.parametrize(
    ("enabled", "kind", "size", "padded"),
    [
        (True, "absolute", [96, 128], (96, 128)),
        (True, "relative", [0.9, 0.9], (64, 64)),
        (False, "absolute", [96, 128], (64, 64)),
    ],
)
def test_small_images_are_padded_to_a_crop_in_pixels_and_in_training_alone(enabled, kind, size, padded):
    cfg = toy_cfg()
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = enabled, kind, size
    model, seen = build(cfg), []
    model.backbone.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[-2:])))
    model.train()([toy_input(40, 50)])
    with torch.no_grad():
        model.eval()([toy_input(40, 50)])
    assert seen == [padded, (64, 64)]


def test_padding_is_a_multiple_of_what_the_backbone_asks_for_and_of_its_strides():
    cfg = toy_cfg(sgr=False)
    assert build(cfg).size_divisibility == 32
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.TIMM.NAME = "build_timm_backbone", "resnet10t"
    cfg.MODEL.TIMM.SIZE_DIVISIBILITY = 48
    assert build(cfg).size_divisibility == 96


def test_in_training_too_padding_does_not_reach_the_losses_of_sgr():
    model = build(toy_cfg()).train()
    model.backbone.levels.apply(pointwise)  # so that only SGR could mix padding in
    x = toy_input(40, 56)
    alone = model([x])
    model.min_train_size = (128, 160)
    padded = model([x])
    for name in ("loss_component", "loss_diversity"):
        torch.testing.assert_close(alone[name], padded[name])


def pointwise(module):
    if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
        with torch.no_grad():
            centre = module.weight[..., 1, 1].clone()
            module.weight.zero_()
            module.weight[..., 1, 1] = centre


@pytest.mark.parametrize("key", ["sem_seg", "components"])
def test_labels_that_are_missing_or_of_another_size_are_named(key):
    model, x = build(toy_cfg()).train(), toy_input(40, 56) | {"file_name": "b.jpg"}
    with pytest.raises(ValueError, match=rf'b\.jpg: its "{key}" has shape \(40, 60\); the mapper.*\(40, 56\)'):
        model([x | {key: torch.zeros(40, 60, dtype=torch.long)}])
    del x["sem_seg"]
    with pytest.raises(ValueError, match=r'b\.jpg: its "sem_seg" is missing; the mapper'):
        model([x])


def test_regions_of_an_image_are_cut_to_it():
    model = build(toy_cfg()).eval()
    with torch.no_grad():
        (result,) = model([{"image": toy_input(45, 70)["image"]}])
    tokens = result["sgr"]
    assert tokens.regions.shape == (6, 6, 9)  # cells of stride 8 that 45 x 70 pixels touch
    assert tokens.extent == (45 / 8, 70 / 8)
    assert tokens.tokens.shape == (6, 16)
    assert tokens.regions.min() >= 0 and tokens.regions.max() <= 1


def test_an_all_ignored_batch_has_finite_losses_and_gradients():
    model = build(toy_cfg()).train()
    x = toy_input(64, 64)
    x["sem_seg"][:] = 255
    x["components"][:] = 0
    x["component_classes"] = x["component_classes"][:0]
    losses = model([x])
    assert all(loss.item() == 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("background", [False, True])
def test_mask2former_learns_from_an_all_ignored_batch_only_if_it_is_background(background):
    cfg = with_head(toy_cfg(), "MaskFormerHead")
    cfg.MODEL.MASK_FORMER.IGNORE_AS_BACKGROUND = background
    model = build(cfg).train()
    x = toy_input(64, 64)
    x["sem_seg"][:] = 255
    losses = {name: loss.item() for name, loss in model([x]).items()}
    assert (losses["loss_ce"] > 0) == background
    assert losses["loss_mask"] == losses["loss_dice"] == 0


def test_zero_as_the_ignored_label_is_no_exception():
    model = build(with_ignore(toy_cfg(), 0))
    losses = model.train()([toy_input(64, 96, ignore=0) | {"sem_seg": torch.zeros(64, 96, dtype=torch.uint8)}])
    assert losses["loss_sem_seg"] == 0
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def with_ignore(cfg, value: int):
    cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = value
    return cfg


def test_labels_of_any_integer_type_give_the_same_losses():
    model = build(toy_cfg()).train()
    batch = [toy_input(64, 96), toy_input(45, 77, seed=1)]
    small = [
        x | {"sem_seg": x["sem_seg"].to(torch.uint8), "components": x["components"].to(torch.int16)} for x in batch
    ]
    expected, actual = model(batch), model(small)
    assert {name: loss.item() for name, loss in actual.items()} == {n: loss.item() for n, loss in expected.items()}


def test_a_mapper_without_components_is_told_what_is_missing_unless_nothing_is():
    x = toy_input(64, 96)
    del x["components"], x["component_classes"]
    with pytest.raises(
        ValueError, match=r'gives no "components".*use sgr_d2.data.mapper.SemanticMapper.*COMPONENT_WEIGHT'
    ):
        build(toy_cfg()).train()([x])
    cfg = toy_cfg()
    cfg.MODEL.SGR.COMPONENT_WEIGHT = cfg.MODEL.SGR.DIVERSITY_WEIGHT = 0.0
    assert set(build(cfg).train()([x])) == {"loss_sem_seg"}
