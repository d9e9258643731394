"""Every head on a small model."""

import torch
from detectron2.modeling import build_model


def build(cfg, seed: int = 0):
    torch.manual_seed(seed)
    return build_model(cfg)


def with_head(cfg, name: str):
    head = cfg.MODEL.SEM_SEG_HEAD
    head.NAME = name
    head.ASPP_CHANNELS = head.CONVS_DIM = 32
    head.ASPP_DILATIONS = [1, 2, 3]
    head.ASPP_DROPOUT = 0.0
    head.NORM = ""
    if name == "DeepLabV3Head":
        head.IN_FEATURES, head.COMMON_STRIDE = ["res3"], 8
        cfg.MODEL.SGR.IN_FEATURES = ["res3"]
    if name == "DeepLabV3PlusHead":
        head.IN_FEATURES, head.PROJECT_CHANNELS = ["res2", "res4"], [16]
    if name.endswith("PointRendSemSegHead"):
        head.IN_FEATURES = ["res2", "res3", "res4", "res5"]
        cfg.MODEL.POINT_HEAD.IN_FEATURES = ["res2"] if name == "PointRendSemSegHead" else ["res2", "res3"]
        cfg.MODEL.POINT_HEAD.FC_DIM = 16
        cfg.MODEL.POINT_HEAD.TRAIN_NUM_POINTS = 64
        cfg.MODEL.POINT_HEAD.SUBDIVISION_STEPS = 2
        cfg.MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS = 64
    if name == "MaskFormerHead":
        head.IN_FEATURES = ["res2", "res3", "res4", "res5"]
        head.CONVS_DIM = head.MASK_DIM = cfg.MODEL.MASK_FORMER.HIDDEN_DIM = 32
        head.NORM, head.TRANSFORMER_ENC_LAYERS = "GN", 1
        cfg.MODEL.MASK_FORMER.DIM_FEEDFORWARD = 32
        cfg.MODEL.MASK_FORMER.DEC_LAYERS = 3
        cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES = 8
        cfg.MODEL.MASK_FORMER.TRAIN_NUM_POINTS = 64
        cfg.MODEL.SGR.QUERY_ATTENTION = True
    return cfg


HEADS = [
    "SemSegFPNHead",
    "DeepLabV3Head",
    "DeepLabV3PlusHead",
    "PointRendSemSegHead",
    "SparsePointRendSemSegHead",
    "MaskFormerHead",
]
