import pytest
import torch
from detectron2.structures import BitMasks
from torch.nn import functional as F

from sgr_d2.modeling.mask2former import stripes
from sgr_d2.modeling.mask2former.inference import instances, mask_boxes, panoptic_segments, semantic_scores
from sgr_d2.modeling.mask2former.stripes import ResizedMasks


def resized_at_once(masks, padded, size, output):
    large = F.interpolate(masks[None], size=padded, mode="bilinear", align_corners=False)[..., : size[0], : size[1]]
    return F.interpolate(large, size=output, mode="bilinear", align_corners=False)[0]


SIZES = [
    ((32, 40), (32, 40), (32, 40)),
    ((32, 40), (29, 33), (29, 33)),
    ((32, 40), (30, 39), (61, 77)),
    ((32, 40), (30, 39), (7, 9)),
    ((32, 40), (1, 1), (5, 3)),
    ((8, 10), (8, 10), (1, 1)),
]


@pytest.mark.parametrize("values", [1, 300, 2**21])
@pytest.mark.parametrize(("padded", "size", "output"), SIZES)
def test_stripes_are_the_whole_resize(monkeypatch, values, padded, size, output):
    monkeypatch.setattr(stripes, "STRIPE_VALUES", values)
    masks = torch.randn(3, 8, 10)
    result = torch.full((3, *output), torch.nan)
    for rows, logits in ResizedMasks(masks, padded, size, output).stripes():
        result[:, rows] = logits
    torch.testing.assert_close(result, resized_at_once(masks, padded, size, output), rtol=0, atol=2e-6)


def plain(masks: torch.Tensor) -> ResizedMasks:
    size = tuple(masks.shape[1:])
    return ResizedMasks(masks, size, size)


def certain(labels: list[int], classes: int, margin: float = 20.0) -> torch.Tensor:
    """Class logits (Q, K+1) that are sure of a label."""
    return margin * F.one_hot(torch.tensor(labels), classes + 1).float()


def test_semantic_scores_by_hand():
    logits, masks = torch.randn(4, 6), torch.randn(4, 9, 7)
    expected = torch.einsum("qk,qhw->khw", logits.softmax(-1)[:, :-1], masks.sigmoid())
    torch.testing.assert_close(semantic_scores(logits, plain(masks)), expected)


def test_masks_that_need_no_resize_stay_logits():
    """Instances and panoptic segments are read from the same masks after the semantic scores."""
    logits, masks = torch.randn(4, 6), torch.randn(4, 9, 7)
    before = masks.clone()
    semantic_scores(logits, plain(masks))
    assert torch.equal(masks, before)


def test_semantic_scores_hold_no_full_masks(monkeypatch):
    monkeypatch.setattr(stripes, "STRIPE_VALUES", 4 * 64 * 2)
    largest = max(logits.numel() for _, logits in ResizedMasks(torch.randn(4, 16, 16), (64, 64), (64, 64)).stripes())
    assert largest == 4 * 64 * 2


@pytest.mark.parametrize("output", [(64, 64), (16, 16), (4, 64), (64, 4), (1, 1)])
def test_masks_made_smaller_hold_no_full_masks_either(monkeypatch, output):
    monkeypatch.setattr(stripes, "STRIPE_VALUES", 4 * 64 * 8)
    sizes, resize = [], stripes._resize
    monkeypatch.setattr(stripes, "_resize", lambda *args: sizes.append((made := resize(*args)).numel()) or made)
    for _ in ResizedMasks(torch.randn(4, 16, 16), (64, 64), (64, 64), output).stripes():
        pass
    rows_of_one = 64 // output[0] + 3  # the fewest that a row of the output can be made of, with their margin
    assert max(sizes) <= 4 * 64 * max(8 + 3, rows_of_one)


def masks_of(*areas: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.where(area, 4.0, -4.0) for area in areas])


def boxes(*corners) -> list[torch.Tensor]:
    result = []
    for top, left, bottom, right in corners:
        area = torch.zeros(10, 12, dtype=torch.bool)
        area[top:bottom, left:right] = True
        result.append(area)
    return result


