"""Saves and restores running statistics of norms, which a forward pass changes before it is known to be finite."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


class NormStatistics:
    """Saves the running statistics of a model, and restores them.

    A single non-finite step would leave them NaN for good: all later evaluations and checkpoints would be useless,
    while training, which uses batch statistics, would continue as if nothing had happened.
    """

    def __init__(self, model: nn.Module):
        self._norms = [m for m in model.modules() if isinstance(m, _NormBase) and m.track_running_stats]
        self._kept = [[buffer.clone() for buffer in group] for group in self._buffers()]

    def keep(self) -> None:
        for kept, buffers in zip(self._kept, self._buffers(), strict=True):
            torch._foreach_copy_(kept, buffers)

    def put_back(self) -> None:
        for kept, buffers in zip(self._kept, self._buffers(), strict=True):
            torch._foreach_copy_(buffers, kept)

    def _buffers(self) -> list[list[Tensor]]:
        """Those that the norms have now: fvcore's `update_bn_stats` (TEST.PRECISE_BN) replaces them by other tensors.

        Counters are apart from means and variances: on a GPU, only tensors of one dtype are copied all at once.
        """
        groups: dict[torch.dtype, list[Tensor]] = {}
        for norm in self._norms:
            for buffer in norm.buffers(recurse=False):
                groups.setdefault(buffer.dtype, []).append(buffer)
        return list(groups.values())
