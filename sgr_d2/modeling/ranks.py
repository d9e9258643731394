"""Numbers shared between the processes of a training."""

import torch
from detectron2.utils import comm
from torch import Tensor


def mean_over_ranks(value: int | Tensor, device: torch.device) -> Tensor:
    """The mean of ``value`` over all processes, or 1 if it is 0, as a scalar on ``device``; every process must call it.

    A sum divided by it and then averaged over the processes, as DDP does with gradients, is the sum of all processes
    over the value of all of them.
    """
    if isinstance(value, Tensor):
        total = value.detach().clone().to(device, torch.float32)
    else:
        total = torch.full((), float(value), device=device)  # no copy from the host
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(total)
    return torch.where(total > 0, total / comm.get_world_size(), 1.0)
