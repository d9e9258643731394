"""What SGR adds to a detector: time of inference, and peak memory of inference and of a training step."""

import torch
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

from sgr_d2.engine import Trainer, load_config

from .measure import Ratio, live_bytes, median, mib, paired_ratio, peak_bytes, time_runs
from .report import Report
from .settings import CONFIGS, Settings

SIZE = (800, 1333)
QUICK_SIZE = (96, 128)
VARIANTS = {"without SGR": "mask_rcnn_R50_FPN_1x", "with SGR": "mask_rcnn_sgr_R50_FPN_1x"}


def benchmark_detector(settings: Settings) -> Report:
    """inference time and peak memory with SGR relative to without it: Mask R-CNN on ResNet-50 and FPN, 1333x800"""
    size = QUICK_SIZE if settings.quick else SIZE
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    models = _models(settings.device)
    training = {title: _training_peak(model, image, settings) for title, model in models.items()}
    runs = {title: _Inference(model, image) for title, model in models.items()}
    inference = {title: run.peak_bytes(settings.device) for title, run in runs.items()}
    times = time_runs(runs, 8, settings)
    report = Report(
        f"Mask R-CNN R50-FPN of configs/detection on an image of noise, {size[0]}x{size[1]} pixels, with random "
        "weights, the same in both models, in turn. Peak memory: parameters and buffers plus the most bytes of tensors "
        "alive at one time, counted at torch's allocator; a training step is forward, all losses and backward of eight "
        "instances."
    )
    report.rows = [
        {
            "model": title,
            "ms per image": median(times[title]),
            "peak MiB, inference": mib(inference[title]),
            "peak MiB, training": mib(training[title]),
        }
        for title in VARIANTS
    ]
    report.ratios["detector_time"] = paired_ratio(times["with SGR"], times["without SGR"], "<= 1.04")
    for name, peaks in (("detector_memory", inference), ("detector_training_memory", training)):
        value = peaks["with SGR"] / peaks["without SGR"]
        report.ratios[name] = Ratio(value, value, value, "<= 1.05")
    return report


def _models(device: str) -> dict[str, torch.nn.Module]:
    """The two models, with the same weights, so that both have the same proposals and detections."""
    models = {}
    for title, name in VARIANTS.items():
        torch.manual_seed(0)
        cfg = load_config(str(CONFIGS / "detection" / f"{name}.yaml"), ["MODEL.DEVICE", device])
        models[title] = Trainer.build_model(cfg)
    models["with SGR"].load_state_dict(models["without SGR"].state_dict(), strict=False)
    return models


class _Inference:
    """A call runs the model on its image."""

    def __init__(self, model: torch.nn.Module, image: torch.Tensor):
        self.model = model.eval()
        self.image = image

    @torch.no_grad()
    def __call__(self, _: int) -> None:
        self.model([{"image": self.image}])

    def peak_bytes(self, device: str) -> int:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return live_bytes(tensors) + peak_bytes(lambda: self(0), device)


def _training_peak(model: torch.nn.Module, image: torch.Tensor, settings: Settings) -> int:
    model.train()

    def step() -> None:
        model.zero_grad()
        with EventStorage():
            sum(model([_training_input(image)]).values()).backward()

    peak = peak_bytes(step, settings.device)
    model.zero_grad()
    return live_bytes([*model.parameters(), *model.buffers()]) + peak


def _training_input(image: torch.Tensor) -> dict:
    """Eight rectangles in a row, both as instances and as components."""
    height, width = image.shape[-2:]
    edges = torch.linspace(0, width, 9).round()
    boxes = torch.stack([edges[:-1], torch.full((8,), 4.0), edges[1:], torch.full((8,), height - 4.0)], dim=1)
    components = torch.zeros(height, width, dtype=torch.int32)
    polygons = []
    for number, (left, top, right, bottom) in enumerate(boxes.tolist(), start=1):
        components[int(top) : int(bottom), int(left) : int(right)] = number
        polygons.append([[left, top, right, top, right, bottom, left, bottom]])
    classes = torch.arange(8)
    instances = Instances((height, width), gt_boxes=Boxes(boxes), gt_classes=classes, gt_masks=PolygonMasks(polygons))
    return {"image": image, "instances": instances, "components": components, "component_classes": classes}
