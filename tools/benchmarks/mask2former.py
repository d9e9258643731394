"""Our Mask2Former, without and with SGR, against that of HuggingFace transformers, on the same backbone and sizes.

Each allocator setting needs its own process: the C library reads it at the start.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.nn import functional as F

from sgr_d2.engine import load_config
from sgr_d2.engine.allocator import KEEP_FREED_MEMORY
from sgr_d2.engine.build import build_model

from .measure import Ratio, live_bytes, median, mib, paired_ratio, peak_bytes, time_runs
from .report import Report
from .settings import CONFIGS, ROOT, Settings

ALLOCATORS = {"default": {}, "kept": KEEP_FREED_MEMORY}
# Targets, by allocator: ours relative to HF, and ours with SGR relative to HF.
TIME_LIMITS = {
    "default": {"inference": ("<= 0.65", "<= 0.70"), "training": ("<= 0.80", "<= 0.85")},
    "kept": {"inference": ("<= 0.85", "<= 0.90"), "training": ("<= 0.85", "<= 0.90")},
}
NUM_CLASSES = 150


class Sizes(NamedTuple):
    """Pixels along an edge, images per training batch, classes in each of them, depth of the ResNet."""

    edge: int = 512
    batch: int = 2
    targets: int = 12
    depth: int = 50


def benchmark_mask2former(settings: Settings) -> Report:
    """time and memory of Mask2Former on ResNet-50, ours without and with SGR relative to HF's; two allocators"""
    report = Report(
        "ADE20K's semantic configuration (150 classes, 100 queries, 6 + 9 layers), ResNet-50, random weights, 512x512. "
        "Inference: one image, with the class scores at full size. Training: forward and backward of two images of 12 "
        "classes. HF is Mask2FormerForUniversalSegmentation of transformers. 'default' and 'kept': see "
        "sgr_d2/engine/allocator.py. Peak memory: parameters and the most bytes of tensors alive at one time."
    )
    allocators = ["default"] if settings.device == "cuda" else list(ALLOCATORS)
    for allocator in allocators:
        _add(report, allocator, _in_own_process(settings, ALLOCATORS[allocator]))
    return report


def _add(report: Report, allocator: str, measured: dict) -> None:
    for mode, variants in measured.items():
        times = {name: np.array(values["ms"]) for name, values in variants.items()}
        report.rows += [
            {"allocator": allocator, "mode": mode, "model": name, "ms": median(times[name]), "peak MiB": mib(v["peak"])}
            for name, v in variants.items()
        ]
        for name, limit in zip(("ours", "ours + SGR"), TIME_LIMITS[allocator][mode], strict=True):
            key = f"mask2former_{mode}_{name.replace(' + ', '_').lower()}"
            report.ratios[f"{key}_time_{allocator}"] = paired_ratio(times[name], times["HF"], limit)
            if allocator == "default":
                memory = variants[name]["peak"] / variants["HF"]["peak"]
                report.ratios[f"{key}_memory"] = Ratio(memory, memory, memory, "<= 1.00" if name == "ours" else "")


def _in_own_process(settings: Settings, environment: dict[str, str]) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "measured.json"
        options = settings._asdict() | {"plot": None, "threads": torch.get_num_threads(), "file": str(file)}
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.mask2former", json.dumps(options)]
        env = os.environ | environment | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tools"), str(ROOT)])}
        subprocess.run(command, env=env, check=True)
        return json.loads(file.read_text(encoding="utf-8"))


