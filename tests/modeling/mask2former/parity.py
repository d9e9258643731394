"""Numbers that the official Mask2Former code computed, and our parts built to their sizes.

A record is a small network of a known size with its inputs, random points and results. Two are committed as
expected/*.npz (see expected/README.md); the files they were taken from are read where they lie beside the repository.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from detectron2.layers import ShapeSpec
from mask_targets import MaskTargets

from sgr_d2.modeling.mask2former.criterion import SetCriterion
from sgr_d2.modeling.mask2former.pixel_decoder import MSDeformAttnPixelDecoder
from sgr_d2.modeling.mask2former.structures import PixelFeatures
from sgr_d2.modeling.mask2former.transformer_decoder import MultiScaleMaskedTransformerDecoder

EXPECTED = Path(__file__).parent / "expected"
FULL = Path(__file__).parents[4] / "shared" / "fixtures"
FULL_NAMES = {"main": "fixture_m2f", "variant": "variant_m2f"}
PREDICTOR, PIXEL_DECODER = "sem_seg_head.predictor.", "sem_seg_head.pixel_decoder."
PURPOSES = {"matcher": "matcher", "candidates": "loss_oversampled", "rest": "loss_random"}


def load(name: str) -> SimpleNamespace:
    """The committed record "main" or "variant"; what it leaves out is None."""
    with np.load(EXPECTED / f"{name}.npz") as file:
        settings = json.loads(str(file["settings"]))
        tree = _nested({key: _tensor(key, file) for key in file.files if key != "settings" and "shape" not in key})
    return _record(settings, tree, settings["mask_step"])


def load_full(name: str) -> SimpleNamespace:
    """The record with everything in it; FileNotFoundError where it does not lie beside the repository."""
    path = FULL / f"{FULL_NAMES[name]}.pt"
    settings = json.loads(path.with_suffix(".json").read_text())
    return _record(settings, torch.load(path, weights_only=True), 1)


def has_full() -> bool:
    return all((FULL / f"{name}.pt").is_file() for name in FULL_NAMES.values())


def _record(settings: dict, tree: dict, step: int) -> SimpleNamespace:
    layers = settings["DEC_LAYERS"]
    decoder = tree["decoder"]
    outputs = [*decoder["aux_outputs"], decoder]
    return SimpleNamespace(
        settings=settings,
        layers=layers,
        step=step,  # masks are kept at every step-th row and column
        state=tree["state_dict"],
        features=tree.get("features"),
        pixel=tree.get("pixel_decoder"),
        logits=[output["pred_logits"] for output in outputs],
        masks=[output.get("pred_masks") for output in outputs],
        targets=tree["targets"],
        points=tree["points"],
        matching=tree["matching"],
        losses=tree["losses_weighted"],
        grad=tree["grad"],
        inference=tree.get("inference"),
    )


def _tensor(key: str, file) -> torch.Tensor:
    array = file[key]
    if key + ".shape" in file.files:
        shape = file[key + ".shape"]
        array = np.unpackbits(array, count=int(np.prod(shape))).reshape(shape).astype(bool)
    return torch.as_tensor(array)


def _nested(flat: dict) -> dict | list:
    """{"a/0/b": x} -> {"a": [{"b": x}]}."""
    tree: dict = {}
    for key, value in flat.items():
        *parents, leaf = key.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return _with_lists(tree)


def _with_lists(node):
    if not isinstance(node, dict):
        return node
    children = {key: _with_lists(value) for key, value in node.items()}
    if children and all(key.isdigit() for key in children):
        return [children[key] for key in sorted(children, key=int)]
    return children


def build_pixel_decoder(record: SimpleNamespace) -> MSDeformAttnPixelDecoder:
    s = record.settings
    shapes = zip(s["IN_FEATURES"], s["channels"], s["strides"], strict=True)
    decoder = MSDeformAttnPixelDecoder(
        {name: ShapeSpec(channels=channels, stride=stride) for name, channels, stride in shapes},
        encoder_features=s["DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES"],
        conv_dim=s["CONVS_DIM"],
        mask_dim=s["MASK_DIM"],
        norm=s["NORM"],
        common_stride=s["COMMON_STRIDE"],
        num_layers=s["TRANSFORMER_ENC_LAYERS"],
        num_heads=s["NHEADS"],
        num_points=s["enc_n_points"],
        dim_feedforward=s["enc_dim_feedforward"],
    )
    decoder.load_state_dict(_part(record.state, PIXEL_DECODER))
    return decoder


def build_predictor(record: SimpleNamespace) -> MultiScaleMaskedTransformerDecoder:
    s = record.settings
    decoder = MultiScaleMaskedTransformerDecoder(
        in_channels=s["CONVS_DIM"],
        num_classes=s["NUM_CLASSES"],
        hidden_dim=s["HIDDEN_DIM"],
        num_queries=s["NUM_OBJECT_QUERIES"],
        num_heads=s["NHEADS"],
        dim_feedforward=s["DIM_FEEDFORWARD"],
        num_layers=s["DEC_LAYERS"] - 1,
        mask_dim=s["MASK_DIM"],
        pre_norm=s["PRE_NORM"],
        enforce_input_project=s["ENFORCE_INPUT_PROJ"],
        dropout=s["DROPOUT"],
    )
    decoder.load_state_dict(_part(record.state, PREDICTOR))
    return decoder


def build_criterion(record: SimpleNamespace) -> SetCriterion:
    s = record.settings
    return SetCriterion(
        num_classes=s["NUM_CLASSES"],
        class_weight=s["CLASS_WEIGHT"],
        mask_weight=s["MASK_WEIGHT"],
        dice_weight=s["DICE_WEIGHT"],
        no_object_weight=s["NO_OBJECT_WEIGHT"],
        num_points=s["TRAIN_NUM_POINTS"],
        oversample_ratio=s["OVERSAMPLE_RATIO"],
        importance_sample_ratio=s["IMPORTANCE_SAMPLE_RATIO"],
        source=saved_points(record),
    )


def saved_points(record: SimpleNamespace):
    """The PointSource that replays the record's draws."""

    def source(purpose: str, layer: int, shape: tuple[int, int], device: torch.device) -> torch.Tensor:
        draws = record.points[layer_name(record, layer)][PURPOSES[purpose]]
        draws = torch.cat(draws) if isinstance(draws, list) else draws
        assert draws.shape == (*shape, 2)
        return draws

    return source


def layer_name(record: SimpleNamespace, layer: int) -> str:
    return "final" if layer == record.layers - 1 else f"aux_{layer}"


def build_targets(record: SimpleNamespace) -> MaskTargets:
    return MaskTargets(
        [target["labels"] for target in record.targets],
        [target["masks"] for target in record.targets],
        size=tuple(record.settings["image_size_padded"]),
        num_classes=record.settings["NUM_CLASSES"],
    )


def pixel_features(record: SimpleNamespace) -> PixelFeatures:
    """What the pixel decoder gave, as leaves with a gradient."""
    levels = [level.clone().requires_grad_() for level in record.pixel["multi_scale_features"]]
    return PixelFeatures(record.pixel["mask_features"].clone().requires_grad_(), levels)


def _part(state: dict, prefix: str) -> dict:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
