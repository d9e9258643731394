"""Numbers averaged over the training processes."""

import torch
from detectron2.utils import comm
from torch import Tensor


def mean_over_ranks(value: int | Tensor, device: torch.device) -> Tensor:
    """The mean of ``value`` over all processes, or 1 if it is 0, as a scalar on ``device``; every process must call it.

    If each process divides a sum by this mean, the average over processes, which DDP takes of the gradients, is the
    total sum divided by the total value.
    """
    if isinstance(value, Tensor):
        total = value.detach().clone().to(device, torch.float32)
    else:
        total = torch.full((), float(value), device=device)  # avoids a copy from the host
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(total)
    return torch.where(total > 0, total / comm.get_world_size(), 1.0)
