"""A checkpoint of a toy model with random weights, as training writes it."""

from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from detectron2.modeling import build_model
from toys import toy_cfg

import sgr_d2.modeling  # noqa: F401  registers the models
from sgr_d2.engine.checkpoint.model_card import KEY

CLASSES = ["a", "b", "c", "d", "e"]


def write_checkpoint(
    path: Path, *, sgr: bool = True, peer: str = "", change: Callable[[dict], None] | None = None
) -> Path:
    """Write it with its card; ``peer`` is in place of SGR; ``change`` may edit the config in the card."""
    cfg = toy_cfg(sgr=sgr)
    if peer:
        cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.PEER.NAME, cfg.MODEL.PEER.DIM = "PeerSegmentor", peer, 8
    torch.manual_seed(0)
    config = yaml.safe_load(cfg.dump())
    if change is not None:
        change(config)
    colors = [[40 * i, 0, 255 - 40 * i] for i in range(5)]
    card = {"config": yaml.safe_dump(config), "classes": CLASSES, "colors": colors, "ignore_label": 255}
    torch.save({"model": build_model(cfg).state_dict(), KEY: card}, path)
    return path
