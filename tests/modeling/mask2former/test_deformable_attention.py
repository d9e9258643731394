import math

import pytest
import torch
from toys import randomize_zeros

from sgr_d2.modeling.mask2former import corners
from sgr_d2.modeling.mask2former.bag_sampling import sample_by_bags
from sgr_d2.modeling.mask2former.deformable_attention import MSDeformAttn
from sgr_d2.modeling.mask2former.sample_grid import sample_grid
from sgr_d2.modeling.mask2former.sampling import sample, sample_by_grid

BOTH = pytest.mark.parametrize("function", [sample_by_bags, sample_by_grid])
LEVELS = [
    [(3, 5), (7, 6), (2, 2)],
    [(1, 1)],
    [(1, 1), (1, 4), (3, 1)],
    [(9, 12), (16, 23), (33, 47)],
]


def inputs(shapes, *, heads=2, points=3, batch=1, dim=3, spread=3.0, dtype=torch.float64, seed=0):
    """Random value, offsets in pixels and logits; some samples lie outside the maps."""
    generator = torch.Generator().manual_seed(seed)
    tokens, samples = sum(h * w for h, w in shapes), heads * len(shapes) * points

    def draw(channels, scale=1.0):
        values = scale * torch.randn(batch, tokens, channels, generator=generator, dtype=torch.float64)
        return values.to(dtype).requires_grad_()

    grid = sample_grid(shapes, num_heads=heads, num_points=points)
    return [draw(heads * dim), draw(samples, spread), draw(samples, spread), draw(samples)], grid


def read(image, x, y):
    """The bilinear value at pixel coordinates (x, y) of an (h, w, d) map, zero outside."""
    total = torch.zeros(image.shape[2], dtype=image.dtype)
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                total += (1 - abs(x - column)) * (1 - abs(y - row)) * image[row, column]
    return total


def by_loops(value, x, y, logits, shapes, heads, points):
    """Equation 3 of Deformable DETR, sample by sample."""
    out = torch.zeros_like(value)
    starts = [sum(h * w for h, w in shapes[:level]) for level in range(len(shapes))]
    dim = value.shape[2] // heads
    places = [(r, c, h, w) for h, w in shapes for r in range(h) for c in range(w)]
    for b in range(len(value)):
        for t, (row, column, height, width) in enumerate(places):
            for head in range(heads):
                channels = slice(head * dim, (head + 1) * dim)
                weights = logits[b, t].view(heads, len(shapes), points)[head].flatten().softmax(0)
                for level, (h, w) in enumerate(shapes):
                    image = value[b, starts[level] : starts[level] + h * w, channels].view(h, w, dim)
                    for point in range(points):
                        index = (head * len(shapes) + level) * points + point
                        at_x = (column + 0.5) / width * w - 0.5 + x[b, t, index].item()
                        at_y = (row + 0.5) / height * h - 0.5 + y[b, t, index].item()
                        out[b, t, channels] += weights[level * points + point] * read(image, at_x, at_y)
    return out


