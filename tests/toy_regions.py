"""Regions as the criterion of SGR takes them."""

import torch

from sgr_d2.modeling.sgr.targets import GridTargets
from sgr_d2.structures import SGROutput


def output_of(logits: torch.Tensor, stride: int = 1) -> SGROutput:
    batch, num_tokens, height, width = logits.shape
    valid = torch.ones(batch, 1, height, width, dtype=torch.bool)
    return SGROutput({}, logits, torch.zeros(batch, num_tokens, 4), valid, stride)


def logits_of(regions: torch.Tensor) -> torch.Tensor:
    return torch.logit(regions.clamp(1e-6, 1 - 1e-6))


def classes_of(*counts: int) -> list[torch.Tensor]:
    return [torch.arange(count) % 3 for count in counts]


def over_labelled(regions: torch.Tensor, targets: GridTargets) -> torch.Tensor:
    return (regions * targets.labelled).flatten(2)
