import pytest
import torch
from torch.nn import functional as F

from sgr_d2.modeling.mask2former.criterion import SetCriterion, class_losses, matched_masks, point_losses
from sgr_d2.modeling.mask2former.matcher import Matching
from sgr_d2.modeling.mask2former.points import sample_points
from sgr_d2.modeling.mask2former.structures import QueryPrediction
from sgr_d2.modeling.mask2former.targets import LabelMapTargets, PointLabels

CLASSES, IGNORE = 4, 255


def predict(layers=3, batch=2, queries=5, seed=0) -> QueryPrediction:
    draw = torch.Generator().manual_seed(seed)
    return QueryPrediction(
        torch.randn(layers, batch, queries, CLASSES + 1, generator=draw).requires_grad_(),
        torch.randn(layers, batch, queries, 6, generator=draw).requires_grad_(),
        torch.randn(batch, 6, 8, 8, generator=draw).requires_grad_(),
    )


def targets_of(labels: torch.Tensor, **options) -> LabelMapTargets:
    return LabelMapTargets(labels, num_classes=CLASSES, **options)


def criterion(**options) -> SetCriterion:
    return SetCriterion(num_classes=CLASSES, **{"num_points": 40, **options})


def scene() -> torch.Tensor:
    labels = torch.full((2, 32, 32), IGNORE)
    labels[0, :16], labels[0, 16:, :8], labels[1, :, :20] = 1, 3, 0
    return labels


class Repeated:
    """Points that depend on purpose, layer and shape alone."""

    def __call__(self, purpose, layer, shape, device):
        seed = ["matcher", "candidates", "rest"].index(purpose) + 10 * layer
        return torch.rand(*shape, 2, generator=torch.Generator().manual_seed(seed))


def test_names_and_weights():
    losses = criterion(source=Repeated())(predict(), targets_of(scene()))
    names = {f"loss_{kind}{suffix}" for kind in ("ce", "mask", "dice") for suffix in ("", "_0", "_1")}
    assert losses.keys() == names
    assert all(loss.shape == () and loss.isfinite() and loss > 0 for loss in losses.values())
    last = criterion(deep_supervision=False)(predict(), targets_of(scene()))
    assert last.keys() == {"loss_ce", "loss_mask", "loss_dice"}


def test_loss_weights_scale_the_losses():
    def losses(factor):
        weights = {key: factor * value for key, value in (("class_weight", 2), ("mask_weight", 5), ("dice_weight", 5))}
        return criterion(source=Repeated(), **weights)(predict(), targets_of(scene()))

    one, three = losses(1.0), losses(3.0)
    for key in one:
        assert three[key].item() == pytest.approx(3 * one[key].item(), rel=1e-5)


def one_class_and_nothing(**options) -> LabelMapTargets:
    """Class 2 in the first image, not a labelled pixel in the second."""
    return targets_of(torch.stack([torch.full((4, 4), 2), torch.full((4, 4), IGNORE)]), **options)


@pytest.mark.parametrize("background", [True, False])
def test_class_losses_by_hand(background):
    """The queries of an image without a label should predict "no object" if its pixels are background."""
    logits = torch.randn(2, 2, 3, CLASSES + 1)
    matching = Matching(
        [torch.tensor([[1], [0]]), torch.zeros(2, 0, dtype=torch.long)],
        [torch.tensor([[0], [0]]), torch.zeros(2, 0, dtype=torch.long)],
        [1, 0],
    )
    weight = torch.tensor([1.0, 1, 1, 1, 0.1])
    losses = class_losses(logits, one_class_and_nothing(ignore_as_background=background), matching, weight)
    for layer, query in ((0, 1), (1, 0)):
        classes = torch.full((6,), CLASSES)
        classes[query] = 2
        counted = slice(0, 6 if background else 3)
        expected = F.cross_entropy(logits[layer].flatten(0, 1)[counted], classes[counted], weight)
        assert losses[layer].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_class_loss_of_few_queries_without_a_target_is_a_mean_too():
    """Their weights add up to less than 1."""
    logits, none = torch.randn(1, 1, 3, CLASSES + 1), torch.zeros(1, 0, dtype=torch.long)
    targets = targets_of(torch.full((1, 4, 4), IGNORE), ignore_as_background=True)
    (loss,) = class_losses(logits, targets, Matching([none], [none], [0]), torch.tensor([1.0, 1, 1, 1, 0.1]))
    torch.testing.assert_close(loss, F.cross_entropy(logits[0, 0], torch.full((3,), CLASSES)))


