"""Saves and restores running statistics of norms, which a forward pass changes before it is known to be finite."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


class NormStatistics:
    """Saves the running statistics of a model, and restores them.

    A single non-finite step would leave them NaN for good: all later evaluations and checkpoints would be useless,
    while training, which uses batch statistics, would continue as if nothing had happened.
    """

    def __init__(self, model: nn.Module):
        norms = [m for m in model.modules() if isinstance(m, _NormBase) and m.track_running_stats]
        buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
        # counters apart from means and variances: on a GPU, only tensors of one dtype are copied all at once
        types = dict.fromkeys(buffer.dtype for buffer in buffers)
        self._buffers = [[buffer for buffer in buffers if buffer.dtype == dtype] for dtype in types]
        self._kept = [[buffer.clone() for buffer in group] for group in self._buffers]

    def keep(self) -> None:
        for kept, buffers in zip(self._kept, self._buffers, strict=True):
            torch._foreach_copy_(kept, buffers)

    def put_back(self) -> None:
        for kept, buffers in zip(self._kept, self._buffers, strict=True):
            torch._foreach_copy_(buffers, kept)
