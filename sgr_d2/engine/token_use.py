"""What SGR adds to the features of a trained model, and how much of it the tokens decide."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sgr_d2.modeling.sgr.fusion import Fusion


class TokenParts(NamedTuple):
    """Shares of the mean squared norm of the tokens; they add up to 1.

    Attributes:
        common: of the mean token of all images, which tells nothing of an image.
        between_images: of what the mean token of an image differs from it.
        between_tokens: of what a token differs from the mean token of its image.
    """

    common: float
    between_images: float
    between_tokens: float


class Change(NamedTuple):
    """What a fusion block does to its features F; padding counts, too.

    Attributes:
        size: norm of the change relative to that of F.
        constant: share of the squared change that is the same at every place of every image, as a bias is.
        of_tokens: squared difference to the change with the mean token in place of every token, relative to the squared
            change. (Not a share: what tokens add can cancel with the rest.)
    """

    size: float
    constant: float
    of_tokens: float


class TokenUse(NamedTuple):
    """Of a model with SGR, over some images.

    Attributes:
        tokens: of those that leave the encoder.
        changes: {level: Change}.
    """

    tokens: TokenParts
    changes: dict[str, Change]


def token_use(model: nn.Module, batches: Iterable[list[dict]]) -> TokenUse:
    """Measure it in two passes over the batches.

    Args:
        model: with SGR; it is put into evaluation mode.
        batches: of dicts with "image" at least.

    Raises:
        ValueError: if the model has no SGR, or there is no batch.
    """
    blocks = {name.rsplit(".", 1)[-1]: block for name, block in model.named_modules() if isinstance(block, Fusion)}
    if not blocks:
        raise ValueError("The model has no SGR (MODEL.SGR.ENABLED: False): there are no tokens to look at.")
    batches = list(batches)
    if not batches:
        raise ValueError("No batch: give one at least.")
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
    """The parts of tokens (N, K, D) of N images; all zero where the tokens are."""
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
    """A forward hook of a fusion block that adds up what `Change` needs, in float64."""

    def __init__(self, mean_token: Tensor):
        self.mean_token = mean_token
        self.features = self.changes = self.differences = self.sum = 0.0
        self.places = 0

    def __call__(self, block: Fusion, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        features, tokens, *more = inputs
        other = block.forward(features, self.mean_token.to(tokens).expand_as(tokens), *more)  # not through this hook
        change = (output - features).double()
        self.features += features.double().square().sum()
        self.changes += change.square().sum()
        self.differences += (output - other).double().square().sum()
        self.sum += change.sum((0, 2, 3))
        self.places += change[:, 0].numel()

    def change(self) -> Change:
        changes, features = float(self.changes), float(self.features)
        if not changes or not features:
            return Change(0.0, 0.0, 0.0)
        constant = float((self.sum / self.places).square().sum()) * self.places
        return Change((changes / features) ** 0.5, constant / changes, float(self.differences) / changes)


def _tokens(model: nn.Module, block: Fusion, batches: list[list[dict]]) -> list[Tensor]:
    """The tokens (B, K, D) that the block gets, a batch each."""
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
