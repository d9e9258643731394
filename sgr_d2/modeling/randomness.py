"""Random numbers for the initial weights of a model."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_random_numbers() -> Iterator[None]:
    """Give modules created inside the ``with`` block their own random numbers: later ones are drawn as without them.

    So with the same seed, a model with SGR and its baseline start with the same backbone and head, and the same output.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), device="cpu")))
        yield
