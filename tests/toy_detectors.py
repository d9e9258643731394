"""Toy detectors for the tests: Detectron2's own parts, small."""

from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances
from toys import toy_cfg

import sgr_d2.modeling  # noqa: F401  registers the models
from sgr_d2.engine.checkpoint.model_card import KEY


def detector_cfg(arch: str = "SGRGeneralizedRCNN", *, sgr: bool = True, features=("p3", "p4"), classes: int = 3):
    """Config of a small detector on resnet10t: Mask R-CNN, or RetinaNet on a small ResNet."""
    cfg = toy_cfg(sgr=sgr, classes=classes)
    model = cfg.MODEL
    model.META_ARCHITECTURE = arch
    model.SGR.IN_FEATURES = list(features)
    model.BACKBONE.NAME = "build_sgr_timm_fpn_backbone"
    model.TIMM.NAME, model.TIMM.NORM = "resnet10t", "FrozenBN"
    model.FPN.IN_FEATURES, model.FPN.OUT_CHANNELS = ["res2", "res3", "res4", "res5"], 16
    model.MASK_ON = True
    model.ANCHOR_GENERATOR.SIZES = [[16], [32], [64], [128], [256]]
    model.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    model.RPN.PRE_NMS_TOPK_TRAIN = model.RPN.PRE_NMS_TOPK_TEST = 50
    model.RPN.POST_NMS_TOPK_TRAIN = model.RPN.POST_NMS_TOPK_TEST = 20
    model.ROI_HEADS.NAME, model.ROI_HEADS.IN_FEATURES = "StandardROIHeads", ["p2", "p3", "p4", "p5"]
    model.ROI_HEADS.NUM_CLASSES = model.RETINANET.NUM_CLASSES = classes
    model.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 16
    model.ROI_BOX_HEAD.NAME, model.ROI_BOX_HEAD.NUM_FC, model.ROI_BOX_HEAD.FC_DIM = "FastRCNNConvFCHead", 1, 16
    model.ROI_BOX_HEAD.POOLER_RESOLUTION = 4
    model.ROI_MASK_HEAD.NAME, model.ROI_MASK_HEAD.NUM_CONV = "MaskRCNNConvUpsampleHead", 1
    model.ROI_MASK_HEAD.CONV_DIM, model.ROI_MASK_HEAD.POOLER_RESOLUTION = 16, 6
    model.SEM_SEG_HEAD.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    if arch.endswith("RetinaNet"):
        model.BACKBONE.NAME = "build_sgr_retinanet_resnet_fpn_backbone"
        model.RESNETS.DEPTH, model.RESNETS.RES2_OUT_CHANNELS = 18, 64
        model.RESNETS.OUT_FEATURES = model.FPN.IN_FEATURES = ["res3", "res4", "res5"]
        model.RETINANET.NUM_CONVS = 1
    return cfg


def detector_input(height: int, width: int, *, instances: int = 2, seed: int = 0) -> dict:
    """One training input: boxes side by side, their masks, and the same as components."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(instances, height, width, dtype=torch.bool)
    components = torch.zeros(height, width, dtype=torch.int32)
    boxes = torch.zeros(instances, 4)
    step = width // max(instances, 1)
    for i in range(instances):
        masks[i, 4 : height - 4, i * step + 2 : (i + 1) * step - 2] = True
        components[masks[i]] = i + 1
        boxes[i] = torch.tensor([i * step + 2, 4, (i + 1) * step - 2, height - 4])
    classes = torch.arange(instances) % 3
    truth = Instances((height, width), gt_boxes=Boxes(boxes), gt_classes=classes, gt_masks=BitMasks(masks))
    return {
        "image": torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8),
        "instances": truth,
        "sem_seg": components.long(),
        "components": components,
        "component_classes": classes,
        "file_name": f"toy_{seed}.png",
    }


def make_records(folder: Path, number: int, size: tuple[int, int] = (72, 96)) -> list[dict]:
    """Images with a red and a green rectangle; the third has none."""
    records = []
    for index in range(number):
        rng = np.random.default_rng(index)
        image = rng.integers(90, 110, (*size, 3), np.uint8)
        annotations = []
        for category in range(2 if index != 2 else 0):
            left, top = int(rng.integers(2, 20)) + 48 * category, int(rng.integers(2, 30))
            width, height = int(rng.integers(16, 24)), int(rng.integers(20, 36))
            image[top : top + height, left : left + width] = [(220, 30, 30), (30, 220, 30)][category]
            right, bottom = left + width, top + height
            annotations.append(
                {
                    "bbox": [left, top, width, height],
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": category,
                    "iscrowd": 0,
                    "segmentation": [[float(v) for v in (left, top, right, top, right, bottom, left, bottom)]],
                }
            )
        file = folder / f"{index:03d}.png"
        cv2.imwrite(str(file), image[..., ::-1])
        size_keys = {"height": size[0], "width": size[1]}
        records.append({"file_name": str(file), "image_id": index, "annotations": annotations, **size_keys})
    return records


def write_detector(folder: Path, *, dataset: str = "tiny_coco_val") -> Path:
    """Write config.yaml and model_final.pth of a small Mask R-CNN, as training does; it takes all for class 0."""
    folder.mkdir(parents=True, exist_ok=True)
    cfg = detector_cfg()
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (dataset,)
    cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TEST = "RGB", 0
    (folder / "config.yaml").write_text(cfg.dump())
    torch.manual_seed(0)
    model = build_model(cfg)
    torch.nn.init.constant_(model.roi_heads.box_predictor.cls_score.bias[:1], 9.0)
    card = {"config": cfg.dump(), "classes": ["a", "b", "c"], "colors": [[0, 0, 90 * i] for i in range(3)]}
    path = folder / "model_final.pth"
    torch.save({"model": model.state_dict(), KEY: {**card, "ignore_label": -1}}, path)
    return path
