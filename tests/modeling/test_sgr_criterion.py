import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage
from toy_regions import classes_of, logits_of, output_of, over_labelled
from toys import toy_cfg

from sgr_d2.modeling.sgr import SGRCriterion
from sgr_d2.modeling.sgr.assignment import assign_tokens
from sgr_d2.modeling.sgr.losses import component_loss, dice_loss, diversity_loss, join_regions
from sgr_d2.modeling.sgr.targets import GridTargets, components_to_grid


def test_dice_by_hand():
    unions = torch.tensor([[[1.0, 0.5, 0.0]]])
    masks = torch.tensor([[[1.0, 0.0, 0.5]]])
    labelled = torch.tensor([[[1.0, 1.0, 0.5]]])
    assert dice_loss(unions, masks, labelled).item() == pytest.approx(1 - (2 * 1 + 1) / (1.5 + 1.5 + 1))


def test_union_is_a_noisy_or():
    regions = torch.tensor([[[0.5, 0.2], [0.4, 0.0], [0.9, 0.1]]]).view(1, 3, 1, 2)
    masks = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).view(1, 2, 1, 2)
    targets = GridTargets(masks, torch.ones(1, 1, 1, 2), [2])
    loss = component_loss(logits_of(regions), torch.tensor([[0, 0, 1]]), targets)
    union = torch.tensor([[[1 - 0.5 * 0.6, 1 - 0.8 * 1.0], [0.9, 0.1]]])
    expected = dice_loss(union, masks.flatten(2), torch.ones(1, 1, 2)).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


def test_perfect_regions_cost_nothing_and_swapped_ones_are_matched():
    ids = torch.zeros(1, 16, 16, dtype=torch.int32)
    ids[0, :8], ids[0, 8:, 8:] = 1, 2
    regions = torch.stack([(ids[0] == 2).float(), (ids[0] == 1).float()])[None]
    losses = SGRCriterion()(output_of(logits_of(regions)), ids, classes_of(2))
    assert losses["loss_component"].item() < 1e-3
    assert losses["loss_diversity"].item() < 1e-3
    half = SGRCriterion(component_weight=0.5)(output_of(torch.zeros(1, 2, 16, 16)), ids, classes_of(2))
    full = SGRCriterion(component_weight=1.0)(output_of(torch.zeros(1, 2, 16, 16)), ids, classes_of(2))
    assert full["loss_component"].item() == pytest.approx(2 * half["loss_component"].item())


def test_the_mean_is_over_components_not_images():
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 8, 8)
    ids = torch.zeros(2, 8, 8, dtype=torch.int32)
    ids[0, :4], ids[1, :2], ids[1, 2:5], ids[1, 5:] = 1, 3, 1, 2
    criterion = SGRCriterion(diversity_weight=0.0)
    both = criterion(output_of(logits), ids, classes_of(1, 3))["loss_component"].item()
    one = criterion(output_of(logits[:1]), ids[:1], classes_of(1))["loss_component"].item()
    three = criterion(output_of(logits[1:]), ids[1:], classes_of(3))["loss_component"].item()
    assert both == pytest.approx((one + 3 * three) / 4, rel=1e-5)


def test_components_beyond_the_tokens_are_labelled_but_not_matched():
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 8, 8)
    ids = torch.zeros(1, 8, 8, dtype=torch.int32)
    ids[0, :4], ids[0, 4:6], ids[0, 6:7] = 1, 2, 3
    criterion = SGRCriterion()
    all_three, two = criterion(output_of(logits), ids, classes_of(3)), criterion(output_of(logits), ids, classes_of(2))
    assert {name: loss.item() for name, loss in all_three.items()} == {name: loss.item() for name, loss in two.items()}


def test_diversity_against_pairs():
    regions, labelled = torch.rand(2, 4, 3, 5), torch.rand(2, 1, 3, 5)
    rows = (regions * labelled).flatten(2)
    cosines = [
        torch.cosine_similarity(rows[b, i], rows[b, j], dim=0).item()
        for b in range(2)
        for i in range(4)
        for j in range(4)
        if i != j
    ]
    labelled = labelled.flatten(2)
    assert diversity_loss(rows, labelled).item() == pytest.approx(np.mean(cosines), rel=1e-4)
    assert diversity_loss(rows[:, :1], labelled).item() == pytest.approx(0, abs=1e-6)
    assert diversity_loss(rows[:, :1].expand(-1, 3, -1), labelled).item() == pytest.approx(1, rel=1e-4)
    # an image of which nothing is labelled takes no part
    more = torch.cat([rows, torch.zeros(1, 4, 15)]), torch.cat([labelled, torch.zeros(1, 1, 15)])
    assert diversity_loss(*more).item() == pytest.approx(np.mean(cosines), rel=1e-4)


