"""BatchNorm over one or all processes, on its own or folded into the 1 x 1 convolution that follows."""

import torch
from fvcore.nn.distributed import differentiable_all_gather
from torch import Tensor, nn

from .pointwise import pointwise


class BatchNorm(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` (same parameters, statistics and names) that can be folded into the convolution that follows.

    A norm scales and shifts each channel. Scaling and shifting the weights and bias of the next convolution instead
    gives the same result, without another map to write and to keep for the backward pass. In half precision the maps
    are rounded before their mean is removed, so that the error grows with |mean| / deviation (most are below 1 here).
    """

    def __init__(self, channels: int, *, sync: bool = False):
        """
        Args:
            channels: C.
            sync: compute the statistics over the batches of all processes, on any device; every process must call it.
        """
        super().__init__(channels)
        self.sync = sync

    def forward(
        self, maps: Tensor, *, weight: Tensor | None = None, bias: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """
        Args:
            maps: (B, C, H, W) to normalise; the only positional argument, as hooks on norms (fvcore's precise
                statistics) expect.
            weight, bias: (C_out, C, 1, 1) and (C_out,) of the convolution; if None, only the norm is applied.
            valid: (B, 1, H, W) bool, the cells that count, None for all; ``maps`` must be zero elsewhere.

        Returns:
            (B, C_out, H, W), or (B, C, H, W) float32.
        """
        with torch.autocast(maps.device.type, enabled=False):
            mean, variance = self.running_mean, self.running_var
            if self.training:
                mean, variance = self._batch_statistics(maps, valid)
            factor = self.weight * (variance + self.eps).rsqrt()
            summand = self.bias - mean * factor
            if weight is None:
                return maps * factor[:, None, None] + summand[:, None, None]
            bias = bias + (weight.flatten(1) * summand).sum(1)
            weight = weight * factor[:, None, None]
        return pointwise(maps, weight, bias)

    def _batch_statistics(self, maps: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and variance (C,) of the batch; also updates the running statistics."""
        if valid is None:
            count = torch.full((1,), maps.numel() // maps.shape[1], dtype=torch.float32, device=maps.device)
        else:
            count = valid.sum(dtype=torch.float32)[None]
        mean, variance = _Moments.apply(maps.float(), valid, count)
        if self.sync:
            parts = torch.stack(differentiable_all_gather(torch.cat([mean, variance, count])))  # (processes, 2 C + 1)
            means, variances, counts = parts.split([len(mean), len(mean), 1], dim=1)
            count = counts.sum(0)
            mean = (counts * means).sum(0) / count
            variance = (counts * (variances + (means - mean).square())).sum(0) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1).clamp(min=1)), self.momentum)
        return mean, variance


class _Moments(torch.autograd.Function):
    """Mean and variance (C,) of the ``count`` valid cells of maps (B, C, H, W), which are zero elsewhere.

    In two passes, as the difference of two large sums would lose a small variance. On the CPU ``torch.var_mean`` takes
    thirty times as long.
    """

    @staticmethod
    def forward(ctx, maps: Tensor, valid: Tensor | None, count: Tensor) -> tuple[Tensor, Tensor]:
        mean = maps.sum((0, 2, 3)) / count
        centred = maps - mean[:, None, None]
        if valid is not None:
            centred *= valid
        variance = centred.square_().sum((0, 2, 3)) / count
        ctx.save_for_backward(maps, valid, count, mean)
        return mean, variance

    @staticmethod
    def backward(ctx, to_mean: Tensor, to_variance: Tensor) -> tuple[Tensor, None, None]:
        maps, valid, count, mean = ctx.saved_tensors
        factor = to_variance * (2 / count)
        summand = to_mean / count - mean * factor
        gradient = torch.addcmul(summand[:, None, None], maps, factor[:, None, None])
        if valid is not None:
            gradient *= valid
        return gradient, None, None
