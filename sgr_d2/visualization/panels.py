"""The panels of a picture: photograph, labels, tokens with components, one region.

Shape legend: h x w panel, H_img x W_img image, C classes. All panels are (h, w, 3) uint8 RGB.
"""

import cv2
import numpy as np

from sgr_d2.labels import resize_nearest
from sgr_d2.visualization.palette import colorize
from sgr_d2.visualization.regions import RegionMaps

# Contours are drawn at this multiple of the resolution and averaged, which makes them thin and smooth.
_OVERSAMPLING = 3
_CONTOUR_COLOR = np.array([255, 255, 255], dtype=np.float32)
# How much of the image stays visible below regions, and how strongly a region of probability 1 covers it.
_BACKGROUND_OF_TOKENS = 0.55
_BACKGROUND_OF_REGION = 0.42
_OPACITY = 0.85


def panel_size(height: int, width: int, max_height: int, max_width: int) -> tuple[int, int]:
    """Return the largest (h, w) of the image's aspect ratio that fits, at least one pixel each."""
    scale = min(max_height / height, max_width / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image (H_img, W_img, 3) to (h, w, 3): averaged when it shrinks, bilinear when it grows."""
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def label_panel(labels: np.ndarray, colors: np.ndarray, ignore_label: int, size: tuple[int, int]) -> np.ndarray:
    """Paint labels (H_img, W_img) in the (C, 3) class colours; edges are averaged when it shrinks."""
    painted = colorize(labels, colors, ignore_label)
    grows = size[0] * size[1] >= labels.size
    return cv2.resize(painted, size[::-1], interpolation=cv2.INTER_NEAREST if grows else cv2.INTER_AREA)


def token_panel(
    image: np.ndarray, maps: RegionMaps, colors: np.ndarray, component_ids: np.ndarray | None
) -> np.ndarray:
    """Paint each pixel in the colour of its strongest token, with the region's probability as opacity.

    Args:
        image: (h, w, 3) uint8 at panel size, shown in grey underneath.
        colors: (K, 3) uint8 of the tokens.
        component_ids: (H_img, W_img) integers, whose contours are drawn on top; None for no contours.
    """
    owner, strength = maps.owners()
    top = colors[owner] if len(maps) else np.zeros_like(image)
    panel = _blend(_darkened(image, _BACKGROUND_OF_TOKENS), top, _OPACITY * strength)
    if component_ids is not None:
        panel = _blend(panel, _CONTOUR_COLOR, _contours(component_ids, image.shape[:2]))
    return _to_uint8(panel)


def region_panel(image: np.ndarray, region: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Lay one region (h, w) in its token's colour over the darkened image (h, w, 3)."""
    return _to_uint8(_blend(_darkened(image, _BACKGROUND_OF_REGION), color, _OPACITY * region))


def _contours(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Opacity (h, w) of the lines between different ids; about one pixel wide at panel size."""
    fine = resize_nearest(ids, (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING))
    edge = np.zeros(fine.shape, dtype=np.uint8)
    below = fine[1:] != fine[:-1]
    right = fine[:, 1:] != fine[:, :-1]
    edge[1:] |= below
    edge[:-1] |= below
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    line = cv2.dilate(edge, np.ones((2, 2), dtype=np.uint8)).astype(np.float32)
    return cv2.resize(line, size[::-1], interpolation=cv2.INTER_AREA)


def _darkened(image: np.ndarray, brightness: float) -> np.ndarray:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.repeat(brightness * grey[..., None], 3, axis=2)


def _blend(below: np.ndarray, above: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    opacity = np.clip(opacity, 0, 1)[..., None]
    return below * (1 - opacity) + above * opacity


def _to_uint8(panel: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(panel), 0, 255).astype(np.uint8)