def test_diversity_is_learnt_as_a_cosine_is():
    """Its gradient is that of the cosines, which making all regions fainter does not lower."""
    rows = torch.rand(2, 3, 10, requires_grad=True)
    cosines = torch.cosine_similarity(rows[:, :, None], rows[:, None], dim=-1)  # (2, 3, 3)
    expected = cosines[:, ~torch.eye(3, dtype=torch.bool)].mean()
    loss = diversity_loss(rows, torch.ones(2, 1, 10))
    (gradient,), (wanted,) = (torch.autograd.grad(value, rows) for value in (loss, expected))
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close((gradient * rows).sum(-1), torch.zeros(2, 3), rtol=0, atol=1e-6)


def test_a_cell_counts_by_its_labelled_share():
    ids = torch.tensor([[[1, 0, 1, 1], [0, 0, 1, 1]]])  # a quarter of the first cell, all of the second
    regions = torch.tensor([[0.8, 0.1], [0.4, 0.6]]).view(1, 2, 1, 2)
    losses = SGRCriterion(component_weight=0.0, diversity_weight=1.0)(
        output_of(logits_of(regions), stride=2), ids, classes_of(1)
    )
    first, second = torch.tensor([0.8 / 4, 0.1]), torch.tensor([0.4 / 4, 0.6])
    expected = torch.cosine_similarity(first, second, dim=0)
    torch.testing.assert_close(losses["loss_diversity"], expected, rtol=1e-4, atol=1e-5)


def test_ignored_pixels_and_padding_take_no_part():
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 8, 8)
    ids = torch.zeros(1, 8, 8, dtype=torch.int32)
    ids[0, :3, :6], ids[0, 3:5, :6] = 1, 2
    before = SGRCriterion()(output_of(logits), ids, classes_of(2))
    logits[..., 5:, :], logits[..., 6:] = 9.0, -9.0
    after = SGRCriterion()(output_of(logits), ids, classes_of(2))
    torch.testing.assert_close(before, after)


def test_no_component_is_a_zero_loss_with_gradients():
    logits = torch.randn(2, 4, 8, 8, requires_grad=True)
    losses = SGRCriterion()(output_of(logits), torch.zeros(2, 8, 8, dtype=torch.int32), classes_of(0, 0))
    assert {name: loss.item() for name, loss in losses.items()} == {"loss_component": 0, "loss_diversity": 0}
    sum(losses.values()).backward()
    assert logits.grad is not None and not logits.grad.any()


def test_training_the_logits_finds_the_components():
    torch.manual_seed(0)
    ids = torch.zeros(1, 12, 12, dtype=torch.int32)
    ids[0, :6], ids[0, 6:, :6], ids[0, 6:, 6:] = 1, 2, 3
    logits = (0.1 * torch.randn(1, 5, 12, 12)).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        losses = SGRCriterion()(output_of(logits), ids, classes_of(3))
        sum(losses.values()).backward()
        optimizer.step()
    assert losses["loss_component"].item() < 0.02


def test_huge_logits_stay_finite():
    logits = torch.tensor([1e4, -1e4]).view(1, 2, 1, 1).expand(1, 2, 4, 4).clone().requires_grad_()
    losses = SGRCriterion()(output_of(logits), torch.ones(1, 4, 4, dtype=torch.int32), classes_of(1))
    sum(losses.values()).backward()
    assert torch.isfinite(logits.grad).all()


def test_no_weights_no_losses():
    criterion = SGRCriterion(component_weight=0, diversity_weight=0)
    assert criterion(output_of(torch.zeros(1, 2, 4, 4)), torch.ones(1, 4, 4, dtype=torch.int32), classes_of(1)) == {}


def test_clamped_sum_and_tokens_without_a_component():
    regions = torch.tensor([[[0.5, 0.2], [0.7, 0.3], [0.9, 0.1]]]).view(1, 3, 1, 2)
    unions = join_regions(logits_of(regions), torch.tensor([[0, 0, -1]]), 2, "sum")
    torch.testing.assert_close(unions, torch.tensor([[[1.0, 0.5], [0.0, 0.0]]]))
    unions = join_regions(logits_of(regions), torch.tensor([[0, -1, 1]]), 2, "noisy_or")
    torch.testing.assert_close(unions, torch.tensor([[[0.5, 0.2], [0.9, 0.1]]]))


def test_the_clamped_sum_is_left_again():
    """Ten faint regions on one component are more than 1 in sum: what lies beside it must still be told to fade."""
    logits = torch.full((1, 10, 4, 4), -2.0, requires_grad=True)
    ids = torch.zeros(1, 4, 4, dtype=torch.int64) + (torch.arange(4) < 2)
    targets = components_to_grid(ids, [1], 1, 10)
    targets = targets._replace(labelled=torch.ones_like(targets.labelled))
    loss = component_loss(logits, torch.zeros(1, 10, dtype=torch.int64), targets, "sum")
    assert join_regions(logits, torch.zeros(1, 10, dtype=torch.int64), 1, "sum").unique().item() == 1
    loss.backward()
    assert (logits.grad[..., 2:] > 0).all() and loss.item() == pytest.approx(1 - 17 / 25)


