"""Pictures of a model's results, and the curves of a run."""

from sgr_d2.visualization.curves import plot_curves
from sgr_d2.visualization.detection_pictures import DetectionPictureWriter, InstanceTruth
from sgr_d2.visualization.detections import Detections, draw_detection_sheet
from sgr_d2.visualization.error_kinds import draw_error_kinds
from sgr_d2.visualization.pictures import PictureWriter
from sgr_d2.visualization.sheet import Classes, draw_sheet

__all__ = [
    "Classes",
    "DetectionPictureWriter",
    "Detections",
    "InstanceTruth",
    "PictureWriter",
    "draw_detection_sheet",
    "draw_error_kinds",
    "draw_sheet",
    "plot_curves",
]