def measure(settings: Settings) -> dict:
    """{mode: {model: {"ms": times, "peak": bytes}}} under the allocator of this process."""
    sizes = Sizes(96, 1, 3, 18) if settings.quick else Sizes()
    models = {"HF": build_hf(sizes), "ours": build_ours("m2f", sizes), "ours + SGR": build_ours("m2f_sgr", sizes)}
    calls = {"HF": (hf_inference, hf_training), "ours": (our_inference, our_training)}
    calls["ours + SGR"] = calls["ours"]
    measured = {}
    for index, (mode, rounds) in enumerate((("inference", 15), ("training", 7))):
        images, labels = scene(sizes, 1 if mode == "inference" else sizes.batch, settings.device)
        runs: dict[str, Callable[[int], object]] = {}
        for name, model in models.items():
            model.to(settings.device).train(mode == "training")
            runs[name] = partial(_discard_number, calls[name][index], model, images, labels)
        peaks = {name: live_bytes(models[name].parameters()) + _peak(run, settings) for name, run in runs.items()}
        times = time_runs(runs, rounds, settings)
        measured[mode] = {name: {"ms": times[name].tolist(), "peak": peaks[name]} for name in runs}
    return measured


def _discard_number(call: Callable, model: nn.Module, images: Tensor, labels: Tensor, _: int) -> None:
    call(model, images, labels)
    model.zero_grad()


def _peak(run: Callable[[int], object], settings: Settings) -> int:
    run(0)  # fills caches of positions
    return peak_bytes(lambda: run(0), settings.device)


def scene(sizes: Sizes, batch: int, device: str) -> tuple[Tensor, Tensor]:
    """Random images (B, 3, H, W) uint8, and label maps (B, H, W) of vertical bands of ``targets`` classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, sizes.edge, sizes.edge), generator=generator, dtype=torch.uint8)
    classes = torch.stack([torch.randperm(NUM_CLASSES, generator=generator)[: sizes.targets] for _ in range(batch)])
    band = torch.arange(sizes.edge) * sizes.targets // sizes.edge
    return images.to(device), classes[:, band][:, None].expand(-1, sizes.edge, -1).contiguous().to(device)


def build_ours(name: str, sizes: Sizes) -> nn.Module:
    options = ["MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "MODEL.RESNETS.DEPTH", sizes.depth]
    options += ["INPUT.CROP.SIZE", [sizes.edge, sizes.edge]]
    if sizes.depth < 50:
        options += ["MODEL.RESNETS.RES2_OUT_CHANNELS", 64]
    return build_model(load_config(str(CONFIGS / "ade20k" / f"{name}.yaml"), options))


def build_hf(sizes: Sizes) -> nn.Module:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig

    basic = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = ResNetConfig(out_features=stages, **(basic if sizes.depth < 50 else {}))
    return Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(backbone_config=backbone, num_labels=NUM_CLASSES, num_queries=100)
    )


@torch.no_grad()
def hf_inference(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    output = model(pixel_values=normalized(images))
    masks = F.interpolate(output.masks_queries_logits, images.shape[-2:], mode="bilinear", align_corners=False)
    classes = output.class_queries_logits.softmax(-1)[..., :-1]
    return torch.einsum("bqc,bqhw->bchw", classes, masks.sigmoid())


def hf_training(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    classes = [image.unique() for image in labels]
    masks = [(image[None] == of_image[:, None, None]).float() for image, of_image in zip(labels, classes, strict=True)]
    model(pixel_values=normalized(images), mask_labels=masks, class_labels=classes).loss.sum().backward()


@torch.no_grad()
def our_inference(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return model([{"image": image} for image in images])[0]["sem_seg"]


def our_training(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    inputs = []
    for image, of_image in zip(images, labels, strict=True):
        classes = of_image.unique()
        components = torch.searchsorted(classes, of_image).int() + 1
        inputs.append({"image": image, "sem_seg": of_image, "components": components, "component_classes": classes})
    with EventStorage():
        sum(model(inputs).values()).backward()


def normalized(images: Tensor) -> Tensor:
    mean = torch.tensor([123.675, 116.280, 103.530], device=images.device).view(3, 1, 1)
    std = torch.tensor([58.395, 57.120, 57.375], device=images.device).view(3, 1, 1)
    return (images - mean) / std


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    target = Path(options.pop("file"))
    torch.set_num_threads(options.pop("threads"))
    target.write_text(json.dumps(measure(Settings(**options))), encoding="utf-8")