def test_one_component_is_its_own_mean_whatever_its_area():
    """Also where it covers less than a cell."""
    ids = torch.zeros(1, 8, 8, dtype=torch.int64)
    ids[0, :2, :2] = 1
    targets = components_to_grid(ids, [1], 4, 3)
    assert targets.masks.sum() < 1
    of = torch.tensor([[0, -1, -1]])
    losses = [component_loss(torch.zeros(1, 3, 2, 2), of, targets, area_power=power) for power in (0.0, 0.5, 1.0)]
    assert torch.stack(losses).tolist() == pytest.approx([losses[0].item()] * 3)


def test_cosines_do_not_depend_on_how_faint_regions_are():
    shape = torch.rand(1, 1, 64) + 0.1
    for faintness in (1.0, 1e-4, 1e-9):
        regions = torch.cat([shape, 0.5 * shape], dim=1) * faintness
        assert diversity_loss(regions, torch.ones(1, 1, 64)).item() == pytest.approx(1, abs=1e-3)
    assert diversity_loss(torch.zeros(1, 3, 64), torch.zeros(1, 1, 64)) == 0


def test_components_count_by_a_power_of_their_area():
    masks = torch.tensor([[[1.0, 1, 1, 1, 0], [0, 0, 0, 0, 1]]]).view(1, 2, 1, 5)
    targets = GridTargets(masks, torch.ones(1, 1, 1, 5), [2])
    regions = torch.rand(1, 2, 1, 5)
    component_of = torch.tensor([[0, 1]])
    large, small = dice_loss(regions.flatten(2), masks.flatten(2), torch.ones(1, 1, 5))[0]
    for power, expected in ((0.0, (large + small) / 2), (0.5, (2 * large + small) / 3), (1.0, (4 * large + small) / 5)):
        loss = component_loss(logits_of(regions), component_of, targets, area_power=power)
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="AREA_POWER = 2"):
        SGRCriterion(area_power=2)


def test_losses_decay_with_the_training():
    ids = torch.ones(1, 4, 4, dtype=torch.int32)
    output = output_of(torch.zeros(1, 2, 4, 4))
    constant = SGRCriterion()(output, ids, classes_of(1))
    criterion = SGRCriterion(decay=0.9, max_iter=10)
    for step, factor in ((0, 1.0), (5, 0.55), (10, 0.1), (12, 0.1)):
        with EventStorage(step):
            losses = criterion(output, ids, classes_of(1))
        for name, loss in constant.items():
            torch.testing.assert_close(losses[name], factor * loss)
    # outside of a training nothing is taken away
    torch.testing.assert_close(criterion(output, ids, classes_of(1)), constant)
    with pytest.raises(ValueError, match=r"LOSS_DECAY = 2.*from 0 .constant"):
        SGRCriterion(decay=2)


def test_modes_of_assignment():
    masks = torch.tensor([[[1.0, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0]]]).view(1, 2, 1, 6)
    regions = torch.tensor([[[1.0, 1, 0, 0, 0, 0], [1, 0.8, 0, 0, 0, 0], [0.1, 0, 0, 0, 1, 1]]]).view(1, 3, 1, 6)
    targets = GridTargets(masks, torch.ones(1, 1, 1, 6), [2])
    rows = over_labelled(regions, targets)
    assert assign_tokens(rows, targets, "best").tolist() == [[0, 0, 0]]
    regions[0, 2, 0, 2] = 0.2
    rows = over_labelled(regions, targets)
    assert assign_tokens(rows, targets, "hungarian").tolist() == [[0, -1, 1]]


@pytest.mark.parametrize(("option", "key"), [("assignment", "ASSIGNMENT"), ("union", "UNION")])
def test_unknown_choices_name_their_key(option, key):
    with pytest.raises(ValueError, match=f"MODEL.SGR.{key} = 'x'"):
        SGRCriterion(**{option: "x"})


def test_a_decay_needs_to_know_the_last_step():
    with pytest.raises(ValueError, match=r"LOSS_DECAY = 0.5 needs max_iter"):
        SGRCriterion(decay=0.5)


def test_classes_may_be_arrays():
    criterion = SGRCriterion(class_weight=1.0, token_dim=4, num_classes=3)
    output, ids = output_of(torch.zeros(1, 2, 4, 4)), torch.ones(1, 4, 4, dtype=torch.int64)
    expected, found = (criterion(output, ids, [classes]) for classes in (torch.tensor([2]), np.array([2])))
    assert {name: loss.item() for name, loss in expected.items()} == {name: loss.item() for name, loss in found.items()}


def test_fixed_regions_refuse_losses():
    cfg = toy_cfg()
    cfg.MODEL.SGR.REGIONS = "fixed"
    with pytest.raises(ValueError, match="COMPONENT_WEIGHT"):
        SGRCriterion(cfg, num_classes=3)
    cfg.MODEL.SGR.COMPONENT_WEIGHT = cfg.MODEL.SGR.DIVERSITY_WEIGHT = 0.0
    SGRCriterion(cfg, num_classes=3)


@pytest.mark.parametrize("key", ["component_weight", "diversity_weight", "class_weight"])
def test_a_negative_weight_is_refused(key):
    with pytest.raises(ValueError, match=f"{key.upper()} = -1"):
        SGRCriterion(**{key: -1})
