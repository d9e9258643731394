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
        self._buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
        self._kept = [buffer.clone() for buffer in self._buffers]

    def keep(self) -> None:
        if self._buffers:
            torch._foreach_copy_(self._kept, self._buffers)

    def put_back(self) -> None:
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._kept)
