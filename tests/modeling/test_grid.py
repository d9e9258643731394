import torch
from torch.nn import functional as F

from sgr_d2.modeling.padding import pad_to_batch
from sgr_d2.modeling.sgr.grid import enlarge_valid, shrink_valid, valid_cells


def test_cells_that_touch_the_image_are_valid():
    valid = valid_cells(torch.tensor([[9, 16], [16, 1]]), stride=8, height=3, width=2)
    assert valid[0, 0].tolist() == [[True, True], [True, True], [False, False]]
    assert valid[1, 0].tolist() == [[True, False], [True, False], [False, False]]


def test_enlarging_a_padded_map_equals_enlarging_the_image_alone():
    image = torch.rand(1, 2, 3, 4)
    padded = F.pad(image, (0, 2, 0, 3), value=1e4)  # garbage in the padding
    valid = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    valid[..., :3, :4] = True
    for factor in (2, 4):
        alone = F.interpolate(image, scale_factor=factor, mode="bilinear", align_corners=False)
        resized = enlarge_valid(padded, valid, (6 * factor, 6 * factor), factor)
        torch.testing.assert_close(resized[..., : 3 * factor, : 4 * factor], alone)


def test_shrinking_averages_the_valid_cells_only():
    maps = torch.tensor([[1.0, 3.0, 5.0, 0.0]] * 2)[None, None]
    valid = torch.tensor([[True, True, True, False]] * 2)[None, None]
    assert shrink_valid(maps, valid, (1, 2), 2).flatten().tolist() == [2.0, 5.0]


def test_shrinking_by_a_ratio_that_is_not_whole():
    maps = torch.tensor([[2.0, 4.0, 6.0]])[None, None]
    assert shrink_valid(maps, torch.ones(1, 1, 1, 3, dtype=torch.bool), (1, 2), 1.5).flatten().tolist() == [3.0, 5.0]


def test_a_coarse_cell_may_be_in_part_outside_the_fine_map():
    """Two cells of four rows each, on six rows: the second cell is the last two rows, not the last three."""
    fine = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 9.0]).view(1, 1, 6, 1)
    valid = torch.ones(1, 1, 6, 1, dtype=torch.bool)
    assert shrink_valid(fine, valid, (2, 1), 4).flatten().tolist() == [2.5, 7.0]
    valid[..., 5, :] = False
    assert shrink_valid(fine * valid, valid, (2, 1), 4).flatten().tolist() == [2.5, 5.0]
    coarse = torch.tensor([0.0, 8.0]).view(1, 1, 2, 1)  # centres at 2 and 6 rows from the top, 4 rows apart
    enlarged = enlarge_valid(coarse, torch.ones(1, 1, 2, 1, dtype=torch.bool), (6, 3), 4)
    assert enlarged[0, 0].T.tolist() == [[0.0, 0.0, 1.0, 3.0, 5.0, 7.0]] * 3


def test_maps_that_cover_the_same_pixels_are_shrunk_as_torch_does_it():
    maps, valid = torch.rand(2, 3, 12, 20), torch.ones(2, 1, 12, 20, dtype=torch.bool)
    for ratio in (2, 4):
        size = (12 // ratio, 20 // ratio)
        assert torch.equal(shrink_valid(maps, valid, size, ratio), F.adaptive_avg_pool2d(maps, size))
    # a level of another size than its stride says
    assert torch.equal(shrink_valid(maps, valid, (2, 3), 4), F.adaptive_avg_pool2d(maps, (2, 3)))


def test_gradients_where_no_valid_cell_reaches_stay_finite_in_float16():
    valid = torch.tensor([[True, False, False, False]])[None, None]
    for resize, size, ratio in ((enlarge_valid, (2, 8), 2), (shrink_valid, (1, 2), 2)):
        maps = torch.ones(1, 1, 1, 4, dtype=torch.float16) * valid
        maps.requires_grad_()
        resized = resize(maps, valid, size, ratio)
        (resized * 30).sum().backward()
        assert torch.isfinite(maps.grad).all() and resized[0, 0, 0, -1] == 0


def test_a_map_of_the_size_wanted_is_left_alone():
    maps, valid = torch.rand(1, 2, 3, 4), torch.ones(1, 1, 3, 4, dtype=torch.bool)
    assert enlarge_valid(maps, valid, (3, 4), 1) is maps
    assert shrink_valid(maps, valid, (3, 4), 1) is maps


def test_no_valid_cell_gives_zero_not_nan():
    maps, valid = torch.rand(1, 1, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    assert shrink_valid(torch.zeros_like(maps), valid, (2, 2), 2).abs().max() == 0
    assert enlarge_valid(maps, valid, (8, 8), 2).abs().max() == 0


def test_pad_to_batch():
    batch = pad_to_batch([torch.ones(3, 5), torch.ones(6, 2)], divisor=4, value=7.0)
    assert batch.shape == (2, 8, 8)
    assert batch[0, :3, :5].eq(1).all() and batch[0].sum() == 15 + 7 * (64 - 15)
    assert pad_to_batch([torch.ones(3, 5)], divisor=4, value=0.0, min_size=(9, 4)).shape == (1, 12, 8)
