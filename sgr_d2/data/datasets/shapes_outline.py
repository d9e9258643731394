"""Outlines of the objects of the generated data set ``shapes``, as signed distances. Ours."""

import numpy as np


def _regular(count: int, radii: tuple[float, ...]) -> np.ndarray:
    angles = 2 * np.pi * np.arange(count) / count
    radius = np.resize(radii, count)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1)  # (count, 2)


def _cross(half_width: float) -> np.ndarray:
    w, tip = half_width, (1 - half_width**2) ** 0.5
    arm = np.array([[w, -w], [tip, -w], [tip, w]])
    turns = [np.array([[c, -s], [s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    return np.concatenate([arm @ turn.T for turn in turns])  # (12, 2)


# Corners on or inside the unit circle, in order around the centre; outlines that fill more of it are smaller.
POLYGONS = {
    "square": _regular(4, (0.88,)),
    "triangle": _regular(3, (1.0,)),
    "star": _regular(10, (1.0, 0.52)),
    "cross": _cross(0.36),
}
# Inner (None: no hole) and outer radius, in the same unit.
ROUNDS = {"disk": (None, 0.74), "ring": (0.4, 0.86)}
OUTLINES = (*ROUNDS, *POLYGONS)


def outline_distance(name: str, x: np.ndarray, y: np.ndarray, radius: float, angle: float) -> np.ndarray:
    """Return the signed distance in pixels to an outline, negative inside.

    Args:
        name: one of ``OUTLINES``.
        x, y: (S, S) float32 offsets from the outline's centre, in pixels.
        radius: of the circle around the outline, in pixels.
        angle: rotation, in radians.
    """
    if name in ROUNDS:
        inner, outer = ROUNDS[name]
        r = np.hypot(x, y)
        return r - outer * radius if inner is None else np.maximum(r - outer * radius, inner * radius - r)
    rounding = 0.05 * radius
    cos, sin = np.cos(angle), np.sin(angle)
    corners = (radius - rounding) * POLYGONS[name] @ np.array([[cos, sin], [-sin, cos]])
    return _polygon_distance(x, y, corners.astype(np.float32)) - rounding


def _polygon_distance(x: np.ndarray, y: np.ndarray, corners: np.ndarray) -> np.ndarray:
    nearest = np.full(x.shape, np.inf, np.float32)
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):
        ex, ey, dx, dy = x1 - x0, y1 - y0, x - x0, y - y0
        along = np.clip((dx * ex + dy * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, (dx - along * ex) ** 2 + (dy - along * ey) ** 2)
        # Even-odd rule: count the edges that a ray to the right crosses.
        straddles = (y0 > y) != (y1 > y)
        inside ^= straddles & ((dx * ey < dy * ex) == (ey > 0))
    return np.where(inside, -1, 1) * np.sqrt(nearest)