@BOTH
@pytest.mark.parametrize("shapes", LEVELS[:3])
def test_against_loops(function, shapes):
    tensors, grid = inputs(shapes, batch=2)
    tensors = [t.detach() for t in tensors]
    torch.testing.assert_close(function(*tensors, grid), by_loops(*tensors, shapes, 2, 3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shapes", LEVELS)
@pytest.mark.parametrize(("batch", "heads"), [(1, 2), (3, 2), (2, 1)])
def test_both_ways_give_the_same_values_and_gradients(shapes, batch, heads):
    tensors, grid = inputs(shapes, batch=batch, heads=heads)
    bags, other = sample_by_bags(*tensors, grid), sample_by_grid(*tensors, grid)
    torch.testing.assert_close(bags, other, rtol=0, atol=1e-12)
    outer = torch.randn_like(bags)
    gradients = zip(torch.autograd.grad(bags, tensors, outer), torch.autograd.grad(other, tensors, outer), strict=True)
    for ours, expected in gradients:
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)


def test_float32_is_as_good_as_grid_sample_in_float32():
    tensors, grid = inputs(LEVELS[3], dtype=torch.float32)
    exact = sample_by_grid(*(t.double() for t in tensors), grid)
    error = (sample_by_bags(*tensors, grid) - exact).abs().max()
    assert error < 1e-5
    assert error <= 1.5 * (sample_by_grid(*tensors, grid) - exact).abs().max()


def test_gradient_against_finite_differences():
    tensors, grid = inputs([(3, 4), (1, 2)], batch=2, points=2)
    assert torch.autograd.gradcheck(lambda *t: sample_by_bags(*t, grid), tensors, fast_mode=True)


def test_result_does_not_depend_on_the_size_of_the_pieces(monkeypatch):
    tensors, grid = inputs(LEVELS[0], batch=2)

    def run():
        out = sample_by_bags(*tensors, grid)
        return [out, *torch.autograd.grad(out.square().sum(), tensors)]

    whole = run()
    monkeypatch.setattr(corners, "PIECE", 100)  # 5 of 61 tokens
    for part, expected in zip(run(), whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-12, atol=1e-12)


FAR = [8.0, -8.0, 1e9, -1e9]


@pytest.mark.parametrize(
    ("function", "far"),
    [(f, far) for f in (sample_by_bags, sample_by_grid) for far in FAR] + [(sample_by_bags, math.inf)],
)
def test_samples_wholly_outside_are_zero_and_pull_nowhere(function, far):
    (value, x, y, logits), grid = inputs([(4, 5)], spread=0.0)
    x = torch.full_like(x, far, requires_grad=True)
    out = function(value, x, y, logits, grid)
    assert not out.any()
    assert not any(g.any() for g in torch.autograd.grad(out.sum(), (value, x, y, logits)))


@BOTH
def test_slope_at_a_pixel_centre_is_that_towards_the_next_pixel(function):
    """With the initial offsets most samples lie on centres; grid_sample has this slope there, too."""
    grid = sample_grid([(2, 4)], num_heads=1, num_points=1)
    value = torch.tensor([1.0, 2.0, 4.0, 8.0, 10.0, 20.0, 40.0, 80.0]).view(1, 8, 1)
    x, y = (torch.zeros(1, 8, 1, requires_grad=True) for _ in range(2))
    out = function(value, x, y, torch.zeros(1, 8, 1), grid)
    torch.testing.assert_close(out, value)
    slope_x, slope_y = torch.autograd.grad(out.sum(), (x, y))
    assert slope_x.flatten().tolist() == [1, 2, 4, -8, 10, 20, 40, -80]
    assert slope_y.flatten().tolist() == [9, 18, 36, 72, -10, -20, -40, -80]


def test_not_a_number_stays_in_its_token_and_head():
    (value, x, y, logits), grid = inputs([(3, 3)], heads=2, dim=3)
    spoiled = x.detach().clone()
    spoiled[0, 4, 0] = math.nan
    out = sample_by_bags(value, spoiled.requires_grad_(), y, logits, grid)
    assert out.isnan().nonzero().tolist() == [[0, 4, 0], [0, 4, 1], [0, 4, 2]]
    out.nansum().backward()


@BOTH
def test_huge_logits(function):
    (value, x, y, _), grid = inputs([(3, 3)], heads=1, points=2)
    logits = torch.tensor([1e4, -1e4]).expand(1, 9, 2).double()
    first = torch.tensor([0.0, -math.inf]).expand(1, 9, 2).double()
    torch.testing.assert_close(function(value, x, y, logits, grid), function(value, x, y, first, grid))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_samples_in_float32_under_autocast(dtype):
    tensors, grid = inputs(LEVELS[0], dtype=dtype)
    expected = sample_by_grid(*(t.double() for t in tensors), grid).float()
    with torch.autocast("cpu", dtype=dtype):
        out = sample(*tensors, grid)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    assert all(g.dtype == dtype for g in torch.autograd.grad(out.sum(), tensors))


def test_no_images():
    tensors, grid = inputs(LEVELS[0], batch=0)
    assert sample_by_bags(*tensors, grid).shape == (0, 61, 6)


def make(shapes, dim=12, heads=3, points=2):
    torch.manual_seed(0)
    attention = MSDeformAttn(dim=dim, num_levels=len(shapes), num_heads=heads, num_points=points)
    return attention, sample_grid(shapes, num_heads=heads, num_points=points)


def test_starts_with_a_ring_of_directions_and_equal_weights():
    attention = MSDeformAttn(dim=8, num_levels=3, num_heads=4, num_points=2)
    offsets = attention.sampling_offsets.bias.view(4, 3, 2, 2)
    expected = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    for level in range(3):
        torch.testing.assert_close(offsets[:, level, 0], expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(offsets[:, level, 1], 2 * expected, atol=1e-6, rtol=0)
    still = (attention.sampling_offsets.weight, attention.attention_weights.weight, attention.attention_weights.bias)
    assert not any(t.any() for t in still)


def test_heads_that_look_along_a_diagonal_start_at_whole_pixels():
    attention = MSDeformAttn(dim=8, num_levels=1, num_heads=8, num_points=2)
    offsets = attention.sampling_offsets.bias.view(8, 2, 2)
    ring = torch.tensor([[1.0, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1]])
    torch.testing.assert_close(offsets, torch.stack([ring, 2 * ring], dim=1), atol=1e-5, rtol=0)


def test_offsets_alternate_x_and_y_in_the_projection():
    """One head reads one pixel to the right on a map of columns 0, 1, 2, 3."""
    attention, grid = make([(2, 4)], dim=1, heads=1, points=1)
    with torch.no_grad():
        for linear in (attention.value_proj, attention.output_proj):
            linear.weight.fill_(1)
        attention.sampling_offsets.bias.copy_(torch.tensor([1.0, 0.0]))
    columns = torch.arange(4.0).repeat(2)[None, :, None]
    out = attention(torch.zeros(1, 8, 1), columns, grid)
    assert out.flatten().tolist() == [1, 2, 3, 0, 1, 2, 3, 0]


def test_query_chooses_and_source_is_read():
    attention, grid = make([(3, 4), (6, 8)])
    randomize_zeros(attention)
    query, source = torch.randn(2, 60, 12), torch.randn(2, 60, 12)
    out = attention(query, source, grid)
    assert out.shape == (2, 60, 12)
    without = attention(query, torch.zeros_like(source), grid)
    torch.testing.assert_close(attention(query, 2 * source, grid) - out, out - without, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(attention(2 * query, source, grid), out)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in attention.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_module_under_autocast(dtype):
    attention, grid = make([(3, 4), (6, 8)])
    query, source = torch.randn(1, 60, 12), torch.randn(1, 60, 12)
    exact = attention(query, source, grid)
    with torch.autocast("cpu", dtype=dtype):
        out = attention(query, source, grid)
        out.float().sum().backward()
    torch.testing.assert_close(out.float(), exact, rtol=0.1, atol=0.1)
    assert all(p.grad.isfinite().all() for p in attention.parameters())


@pytest.mark.gpu
@pytest.mark.parametrize("shapes", LEVELS)
def test_cuda_gives_the_numbers_of_the_cpu(shapes):
    tensors, grid = inputs(shapes, batch=2, dtype=torch.float32)
    expected = sample(*tensors, grid)
    cuda = [t.detach().cuda().requires_grad_() for t in tensors]
    out = sample(*cuda, sample_grid(shapes, num_heads=2, num_points=3, device=torch.device("cuda")))
    torch.testing.assert_close(out.cpu(), expected, rtol=1e-4, atol=1e-5)
    gradients = torch.autograd.grad(out.sum(), cuda), torch.autograd.grad(expected.sum(), tensors)
    for ours, cpu in zip(*gradients, strict=True):
        torch.testing.assert_close(ours.cpu(), cpu, rtol=1e-3, atol=1e-4)
