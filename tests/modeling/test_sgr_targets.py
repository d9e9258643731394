from itertools import permutations

import pytest
import torch
from toy_regions import classes_of, output_of, over_labelled

from sgr_d2.modeling.sgr import SGRCriterion
from sgr_d2.modeling.sgr.assignment import assign_tokens, cosine_affinity
from sgr_d2.modeling.sgr.losses import component_loss
from sgr_d2.modeling.sgr.targets import GridTargets, components_to_grid


def test_components_to_grid_by_hand():
    ids = torch.tensor([[[1, 1, 2, 0], [1, 0, 2, 0], [0, 0, 3, 3], [0, 0, 3, 3]]])
    targets = components_to_grid(ids, [3], stride=2, max_components=8)
    assert targets.masks[0].tolist() == [
        [[0.75, 0.0], [0.0, 0.0]],
        [[0.0, 0.5], [0.0, 0.0]],
        [[0.0, 0.0], [0.0, 1.0]],
    ]
    assert targets.labelled[0, 0].tolist() == [[0.75, 0.5], [0.0, 1.0]]
    assert targets.counts == [3]


def test_components_to_grid_against_masks():
    ids = torch.randint(0, 9, (2, 12, 20))
    targets = components_to_grid(ids, [8, 8], stride=4, max_components=5)
    masks = torch.stack([(ids == index).float() for index in range(1, 6)], dim=1)
    torch.testing.assert_close(targets.masks, torch.nn.functional.avg_pool2d(masks, 4))
    torch.testing.assert_close(targets.labelled, torch.nn.functional.avg_pool2d((ids > 0).float()[:, None], 4))
    assert targets.counts == [5, 5]


def test_pixels_in_no_component_are_labelled_also_beside_images_of_more():
    ids = torch.tensor([[[1, 1, 2, 0], [1, 3, 3, 0]], [[1, 1, 1, 1], [1, 1, 0, 0]]])
    targets = components_to_grid(ids, [2, 0], stride=2, max_components=5)  # 3 in the first, 1 in the second are in none
    assert targets.masks.tolist() == [[[[0.75, 0.0]], [[0.0, 0.25]]], [[[0.0, 0.0]], [[0.0, 0.0]]]]
    assert targets.labelled.tolist() == [[[[1.0, 0.5]]], [[[1.0, 0.5]]]]


def test_regions_are_to_keep_off_what_is_in_no_component():
    logits = torch.full((1, 2, 1, 2), 3.0)
    losses = [
        component_loss(logits, torch.tensor([[0, 0]]), components_to_grid(ids, [1], stride=2, max_components=2))
        for ids in (torch.tensor([[[1, 1, 0, 0], [1, 1, 0, 0]]]), torch.tensor([[[1, 1, 2, 2], [1, 1, 2, 2]]]))
    ]
    union = 1 - (1 - torch.tensor(3.0).sigmoid()) ** 2
    torch.testing.assert_close(losses[0], 1 - (2 * union + 1) / (union + 1 + 1))
    torch.testing.assert_close(losses[1], 1 - (2 * union + 1) / (2 * union + 1 + 1))


def test_components_of_another_size_than_the_grid_are_refused():
    output, ids = output_of(torch.zeros(1, 4, 8, 12), stride=8), torch.ones(1, 64, 100, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"64x100 pixels .*grid of stride 8 covers 64x96: pad"):
        SGRCriterion()(output, ids, classes_of(1))


def test_negative_ids_are_ignored():
    ids = torch.ones(2, 4, 4, dtype=torch.int64)
    ids[1, :2] = 0
    expected = components_to_grid(ids, [1, 1], 2, max_components=4)
    ids[1, :2] = -1
    for found, wanted in zip(components_to_grid(ids, [1, 1], 2, max_components=4), expected, strict=True):
        assert found == wanted if isinstance(wanted, list) else torch.equal(found, wanted)


def test_components_to_grid_of_nothing():
    targets = components_to_grid(torch.zeros(2, 4, 4, dtype=torch.int32), [0, 0], stride=2, max_components=5)
    assert targets.masks.shape == (2, 0, 2, 2)
    assert targets.labelled.sum() == 0


