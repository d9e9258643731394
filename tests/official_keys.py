"""Names and shapes of the tensors of published Mask2Former models (tests/data_files/README.md)."""

import gzip
from pathlib import Path

import torch

FILE = Path(__file__).parent / "data_files" / "mask2former_keys.txt.gz"


def official_state(model: str) -> dict[str, torch.Tensor]:
    """{key: zeros of its shape, without memory}; ``model`` is "r50" or "swin_tiny"."""
    with gzip.open(FILE, "rt", encoding="ascii") as file:
        lines = [line.split() for line in file]
    return {
        key: torch.zeros(()).expand([int(size) for size in shape.split("x")])
        for name, key, shape in lines
        if name == model
    }
