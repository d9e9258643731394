"""Logs how the regions develop, only as often as the log is written (each time costs a device sync)."""

import torch
from detectron2.utils.events import get_event_storage, has_event_storage

from sgr_d2.structures import SGROutput

PERIOD = 20  # iterations, as in Detectron2's writers
ACTIVE_MASS = 1e-4  # fraction of the image's cells; the default of TEST.TOKEN_SEMANTICS.MIN_MASS


@torch.no_grad()
def log_regions(output: SGROutput, batched_inputs: list[dict]) -> None:
    """Log the fraction of tokens whose region covers more than ACTIVE_MASS of the image, labelled or not (the metric
    ``active_rate`` counts labelled pixels only), the mean fraction of the image that a region covers, and the number of
    components per image, with how many were dropped.
    """
    if not has_event_storage():
        return
    storage = get_event_storage()
    if (storage.iter + 1) % PERIOD:
        return
    valid = output.valid.flatten(2).float()  # (B, 1, H*W)
    mass = (output.region_logits.sigmoid().flatten(2) * valid).sum(-1) / valid.sum(-1)  # (B, K)
    storage.put_scalar("sgr/active_token_rate", (mass > ACTIVE_MASS).float().mean().item(), smoothing_hint=False)
    storage.put_scalar("sgr/region_mass", mass.mean().item(), smoothing_hint=False)
    per_image = [len(x.get("component_classes", ())) for x in batched_inputs]
    storage.put_scalar("sgr/components_per_image", sum(per_image) / len(per_image), smoothing_hint=False)
    for key in ("components_small", "components_cut"):
        storage.put_scalar(f"sgr/{key}", sum(x.get(key, 0) for x in batched_inputs), smoothing_hint=False)