def test_two_thousand_components_cost_no_mask_each():
    ids = torch.arange(1, 2001).view(1, 40, 50).repeat_interleave(2, 1).repeat_interleave(2, 2)
    criterion = SGRCriterion()
    losses = criterion(output_of(torch.zeros(1, 16, 20, 25), stride=4), ids, classes_of(2000))
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert components_to_grid(ids, [2000], 4, 16).masks.shape[1] == 16


def test_hungarian_then_best_component():
    # token 0 and 1 both look like component 0, token 2 like nothing; component 1 is found by nobody
    masks = torch.tensor([[[1.0, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0]]]).view(1, 2, 1, 6)
    regions = torch.tensor([[[1.0, 1, 0, 0, 0, 0], [1, 0.8, 0, 0, 0, 0], [0, 0, 0, 0.1, 1, 1]]]).view(1, 3, 1, 6)
    targets = GridTargets(masks, torch.ones(1, 1, 1, 6), [2])
    assert assign_tokens(over_labelled(regions, targets), targets).tolist() == [[0, 0, 1]]


def test_every_component_gets_a_token_and_the_total_is_optimal():
    torch.manual_seed(0)
    regions, masks = torch.rand(3, 4, 5, 5), torch.rand(3, 4, 5, 5)
    targets = GridTargets(masks, torch.ones(3, 1, 5, 5), [4, 4, 4])
    affinity = cosine_affinity(over_labelled(regions, targets), targets).numpy()
    component_of = assign_tokens(over_labelled(regions, targets), targets).numpy()
    for b in range(3):
        best = max(sum(affinity[b, k, p[k]] for k in range(4)) for p in permutations(range(4)))
        assert sorted(component_of[b]) == [0, 1, 2, 3]
        assert sum(affinity[b, k, component_of[b, k]] for k in range(4)) == pytest.approx(best, rel=1e-5)


def test_a_batch_equals_its_images():
    torch.manual_seed(1)
    regions, masks = torch.rand(2, 6, 4, 4), torch.rand(2, 3, 4, 4)
    masks[1, 2] = 0
    labelled = torch.ones(2, 1, 4, 4)
    targets = GridTargets(masks, labelled, [3, 2])
    both = assign_tokens(over_labelled(regions, targets), targets)
    for b, count in enumerate((3, 2)):
        single = GridTargets(masks[b : b + 1, :count], labelled[b : b + 1], [count])
        assert assign_tokens(over_labelled(regions[b : b + 1], single), single)[0].tolist() == both[b].tolist()


def test_no_components_and_nan():
    targets = GridTargets(torch.zeros(1, 0, 2, 2), torch.zeros(1, 1, 2, 2), [0])
    assert assign_tokens(torch.rand(1, 3, 4), targets).tolist() == [[-1, -1, -1]]
    targets = GridTargets(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), [1])
    assert assign_tokens(torch.full((1, 3, 4), torch.nan), targets).tolist() == [[0, 0, 0]]


def test_affinity_is_a_cosine_however_faint_a_region_and_large_a_component():
    regions, masks = torch.tensor([1.0, 1e-2, 1e-4])[:, None, None] * torch.rand(2, 3, 2, 5), torch.rand(2, 4, 2, 5)
    masks[:, 1] *= 10
    targets = GridTargets(masks, torch.ones(2, 1, 2, 5), [4, 4])
    rows = over_labelled(regions, targets)
    cosines = torch.cosine_similarity(rows[:, :, None], masks.flatten(2)[:, None], dim=-1)
    torch.testing.assert_close(cosine_affinity(rows, targets), cosines)


def test_affinity_ignores_unlabelled_cells():
    regions, masks = torch.rand(1, 3, 2, 3), torch.rand(1, 2, 2, 3)
    labelled = torch.ones(1, 1, 2, 3)
    labelled[..., 2], masks[..., 2] = 0, 0
    targets = GridTargets(masks, labelled, [2])
    before = cosine_affinity(over_labelled(regions, targets), targets)
    regions[..., 2] = 1.0
    torch.testing.assert_close(cosine_affinity(over_labelled(regions, targets), targets), before)
