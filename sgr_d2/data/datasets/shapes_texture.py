"""Colours and textures of the generated data set ``shapes``.

Textures are *tones*: float32 maps in about [-1, 1] that darken or lighten a base colour, and so are independent of the
colour. Everything here is ours.
"""

import cv2
import numpy as np

GOLDEN_ANGLE = np.pi * (3 - 5**0.5)


def draw_palette(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return (count, 3) float32 RGB colours in [0, 1], well apart from each other and in random order."""
    order = np.arange(count)
    hue = rng.uniform(0, 2 * np.pi) + GOLDEN_ANGLE * order + rng.uniform(-0.2, 0.2, count)
    chroma = rng.uniform(22, 58, count)
    lightness = 42 + 40 * rng.permutation(order) / max(count - 1, 1) + rng.uniform(-3, 3, count)
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], 1).astype(np.float32)
    rgb = cv2.cvtColor(lab[None], cv2.COLOR_Lab2RGB)[0]
    return rng.permutation(np.clip(rgb, 0.05, 0.95))


def waves_tone(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return (height, width) crests of water: sharp, bent, roughly parallel lines."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    tilt = rng.uniform(-0.25, 0.25)
    y = y + tilt * x
    for low, high, reach in ((28, 40, 2.2), (60, 110, 4.5)):
        phase = rng.uniform(0, 2 * np.pi)
        y += reach * np.sin(2 * np.pi * (x + 0.4 * y) / rng.uniform(low, high) + phase)
    crest = 1 - np.abs(np.sin(np.pi * y / rng.uniform(8, 11)))
    swell = smooth_noise(rng, height, width, 9)
    return 1.6 * crest**2 - 0.7 + 0.3 * swell


def gravel_tone(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return (height, width) rounded stones: cells around jittered points, each with its own tone, dark in between."""
    pitch = rng.uniform(7, 9.5)
    rows, cols = int(height / pitch) + 3, int(width / pitch) + 3
    points = np.stack(np.mgrid[:rows, :cols], -1) - 1 + rng.uniform(0.05, 0.95, (rows, cols, 2))
    points = np.round(points * pitch).astype(int).reshape(-1, 2) + int(pitch) * 2
    pad = int(pitch) * 2
    seeds = np.ones((height + 2 * pad, width + 2 * pad), np.uint8)
    kept = points[(points >= 0).all(1) & (points < seeds.shape).all(1)]
    seeds[kept[:, 0], kept[:, 1]] = 0
    _, cells = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    joints = cv2.morphologyEx(cells.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
    depth = cv2.distanceTransform((~joints).astype(np.uint8), cv2.DIST_L2, 3)
    stone = rng.uniform(-0.5, 0.5, int(cells.max()) + 1)[cells]
    tone = stone + 1.5 * np.minimum(depth / (0.4 * pitch), 1) - 1.15
    return cv2.GaussianBlur(tone, (0, 0), 0.6)[pad:-pad, pad:-pad].astype(np.float32)


def smooth_noise(rng: np.random.Generator, height: int, width: int, sigma: float) -> np.ndarray:
    """Return (height, width) Gaussian noise blurred over ``sigma`` pixels, with a variance of about 1."""
    coarse = max(1, int(sigma / 2))
    grid = rng.standard_normal((height // coarse + 2, width // coarse + 2), np.float32)
    grid = cv2.GaussianBlur(grid, (0, 0), sigma / coarse)
    return cv2.resize(grid / max(float(grid.std()), 1e-6), (width, height), interpolation=cv2.INTER_CUBIC)


def object_tone(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the tone of an object, (S, S) like ``x`` and ``y``: plain, striped, dotted or noisy, for any class."""
    family = rng.integers(4)
    angle, period = rng.uniform(0, np.pi), rng.uniform(5.5, 8.5)
    u = (2 * np.pi / period) * (np.cos(angle) * x + np.sin(angle) * y) + rng.uniform(0, 2 * np.pi)
    if family == 0:
        return np.zeros_like(x)
    if family == 1:
        return np.clip(2.5 * np.sin(u), -1, 1)
    if family == 2:
        v = (2 * np.pi / period) * (np.cos(angle) * y - np.sin(angle) * x)
        return np.clip(2.5 * (np.sin(u) + np.sin(v)) - 1.5, -0.8, 1)
    return 0.7 * smooth_noise(rng, *x.shape, 1.4)
