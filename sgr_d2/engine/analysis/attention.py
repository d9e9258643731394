"""Recording the attention weights of an encoder while the model predicts.

Shape legend: B batch, K tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from torch import nn


class AttentionRecord:
    """Collects the weights of every attention layer, in the order of the layers."""

    def __init__(self) -> None:
        self._calls: dict[int, list[np.ndarray]] = {}

    def add(self, layer: int, weights: np.ndarray) -> None:
        self._calls.setdefault(layer, []).append(weights)

    def take(self) -> np.ndarray | None:
        """(layers, K, K): the mean over heads, batch and calls since the last time; None if there was no attention."""
        calls, self._calls = self._calls, {}
        if not calls:
            return None
        return np.stack([np.concatenate(calls[layer]).mean(axis=0) for layer in sorted(calls)])


@contextmanager
def record_attention(module: nn.Module) -> Iterator[AttentionRecord]:
    """Record every `nn.MultiheadAttention` in ``module`` inside the ``with`` block.

    PyTorch only computes the weights on request, so a hook requests them; outputs stay the same up to rounding.
    """
    record = AttentionRecord()
    handles = []
    layers = [part for part in module.modules() if isinstance(part, nn.MultiheadAttention)]
    for index, layer in enumerate(layers):
        handles.append(layer.register_forward_pre_hook(_ask_for_weights, with_kwargs=True))
        handles.append(layer.register_forward_hook(_keep_weights(record, index)))
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def _ask_for_weights(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    return args, kwargs | {"need_weights": True, "average_attn_weights": True}


def _keep_weights(record: AttentionRecord, index: int):
    def hook(module: nn.Module, args: tuple, output: tuple) -> None:
        record.add(index, output[1].detach().float().cpu().numpy())  # (B, K, K)

    return hook
