"""Fast sampling of deformable attention on the CPU: weighting and summing take one `embedding_bag` per corner.

`grid_sample` writes every sampled vector to memory before it is weighted, which costs more than the sampling. Here each
output is a weighted sum of rows of a table, and the gradient of the table is the transposed sum.

Shape legend: sample_grid.py, corners.py. Source: ours.
"""

import warnings

import torch
from torch import Tensor
from torch.nn import functional as F

from .corners import Corners, Rows, pieces, rows_of, with_two_cells
from .sample_grid import SampleGrid

# PyTorch warns once per process about torch.sparse.sampled_addmm; users can do nothing about it.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)


def sample_by_bags(value: Tensor, x: Tensor, y: Tensor, logits: Tensor, grid: SampleGrid) -> Tensor:
    """`sampling.sample` for float32 or float64; differentiable once."""
    rows = rows_of(grid, value.device)
    table = with_two_cells(value, grid.shapes).contiguous()
    return _SampleByBags.apply(table, x, y, logits, grid, rows)


class _SampleByBags(torch.autograd.Function):
    """Keeps only its inputs for the backward pass, which recomputes the corners."""

    @staticmethod
    def forward(ctx, table, x, y, logits, grid, rows):
        ctx.save_for_backward(table, x, y, logits)
        ctx.grid, ctx.rows = grid, rows
        out = table.new_empty(len(table), x.shape[1], table.shape[2])
        for image in range(len(table)):
            cells = table[image].view(-1, table.shape[2] // rows.num_heads)
            for piece, corners in pieces(x[image], y[image], logits[image], grid, rows):
                out[image, piece] = _weighted_sum(cells, corners, rows).view(-1, table.shape[2])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        table, x, y, logits = ctx.saved_tensors
        grads = [torch.empty_like(t) for t in (table, x, y, logits)]
        for image in range(len(table)):
            cells = table[image].view(-1, table.shape[2] // ctx.rows.num_heads)
            outer = grad[image].reshape(-1, cells.shape[1])
            top = torch.empty_like(x[image], dtype=torch.int32)
            weights = [torch.empty_like(x[image]) for _ in range(4)]
            for piece, corners in pieces(x[image], y[image], logits[image], ctx.grid, ctx.rows):
                top[piece] = corners.top
                for kept, weight in zip(weights, corners.weights(), strict=True):
                    kept[piece] = weight
                own = grad[image, piece].reshape(-1, cells.shape[1])
                parts = _sample_gradients(cells, own, corners, ctx.rows)
                for target, part in zip(grads[1:], parts, strict=True):
                    target[image, piece] = part
            grads[0][image] = _table_gradient(outer, len(cells), top, weights, ctx.rows).view(table.shape[1:])
        return *grads, None, None


def _weighted_sum(cells: Tensor, corners: Corners, rows: Rows) -> Tensor:
    """(rows of the table, d) -> (n*H, d)."""
    out = None
    for (index, table), weight in zip(_corner_tables(cells, corners, rows), corners.weights(), strict=True):
        bags, weight = (t.view(len(t) * rows.num_heads, -1) for t in (index, weight))
        part = F.embedding_bag(bags, table, mode="sum", per_sample_weights=weight)
        out = part if out is None else out.add_(part)
    return out


def _corner_tables(cells: Tensor, corners: Corners, rows: Rows) -> list[tuple[Tensor, Tensor]]:
    """Index and table of each corner; left and right corners share an index, into shifted tables."""
    right = cells[rows.num_heads :]
    return [(corners.top, cells), (corners.top, right), (corners.bottom, cells), (corners.bottom, right)]


def _table_gradient(grad: Tensor, length: int, top: Tensor, weights: list[Tensor], rows: Rows) -> Tensor:
    """Each row sums the gradients (n*H, d) of samples with their upper left corner there; shifted for other corners."""
    ordered, order = top.flatten().sort()
    starts = F.pad(torch.bincount(ordered, minlength=length).cumsum(0), (1, 0)).int()
    source = order.int().div_(top.numel() // len(grad), rounding_mode="floor")
    total, right, below, diagonal = (
        F.embedding_bag(
            source,
            grad,
            starts,
            mode="sum",
            per_sample_weights=weight.flatten().index_select(0, order),
            include_last_offset=True,
        )
        for weight in weights
    )
    total[rows.num_heads :] += right[: -rows.num_heads]
    below[rows.num_heads :] += diagonal[: -rows.num_heads]
    end = 0
    for height, width in rows.shapes:
        start, end, step = end, end + height * width * rows.num_heads, width * rows.num_heads
        total[start + step : end] += below[start : end - step]
    return total


def _sample_gradients(cells: Tensor, grad: Tensor, corners: Corners, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, y and logits, given the gradient (n*H, d) of the weighted sums."""
    c = corners
    starts = torch.arange(0, c.top.numel() + 1, c.top.numel() // len(grad), dtype=torch.int32, device=grad.device)
    dots = [_dots(starts, index, grad, table) for index, table in _corner_tables(cells, c, rows)]
    upper, lower = c.left * dots[0] + c.right * dots[1], c.left * dots[2] + c.right * dots[3]
    left, right = c.upper * dots[0] + c.lower * dots[2], c.upper * dots[1] + c.lower * dots[3]
    attended = (c.attention * (c.upper * upper + c.lower * lower)).unflatten(1, (rows.num_heads, -1))
    shares = c.attention.unflatten(1, (rows.num_heads, -1))
    logits = (attended - shares * attended.sum(-1, keepdim=True)).flatten(1)
    return c.attention * _slope(c.x, left, right), c.attention * _slope(c.y, upper, lower), logits


def _dots(starts: Tensor, index: Tensor, grad: Tensor, table: Tensor) -> Tensor:
    """Dot products of the gradient of a weighted sum with the rows that it read, one per entry of ``index``."""
    if index.numel() > len(grad) * len(table):  # tiny maps: torch has no pattern with an entry more than once per cell
        return (grad @ table.t()).gather(1, index.reshape(len(grad), -1).long()).view(index.shape)
    zeros = grad.new_zeros(index.numel())
    pattern = torch.sparse_csr_tensor(starts, index.flatten(), zeros, (len(grad), len(table)), check_invariants=False)
    return torch.sparse.sampled_addmm(pattern, grad, table.t(), beta=0.0).values().view(index.shape)


def _slope(distance: Tensor, near: Tensor, far: Tensor) -> Tensor:
    """Derivative of near * weight(distance) + far * weight(distance - 1); the right-hand one at whole numbers."""
    middle = distance.floor().clamp_(-2, 2).add_(0.5)  # midpoint between the two pixels around the sample
    return near * _tent_slope(middle) + far * _tent_slope(middle - 1)


def _tent_slope(middle: Tensor) -> Tensor:
    """1 at -0.5, -1 at 0.5, 0 at all other half-integers: the slope of max(0, 1 - |distance|)."""
    return middle.abs().clamp_(max=1.5).sub_(1.5).mul_(middle).mul_(2)
