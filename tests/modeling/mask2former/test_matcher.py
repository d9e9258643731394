import logging
from itertools import permutations

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage
from mask_targets import MaskTargets
from torch.nn import functional as F

from sgr_d2.modeling.image_names import image_name, naming_images
from sgr_d2.modeling.mask2former.matcher import HungarianMatcher, mask_costs
from sgr_d2.modeling.mask2former.points import random_points
from sgr_d2.modeling.mask2former.structures import QueryPrediction
from sgr_d2.modeling.mask2former.targets import LabelMapTargets, PointLabels

CLASSES = 5


def matcher(**changes) -> HungarianMatcher:
    return HungarianMatcher(**{"class_weight": 2, "mask_weight": 5, "dice_weight": 5, "num_points": 60, **changes})


def predict(layers=2, batch=2, queries=4, seed=0) -> QueryPrediction:
    draw = torch.Generator().manual_seed(seed)
    return QueryPrediction(
        torch.randn(layers, batch, queries, CLASSES + 1, generator=draw),
        torch.randn(layers, batch, queries, 6, generator=draw),
        torch.randn(batch, 6, 9, 7, generator=draw),
    )


def masks_of(*counts: int) -> MaskTargets:
    draw = torch.Generator().manual_seed(3)
    masks = [torch.rand(count, 18, 14, generator=draw) > 0.6 for count in counts]
    labels = [torch.randint(0, CLASSES, (count,), generator=draw) for count in counts]
    return MaskTargets(labels, masks, size=(18, 14), num_classes=CLASSES)


def fixed(purpose, layer, shape, device):
    """The same points for every image of a layer."""
    return torch.rand(1, shape[1], 2, generator=torch.Generator().manual_seed(layer)).expand(*shape, 2)


@pytest.mark.parametrize("with_validity", [True, False])
def test_costs_pair_by_pair(with_validity):
    logits, values = 3 * torch.randn(2, 4, 50), torch.rand(2, 50, 3)
    valid = torch.rand(2, 50)
    values = values * valid[..., None] if with_validity else values
    by_mask, by_dice = mask_costs(logits, PointLabels(values, valid if with_validity else None))
    weight = valid if with_validity else torch.ones_like(valid)
    for b in range(2):
        for q in range(4):
            for s in range(3):
                x, t, v = logits[b, q], values[b, :, s], weight[b]
                entropy = F.binary_cross_entropy_with_logits(x, t / v, weight=v, reduction="sum") / v.sum()
                p = x.sigmoid()
                dice = 1 - (2 * (p * t).sum() + 1) / ((p * v).sum() + t.sum() + 1)
                assert by_mask[b, q, s].item() == pytest.approx(entropy.item(), abs=1e-5)
                assert by_dice[b, q, s].item() == pytest.approx(dice.item(), abs=1e-5)


def test_costs_are_in_float32_under_autocast():
    prediction, targets = predict(), masks_of(3, 4)
    expected = matcher().costs(prediction, targets, fixed)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(matcher().costs(prediction, targets, fixed), expected)


@pytest.mark.parametrize("counts", [(3, 4), (4, 1), (0, 2), (0, 0), (6, 2)])
def test_total_is_least_and_nobody_is_taken_twice(counts):
    prediction, targets = predict(), masks_of(*counts)
    costs = matcher().costs(prediction, targets, fixed).numpy()
    matching = matcher()(prediction, targets, fixed)
    assert matching.num_targets == list(counts)
    for image, count in enumerate(counts):
        pairs = min(4, count)
        assert matching.queries[image].shape == matching.slots[image].shape == (2, pairs)
        for layer in range(2):
            queries, slots = matching.queries[image][layer].numpy(), matching.slots[image][layer].numpy()
            assert list(queries) == sorted(set(queries.tolist()))
            assert len(set(slots.tolist())) == pairs
            cost = costs[layer, image]
            if count <= 4:
                every = [sum(cost[q, s] for s, q in enumerate(p)) for p in permutations(range(4), count)]
            else:
                every = [sum(cost[q, s] for q, s in enumerate(p)) for p in permutations(range(count), 4)]
            assert cost[queries, slots].sum() == pytest.approx(min(every), abs=1e-4)


def test_a_batch_equals_its_images():
    prediction = predict()
    labels = torch.randint(0, CLASSES, (2, 18, 14), generator=torch.Generator().manual_seed(5))
    labels[1] = labels[1].clamp(max=1)
    both = matcher()(prediction, LabelMapTargets(labels, num_classes=CLASSES), fixed)
    for image in range(2):
        one = LabelMapTargets(labels[image, None], num_classes=CLASSES)
        single = matcher()(prediction.of_image(image), one, fixed)
        assert torch.equal(single.queries[0], both.queries[image])
        assert torch.equal(single.slots[0], both.slots[image])


def test_hundreds_of_targets():
    matching = matcher(num_points=20)(predict(queries=10), masks_of(2000, 3), random_points)
    assert [q.shape for q in matching.queries] == [(2, 10), (2, 3)]
    assert matching.num_targets == [2000, 3]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nonfinite_costs_are_counted_named_and_survived(bad, caplog):
    prediction = predict()
    prediction.mask_embeddings[1, 1, 2] = bad
    with EventStorage() as storage, naming_images(["a.png", "b.png"]), caplog.at_level(logging.WARNING):
        matching = matcher()(prediction, masks_of(3, 3), fixed)
    assert "b.png" in caplog.text
    assert "a.png" not in caplog.text
    assert storage.latest()["mask_former/nonfinite_costs"][0] == 3
    assert 2 not in matching.queries[1][1]  # three other queries were left
    assert matching.queries[1].shape == (2, 3)


def test_everything_is_nan():
    prediction = predict()._replace(mask_features=torch.full((2, 6, 9, 7), torch.nan))
    matching = matcher()(prediction, masks_of(3, 5), fixed)
    assert [q.shape for q in matching.queries] == [(2, 3), (2, 4)]


def test_finite_costs_are_reported_as_none():
    with EventStorage() as storage:
        matcher()(predict(), masks_of(3, 3), fixed)
    assert storage.latest()["mask_former/nonfinite_costs"][0] == 0


def test_a_wrong_label_is_an_error():
    labels = torch.zeros(2, 8, 8, dtype=torch.long)
    labels[1, 3, 3] = CLASSES
    with (
        naming_images(["a.png", "b.png"]),
        pytest.raises(ValueError, match=r"^b\.png: a target has a label outside 0\.\.4 .*IGNORE_VALUE"),
    ):
        matcher()(predict(), LabelMapTargets(labels, num_classes=CLASSES), fixed)


def test_float16_predictions_are_compared_in_float32():
    prediction = predict()
    half = QueryPrediction(*(part.half() for part in prediction))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        costs = matcher().costs(half, masks_of(3, 3), fixed)
    assert costs.dtype == torch.float32
    expected = matcher().costs(prediction, masks_of(3, 3), fixed)
    assert np.allclose(costs, expected, atol=0.05)


def test_image_names():
    assert image_name(1) == "image 1 of the batch"
    with naming_images(["x", "y"]):
        assert image_name(1) == "y"
        assert image_name(2) == "image 2 of the batch"
        with naming_images(["z"]):
            assert image_name(0) == "z"
        assert image_name(0) == "x"
    assert image_name(0) == "image 0 of the batch"
