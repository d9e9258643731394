"""Measures what SGR adds to the features of a trained model, and how much of it depends on the tokens."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sgr_d2.messages import NO_SGR
from sgr_d2.modeling.sgr.fusion import Fusion


class TokenParts(NamedTuple):
    """The mean squared norm of the tokens, split into fractions that add up to 1.

    Attributes:
        common: of the mean token of all images, which carries no information about an image.
        between_images: of the difference between the mean token of an image and that of all images.
        between_tokens: of the difference between a token and the mean token of its image.
    """

    common: float
    between_images: float
    between_tokens: float


class Change(NamedTuple):
    """How a fusion block changes its features F, padding included.

    Attributes:
        size: norm of the change relative to that of F.
        constant: fraction of the squared change that is the same at every position of every image, like a bias.
        of_tokens: squared difference from the change with every token replaced by the mean token, relative to the
            squared change. (Not a fraction: what the tokens add can cancel with the rest.)
    """

    size: float
    constant: float
    of_tokens: float


class TokenUse(NamedTuple):
    """The use of tokens by a model with SGR, over some images.

    Attributes:
        tokens: parts of the encoder's output.
        changes: {level: Change}.
    """

    tokens: TokenParts
    changes: dict[str, Change]


def token_use(model: nn.Module, batches: Iterable[list[dict]]) -> TokenUse:
    """Measure the use of tokens in two passes over the batches.

    Args:
        model: with SGR; it is put into evaluation mode.
        batches: lists of dicts with at least "image".

    Raises:
        ValueError: if the model has no SGR, or there is no batch.
    """
    blocks = {name.rsplit(".", 1)[-1]: block for name, block in model.named_modules() if isinstance(block, Fusion)}
    if not blocks:
        raise ValueError(f"The model {NO_SGR}: there are no tokens to measure.")
    batches = list(batches)
    if not batches:
        raise ValueError("No batch: give at least one.")
    model.eval()
    tokens = torch.cat(_tokens(model, next(iter(blocks.values())), batches))
    meters = {level: _ChangeMeter(tokens.mean((0, 1))) for level in blocks}
    hooks = [block.register_forward_hook(meters[level]) for level, block in blocks.items()]
    try:
        _run(model, batches)
    finally:
        for hook in hooks:
            hook.remove()
    return TokenUse(token_parts(tokens), {level: meter.change() for level, meter in meters.items()})


def token_parts(tokens: Tensor) -> TokenParts:
    """The parts of tokens (N, K, D) of N images; all zero if the tokens are."""
    tokens = tokens.double()
    of_images = tokens.mean(1)  # (N, D)
    common = of_images.mean(0)  # (D,)
    squares = [
        common.square().sum(),
        (of_images - common).square().sum(1).mean(),
        (tokens - of_images[:, None]).square().sum(2).mean(),
    ]
    total = sum(squares)
    return TokenParts(*((square / total).item() if total else 0.0 for square in squares))


class _ChangeMeter:
    """A forward hook for a fusion block that accumulates what `Change` needs, in float64."""

    def __init__(self, mean_token: Tensor):
        self.mean_token = mean_token
        self.features = self.changes = self.differences = self.sum = 0.0
        self.positions = 0

    def __call__(self, block: Fusion, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        features, tokens, *more = inputs
        other = block.forward(features, self.mean_token.to(tokens).expand_as(tokens), *more)  # not through this hook
        change = (output - features).double()
        self.features += features.double().square().sum()
        self.changes += change.square().sum()
        self.differences += (output - other).double().square().sum()
        self.sum += change.sum((0, 2, 3))
        self.positions += change[:, 0].numel()

    def change(self) -> Change:
        changes, features = float(self.changes), float(self.features)
        if not changes or not features:
            return Change(0.0, 0.0, 0.0)
        constant = float((self.sum / self.positions).square().sum()) * self.positions
        return Change((changes / features) ** 0.5, constant / changes, float(self.differences) / changes)


def _tokens(model: nn.Module, block: Fusion, batches: list[list[dict]]) -> list[Tensor]:
    """The tokens (B, K, D) that the block gets for each batch."""
    found = []
    hook = block.register_forward_pre_hook(lambda block, inputs: found.append(inputs[1].detach().float()))
    try:
        _run(model, batches)
    finally:
        hook.remove()
    return found


@torch.no_grad()
def _run(model: nn.Module, batches: list[list[dict]]) -> None:
    for batch in batches:
        model([{"image": x["image"]} for x in batch])