def test_boxes_of_masks():
    areas = torch.stack([*boxes((2, 3, 7, 4), (0, 0, 10, 12), (9, 11, 10, 12), (5, 5, 5, 5)), torch.rand(10, 12) > 0.9])
    expected = torch.tensor([[3.0, 2, 4, 7], [0, 0, 12, 10], [11, 9, 12, 10], [0, 0, 0, 0]])
    assert torch.equal(mask_boxes(areas)[:4], expected)
    assert torch.equal(mask_boxes(areas), BitMasks(areas).get_bounding_boxes().tensor)
    assert mask_boxes(areas[:0]).shape == (0, 4)


def test_panoptic_by_hand():
    left, right, thing, hidden, nothing = boxes((0, 0, 10, 4), (0, 8, 10, 12), (0, 4, 5, 8), (0, 4, 4, 8), (5, 4, 9, 8))
    masks = masks_of(left, right, thing, hidden, nothing)
    logits = certain([0, 0, 1, 1, 2], classes=2)  # 2 is "no object"
    logits[3] *= 0.1  # less sure, so it loses its pixels to the same thing
    ids, segments = panoptic_segments(
        logits, plain(masks), thing_classes={1}, object_threshold=0.3, overlap_threshold=0.8
    )
    expected = torch.zeros(10, 12, dtype=torch.int32)
    expected[left | right], expected[thing] = 1, 2
    assert torch.equal(ids, expected)
    assert segments == [
        {"id": 1, "isthing": False, "category_id": 0},
        {"id": 2, "isthing": True, "category_id": 1},
    ]


def test_panoptic_without_a_sure_query():
    ids, segments = panoptic_segments(
        torch.zeros(3, 5), plain(torch.randn(3, 4, 6)), thing_classes=set(), object_threshold=0.8, overlap_threshold=0.8
    )
    assert not ids.any() and ids.shape == (4, 6)
    assert segments == []


def panoptic_query_by_query(logits, masks, things, object_threshold, overlap_threshold):
    """The official rule, one query after the other, with whole masks."""
    scores, labels = logits.softmax(-1).max(-1)
    kept = [q for q in range(len(logits)) if labels[q] != logits.shape[1] - 1 and scores[q] > object_threshold]
    ids, segments, stuff = torch.zeros(masks.shape[1:], dtype=torch.int32), [], {}
    if not kept:
        return ids, segments
    probs = masks[kept].sigmoid()
    winner = (scores[kept][:, None, None] * probs).argmax(0)
    for index, query in enumerate(kept):
        label = int(labels[query])
        won, own = winner == index, probs[index] >= 0.5
        both = won & own
        if not (won.any() and own.any() and both.any()) or won.sum() / own.sum() < overlap_threshold:
            continue
        if label not in things and label in stuff:
            ids[both] = stuff[label]
            continue
        segments.append({"id": len(segments) + 1, "isthing": label in things, "category_id": label})
        ids[both] = len(segments)
        if label not in things:
            stuff[label] = len(segments)
    return ids, segments


@pytest.mark.parametrize(
    ("rows", "ids", "classes"),
    [
        # the first query wins nine pixels, five of them below one half, and keeps four of its five: 9 / 5, not 4 / 5
        (
            [[0.9] * 3 + [0.6, 0.6] + [0.3] * 5, [0.1] * 3 + [0.7, 0.9] + [0.2] * 4 + [0.9]],
            [1, 1, 1, 2, 2, 0, 0, 0, 0, 2],
            [0, 1],
        ),
        # without those below one half three of its five are too few
        (
            [[0.9] * 3 + [0.6, 0.6] + [0.1] * 5, [0.1] * 3 + [0.7, 0.9] + [0.2] * 4 + [0.9]],
            [0, 0, 0, 1, 1, 0, 0, 0, 0, 1],
            [1],
        ),
        # a query that wins only outside of its mask is no segment
        ([[0.6, 0.6] + [0.4] * 4, [0.9, 0.9] + [0.1] * 4], [1, 1, 0, 0, 0, 0], [1]),
    ],
)
def test_pixels_won_below_one_half_count_for_the_overlap_but_are_not_painted(rows, ids, classes):
    masks = torch.logit(torch.tensor(rows))[:, None]
    options = {"thing_classes": {0, 1}, "object_threshold": 0.5, "overlap_threshold": 0.8}
    found, segments = panoptic_segments(certain([0, 1], classes=2), plain(masks), **options)
    assert found[0].tolist() == ids
    assert [segment["category_id"] for segment in segments] == classes


