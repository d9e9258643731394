"""Running statistics of normalization, which a forward pass changes before anyone knows whether it was any good."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


class NormStatistics:
    """Keeps the running statistics of a model as they are, and puts them back.

    A single step that is not finite leaves them NaN for good: every later evaluation and checkpoint would be lost,
    while training, which uses the statistics of the batch, goes on as if nothing had happened.
    """

    def __init__(self, model: nn.Module):
        norms = [m for m in model.modules() if isinstance(m, _NormBase) and m.track_running_stats]
        buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
        # counters apart from means and variances: a GPU copies a list of one type at once, others one by one
        types = dict.fromkeys(buffer.dtype for buffer in buffers)
        self._buffers = [[buffer for buffer in buffers if buffer.dtype == dtype] for dtype in types]
        self._kept = [[buffer.clone() for buffer in group] for group in self._buffers]

    def keep(self) -> None:
        for kept, buffers in zip(self._kept, self._buffers, strict=True):
            torch._foreach_copy_(kept, buffers)

    def put_back(self) -> None:
        for kept, buffers in zip(self._kept, self._buffers, strict=True):
            torch._foreach_copy_(buffers, kept)
