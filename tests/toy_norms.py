"""A small SGR with BatchNorm, for the tests of its norms."""

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from toys import toy_shape

from sgr_d2.modeling.sgr import SGR

LEVELS = ("res2", "res3", "res5")


def make(**options) -> SGR:
    torch.manual_seed(0)
    return SGR(toy_shape(*LEVELS), **{"num_tokens": 7, "token_dim": 16, "num_heads": 2, "norm": "BN", **options})


def randomize_statistics(module):
    for norm in module.modules():
        if isinstance(norm, _BatchNorm):
            torch.nn.init.normal_(norm.running_mean), torch.nn.init.uniform_(norm.running_var, 0.5, 2)


def sizes(count=2):
    return torch.tensor([[64, 64]] * count)