@pytest.mark.parametrize("seed", range(5))
def test_panoptic_against_query_by_query(monkeypatch, seed):
    monkeypatch.setattr(stripes, "STRIPE_VALUES", 500)
    draw = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(12, 5, generator=draw)
    coarse = 4 * torch.randn(12, 4, 5, generator=draw)
    masks = F.interpolate(coarse[None], size=(16, 20), mode="bilinear")[0]
    found = panoptic_segments(logits, plain(masks), thing_classes={0, 2}, object_threshold=0.4, overlap_threshold=0.3)
    expected = panoptic_query_by_query(logits, masks, {0, 2}, 0.4, 0.3)
    assert torch.equal(found[0], expected[0])
    assert found[1] == expected[1]
    assert expected[1]


def test_instances_by_hand():
    first, second = boxes((1, 2, 5, 6), (3, 3, 10, 12))
    logits = torch.tensor([[5.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    found = instances(logits, plain(masks_of(first, second)), max_instances=3)
    probs = logits.softmax(-1)
    inside = torch.sigmoid(torch.tensor(4.0))
    assert found.pred_classes.tolist()[:2] == [0, 1]
    torch.testing.assert_close(found.scores[:2], torch.stack([probs[0, 0], probs[1, 1]]) * inside, rtol=1e-4, atol=0)
    assert torch.equal(found.pred_masks[:2], torch.stack([first, second]))
    assert found.pred_boxes.tensor[:2].tolist() == [[2, 1, 6, 5], [3, 3, 12, 10]]
    assert found.image_size == (10, 12)
    assert len(found) == 3
    assert (found.scores.diff() <= 0).all()


def test_instances_come_with_class_mask_and_box_in_the_order_of_their_scores():
    """The surest class has the faintest mask, and so comes last."""
    first, second, third = boxes((1, 2, 5, 6), (3, 3, 10, 12), (0, 0, 4, 2))
    masks, sureness = masks_of(first, second, third), torch.tensor([0.05, 1.0, 0.3])
    logits = torch.tensor([[6.0, 0.0, 0.0, 0.0], [0.0, 5.0, 0.0, 0.0], [0.0, 0.0, 4.0, 0.0]])
    found = instances(logits, plain(masks * sureness[:, None, None]), max_instances=3)
    probs = logits.softmax(-1).diagonal() * (4 * sureness).sigmoid()
    assert found.pred_classes.tolist() == [1, 2, 0]
    torch.testing.assert_close(found.scores, probs[[1, 2, 0]], rtol=1e-4, atol=0)
    assert torch.equal(found.pred_masks, torch.stack([second, third, first]))
    assert found.pred_boxes.tensor.tolist() == [[3, 3, 12, 10], [0, 0, 2, 4], [2, 1, 6, 5]]


def test_instances_of_some_classes_and_of_none():
    masks = plain(torch.randn(2, 6, 6))
    logits = torch.randn(2, 4)
    assert set(instances(logits, masks, max_instances=6, classes={1}).pred_classes.tolist()) == {1}
    none = instances(logits, masks, max_instances=6, classes=set())
    assert len(none) == 0
    assert none.pred_masks.shape == (0, 6, 6)
    resized = ResizedMasks(torch.randn(2, 6, 6), (24, 24), (24, 20), (12, 10))
    assert instances(logits, resized, max_instances=6, classes=set()).pred_masks.shape == (0, 12, 10)
    empty = instances(logits, plain(torch.full((2, 6, 6), -3.0)), max_instances=6)
    assert not empty.scores.any()
    assert len(instances(logits, masks, max_instances=100)) == 6
