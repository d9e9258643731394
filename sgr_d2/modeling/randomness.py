"""Random numbers at the start of a model."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_random_numbers() -> Iterator[None]:
    """Inside, modules draw random numbers of their own: those after it start as if nothing had been made inside.

    So a model with SGR and its baseline, of one seed, start with the same backbone and head, and with the same output.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), device="cpu")))
        yield
