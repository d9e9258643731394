"""Draws boxes and masks over an image, and a detector's sheet for one image: truth, detections, tokens.

Shape legend: N detections, H x W image, h x w panel, C classes.
"""

from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw

from sgr_d2.structures import ComponentMap, ImageTokens
from sgr_d2.visualization.fonts import font
from sgr_d2.visualization.layout import Cell, column_width, columns_of, inner_width, lay_out
from sgr_d2.visualization.palette import token_colors
from sgr_d2.visualization.panels import panel_size, resize_image, token_panel
from sgr_d2.visualization.regions import RegionMaps
from sgr_d2.visualization.sheet import (
    MAX_REGIONS,
    PANEL_MAX_HEIGHT,
    PANEL_WIDTH,
    Classes,
    class_legend,
    region_cells,
)

_MASK_OPACITY = 0.5
_TEXT_SIZE = 10


class Detections(NamedTuple):
    """The true or the detected objects in an image.

    Attributes:
        boxes: (N, 4) left, top, right, bottom in pixels of the image.
        classes: (N,) integers.
        scores: (N,) probabilities; None for the truth.
        masks: (N, H, W) bool; None if there are only boxes.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray | None = None
    masks: np.ndarray | None = None


def draw_detection_sheet(
    image: np.ndarray,
    truth: Detections | None,
    prediction: Detections,
    classes: Classes,
    tokens: ImageTokens | None = None,
    labels: np.ndarray | None = None,
    components: ComponentMap | None = None,
) -> np.ndarray:
    """Draw a detector's results for one image.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: None if unknown.
        prediction: the detections to show.
        classes: names and colours; ``ignore_label`` is the value of ``labels`` where there is no instance.
        tokens: regions of the image; None for a model without SGR, to leave out everything about tokens.
        labels: (H, W) true class of each pixel, for the titles of the regions; None if unknown.
        components: the true instances, whose contours are drawn over the tokens.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    size = panel_size(*image.shape[:2], PANEL_MAX_HEIGHT, PANEL_WIDTH)
    small = resize_image(image, size)
    large = [Cell(small, "Image")]
    for title, found in (("Truth", truth), ("Detections", prediction)):
        if found is not None:
            large.append(Cell(detection_panel(image, found, classes, size), title))
    regions: list[Cell] = []
    if tokens is not None:
        maps = RegionMaps(tokens, size)
        ids = None if components is None else components.ids
        title = "Tokens" if components is None else "Tokens and instances"
        large.append(Cell(token_panel(small, maps, token_colors(len(maps)), ids), title))
        _, width = columns_of(inner_width(len(large), column_width(size[1])))
        regions = region_cells(image, labels, classes, tokens, width, MAX_REGIONS)
    shown = None if truth is None else np.asarray(truth.classes)
    return lay_out(large, class_legend(shown, np.asarray(prediction.classes), classes), regions)


def detection_panel(image: np.ndarray, found: Detections, classes: Classes, size: tuple[int, int]) -> np.ndarray:
    """Paint masks and boxes in the colours of their classes, the highest score on top: (h, w, 3) uint8.

    Args:
        image: (H, W, 3) uint8 RGB.
        found: with boxes and masks in pixels of ``image``.
        classes: names and colours.
        size: (h, w) of the panel.
    """
    order = range(len(found.boxes)) if found.scores is None else np.argsort(found.scores, kind="stable")
    painted = image.astype(np.float32)
    for i in order if found.masks is not None else ():
        mask = found.masks[i]
        painted[mask] = (1 - _MASK_OPACITY) * painted[mask] + _MASK_OPACITY * classes.colors[found.classes[i]]
    panel = Image.fromarray(resize_image(np.rint(painted).astype(np.uint8), size))
    draw = ImageDraw.Draw(panel)
    scale = np.array([size[1] / image.shape[1], size[0] / image.shape[0]] * 2)
    for i in order:
        color = tuple(int(value) for value in classes.colors[found.classes[i]])
        left, top, right, bottom = (float(value) for value in found.boxes[i] * scale)
        corners = (left, top, max(left, right - 1), max(top, bottom - 1))
        draw.rectangle(corners, outline=color)
        if found.scores is not None:
            _write_score(draw, f"{100 * found.scores[i]:.0f}", left, top, color)
    return np.array(panel)


def _write_score(draw: ImageDraw.ImageDraw, text: str, left: float, top: float, color: tuple[int, ...]) -> None:
    place = (left + 1, max(0.0, top - _TEXT_SIZE - 1))
    draw.rectangle(draw.textbbox(place, text, font=font(_TEXT_SIZE)), fill=color)
    luminance = cv2.cvtColor(np.array([[color]], np.uint8), cv2.COLOR_RGB2GRAY).item()
    draw.text(place, text, font=font(_TEXT_SIZE), fill=(0, 0, 0) if luminance > 140 else (255, 255, 255))
