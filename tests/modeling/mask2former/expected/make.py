"""Take the committed records from the full ones: ``python make.py FOLDER`` with fixture_m2f.* and variant_m2f.*."""

import json
import sys
from pathlib import Path

import numpy as np
import torch

SETTINGS_LEFT_OUT = {"margins", "inference_margins", "float32_vs_float64", "losses", "random_draws", "total", "debug"}
# Masks and score maps are kept at every so many rows and columns.
STEP = {"main": 4, "variant": 4}


def main(folder: Path) -> None:
    for name, stem in (("main", "fixture_m2f"), ("variant", "variant_m2f")):
        tree = torch.load(folder / f"{stem}.pt", weights_only=True)
        settings = json.loads((folder / f"{stem}.json").read_text())
        settings = {key: value for key, value in settings.items() if key not in SETTINGS_LEFT_OUT}
        settings["mask_step"] = STEP[name]
        kept = {"settings": np.array(json.dumps(settings))}
        _collect(_chosen(name, tree, STEP[name]), "", kept)
        np.savez_compressed(Path(__file__).parent / f"{name}.npz", **kept)


def _chosen(name: str, tree: dict, step: int) -> dict:
    """The main record goes from features to outputs, the variant starts behind the pixel decoder."""
    start = "features" if name == "main" else "pixel_decoder"
    prefix = "sem_seg_head.predictor." if name == "variant" else "sem_seg_head."
    kept = {key: tree[key] for key in ("targets", "matching", "losses_weighted", start)}
    kept["matching"] = {
        layer: [{"src": pair["src"], "tgt": pair["tgt"], "cost": pair["cost"]} for pair in pairs]
        for layer, pairs in tree["matching"].items()
    }
    kept["state_dict"] = {key: value for key, value in tree["state_dict"].items() if key.startswith(prefix)}
    kept["points"] = {
        layer: {purpose: value for purpose, value in draws.items() if purpose != "loss_points"}
        for layer, draws in tree["points"].items()
    }
    decoder = tree["decoder"]
    kept["decoder"] = {
        "pred_logits": decoder["pred_logits"],
        "pred_masks": decoder["pred_masks"][..., ::step, ::step],
        "aux_outputs": [{"pred_logits": output["pred_logits"]} for output in decoder["aux_outputs"]],
    }
    kept["grad"] = {
        "param_norm": {key: value for key, value in tree["grad"]["param_norm"].items() if key.startswith(prefix)}
    }
    if name == "main":
        pixel = tree["pixel_decoder"]
        kept["pixel_decoder"] = {
            "mask_features": pixel["mask_features"][..., ::step, ::step],
            "multi_scale_features": [level[..., ::step, ::step] for level in pixel["multi_scale_features"]],
        }
        kept["inference"] = {
            key: value[..., ::step, ::step] if "sem_seg" in key else value for key, value in tree["inference"].items()
        }
    return kept


def _collect(node, path: str, kept: dict) -> None:
    if isinstance(node, (dict, list)):
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in pairs:
            _collect(value, f"{path}/{key}" if path else str(key), kept)
    elif node.dtype == torch.bool:
        kept[path] = np.packbits(node.numpy())
        kept[path + ".shape"] = np.array(node.shape)
    else:
        kept[path] = node.numpy()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
