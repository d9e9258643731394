"""Converts published data sets into the layout that training reads; the commands are ``datasets/prepare_*.py``."""

from sgr_d2.data.prepare.ade20k import plan_ade20k
from sgr_d2.data.prepare.camvid import plan_camvid
from sgr_d2.data.prepare.cityscapes import plan_cityscapes
from sgr_d2.data.prepare.coco_stuff_10k import plan_coco_stuff_10k
from sgr_d2.data.prepare.coco_stuff_164k import plan_coco_stuff_164k
from sgr_d2.data.prepare.convert import carry_out
from sgr_d2.data.prepare.plan import LabelRule, LabelTask, Plan, Split
from sgr_d2.data.prepare.summary import SplitReport, format_summary, is_complete

__all__ = [
    "LabelRule",
    "LabelTask",
    "Plan",
    "Split",
    "SplitReport",
    "carry_out",
    "format_summary",
    "is_complete",
    "plan_ade20k",
    "plan_camvid",
    "plan_cityscapes",
    "plan_coco_stuff_10k",
    "plan_coco_stuff_164k",
]