@pytest.mark.parametrize("with_validity", [True, False])
def test_point_losses_by_hand(with_validity):
    logits, values, valid = torch.randn(3, 20), torch.rand(3, 20), torch.rand(3, 20)
    values = values * valid if with_validity else values
    by_mask, by_dice = point_losses(logits, PointLabels(values, valid if with_validity else None))
    v = valid if with_validity else torch.ones_like(valid)
    entropy = F.binary_cross_entropy_with_logits(logits, values / v, weight=v, reduction="none").sum(1) / v.sum(1)
    p = logits.sigmoid()
    dice = 1 - (2 * (p * values).sum(1) + 1) / ((p * v).sum(1) + values.sum(1) + 1)
    assert by_mask.item() == pytest.approx(entropy.sum().item(), rel=1e-5)
    assert by_dice.item() == pytest.approx(dice.sum().item(), rel=1e-5)


def test_matched_masks_are_those_of_the_product():
    prediction = predict()
    queries = [torch.tensor([[0, 2], [1, 4], [2, 3]]), torch.tensor([[4], [0], [1]])]
    maps = matched_masks(prediction, Matching(queries, queries, [2, 1]))
    for layer in range(3):
        masks = prediction.masks(layer)
        expected = torch.cat([masks[0, queries[0][layer]], masks[1, queries[1][layer]]])
        torch.testing.assert_close(maps[layer], expected, rtol=0, atol=1e-5)


def test_uncertain_points_are_the_least_certain_that_take_part():
    maps = torch.randn(2, 8, 8)
    part = criterion(num_points=10, importance_sample_ratio=0.6, source=Repeated())
    targets, images = targets_of(scene()), torch.tensor([0, 1])
    points = part.choose_points(maps, targets, images, 1)
    assert points.shape == (2, 10, 2)
    candidates = Repeated()("candidates", 1, (2, 30), None)
    certainty = sample_points(maps[:, None], candidates)[:, 0].abs()
    certainty[~targets.takes_part(images, candidates)] = torch.inf
    for row in range(2):
        best = {tuple(point) for point in candidates[row, certainty[row].argsort()[:6]].tolist()}
        assert {tuple(point) for point in points[row, :6].tolist()} == best
    assert torch.equal(points[:, 6:], Repeated()("rest", 1, (2, 4), None))


@pytest.mark.parametrize(("ratio", "purposes"), [(0.0, {"rest"}), (1.0, {"candidates"})])
def test_only_random_and_only_uncertain_points(ratio, purposes):
    asked = set()

    def source(purpose, layer, shape, device):
        asked.add(purpose)
        return torch.rand(*shape, 2)

    criterion(importance_sample_ratio=ratio, source=source)(predict(), targets_of(scene()))
    assert asked == purposes | {"matcher"}


def test_ignored_pixels_take_no_part_unless_asked():
    prediction = predict(layers=1)
    changed = prediction.mask_features.detach().clone()
    changed[0, :, 5:, 4:] += 7.0  # the ignored lower right of image 0, but its margin
    other = prediction._replace(mask_features=changed)
    for background in (False, True):
        targets = targets_of(scene(), ignore_as_background=background)
        part = criterion(source=Repeated(), num_points=400)
        before, after = part(prediction, targets), part(other, targets)
        same = all(before[key].item() == pytest.approx(after[key].item(), abs=1e-5) for key in before)
        assert same is not background


def test_without_ignored_pixels_both_settings_are_equal():
    labels = scene().masked_fill(scene() == IGNORE, 2)
    losses = [
        criterion(source=Repeated())(predict(), targets_of(labels, ignore_as_background=flag, compact=compact))
        for flag in (True, False)
        for compact in (True, False)
    ]
    for other in losses[1:]:
        torch.testing.assert_close(other, losses[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("labels", [torch.full((2, 32, 32), IGNORE), scene().index_fill(0, torch.tensor([0]), IGNORE)])
def test_without_targets_losses_are_finite_and_reach_everything(labels):
    prediction = predict()
    losses = criterion()(prediction, targets_of(labels))
    assert all(loss.isfinite() for loss in losses.values())
    if (labels == IGNORE).all():
        assert all(loss == 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in prediction)


def test_more_targets_than_queries():
    labels = torch.arange(4).view(1, 4, 1).expand(2, 4, 8)
    losses = criterion()(predict(queries=2), targets_of(labels))
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_predictions(dtype):
    prediction = predict()
    half = QueryPrediction(*(part.detach().to(dtype).requires_grad_() for part in prediction))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = criterion(source=Repeated())(half, targets_of(scene()))
    expected = criterion(source=Repeated())(QueryPrediction(*(part.float() for part in half)), targets_of(scene()))
    torch.testing.assert_close(losses, expected)
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(part.grad.isfinite().all() for part in half)


def test_huge_logits_stay_finite():
    prediction = QueryPrediction(*(part.detach() * 1e3 for part in predict()))
    losses = criterion()(prediction, targets_of(scene()))
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class_weight", -1.0),
        ("no_object_weight", -0.1),
        ("oversample_ratio", 0.5),
        ("importance_sample_ratio", 1.5),
        ("num_points", 0),
    ],
)
def test_numbers_out_of_range(key, value):
    with pytest.raises(ValueError, match=rf"MODEL\.MASK_FORMER\.\w+ = {value}"):
        criterion(**{key: value})
