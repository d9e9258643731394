"""One scene of the generated data set ``shapes_context``: a strip in which one object decides the class of others.

Each scene contains one key, a star or a cross. Every ring has the class ``ring_by_star`` or ``ring_by_cross``,
depending on the key; the rings themselves look the same. The scenes that one state of the generator gives for the two
keys are equal pixel by pixel except around the key (``REACH``), while all rings change their class: a model that sees
an image through a window without the key is right half of the time. Disks, squares and triangles serve as distractors.
Ours.
"""

from typing import NamedTuple

import numpy as np

from sgr_d2.data.datasets.shapes_outline import outline_distance
from sgr_d2.data.datasets.shapes_placement import Canvas, Part
from sgr_d2.data.datasets.shapes_scene import MARGIN, draw_object, photograph, tint
from sgr_d2.data.datasets.shapes_texture import draw_palette, gravel_tone

KEYS = ("star", "cross")
OTHERS = ("disk", "square", "triangle")
CLASSES = ("ground", *KEYS, *OTHERS, *(f"ring_by_{key}" for key in KEYS))
RINGS = tuple(range(len(CLASSES) - len(KEYS), len(CLASSES)))

# Each object has its own place, side by side, so that none covers another.
PLACE_WIDTH = 43
RADII = (12.5, 15.0)
MIN_HEIGHT, MIN_PLACES = 40, 6
# Distance in pixels from the centre of the key beyond which the two scenes of one generator state are equal.
REACH = int(np.ceil(RADII[1])) + MARGIN + 6


class ContextObject(NamedTuple):
    """An object whose class depends on another one.

    Attributes:
        label: its class.
        box: (top, left, bottom, right) in pixels, the last two exclusive; contains only this object.
        distance: from its centre to that of the key, in pixels.
    """

    label: int
    box: tuple[int, int, int, int]
    distance: float


class ContextScene(NamedTuple):
    """A drawn scene.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8 index into ``CLASSES``; every pixel has a class.
        rings: the objects whose class cannot be seen.
        key: (row, column) of the centre of the object that decides their class.
    """

    image: np.ndarray
    labels: np.ndarray
    rings: list[ContextObject]
    key: tuple[int, int]


def draw_context_scene(rng: np.random.Generator, height: int, width: int, key: int) -> ContextScene:
    """Draw one scene; the same state of ``rng`` gives the same scene except for the key and the classes of the rings.

    Args:
        rng: the only source of randomness; it is advanced equally for both keys.
        height, width: pixels, at least 40 and 258.
        key: 0 for a star, 1 for a cross.

    Raises:
        ValueError: if the strip is too small, or there is no such key.
    """
    places = width // PLACE_WIDTH
    if height < MIN_HEIGHT or places < MIN_PLACES:
        least = MIN_PLACES * PLACE_WIDTH
        raise ValueError(f"draw_context_scene: height={height}, width={width}; at least {MIN_HEIGHT} and {least}")
    if key not in range(len(KEYS)):
        raise ValueError(f"draw_context_scene: key={key}; it must be 0 or 1")
    number = rng.integers(max(5, places - 4), places)
    outlines = ["key", *["ring"] * (number // 2), *rng.choice(OTHERS, number - 1 - number // 2)]
    columns = rng.permutation(places)[:number]
    colors = draw_palette(rng, 1 + number)
    canvas = _draw_ground(rng, height, width, colors[0])
    rings, key_centre = [], (0, 0)
    centres = [_centre(rng, height, width, places, column) for column in columns]
    for outline, centre, color in zip(outlines, centres, colors[1:], strict=True):
        label = _label(outline, key)
        part = _draw_part(rng, KEYS[key] if outline == "key" else outline, label)
        draw_object(rng, canvas, part, centre, color)
        if outline == "key":
            key_centre = centre
        elif outline == "ring":
            rings.append(_describe(part, centre, key_centre, canvas))
    return ContextScene(photograph(rng, canvas), canvas.labels, rings, key_centre)


def _label(outline: str, key: int) -> int:
    if outline == "ring":
        return RINGS[key]
    return CLASSES.index(KEYS[key] if outline == "key" else outline)


def _centre(rng: np.random.Generator, height: int, width: int, places: int, column: int) -> tuple[int, int]:
    """A random centre in a place, such that an object there stays within its place and the image."""
    margin = RADII[1] + 1
    slack = width / places / 2 - margin
    row = rng.uniform(margin, height - margin)
    return int(row), int((column + 0.5) * width / places + rng.uniform(-slack, slack))


def _draw_ground(rng: np.random.Generator, height: int, width: int, color: np.ndarray) -> Canvas:
    angle = rng.uniform(0, 2 * np.pi)
    return Canvas(
        image=tint(color, 0.28 * gravel_tone(rng, height, width)),
        labels=np.zeros((height, width), np.uint8),
        instances=np.zeros((height, width), np.int32),
        areas=[height * width],
        light=np.array([np.sin(angle), np.cos(angle)]),
    )


def _draw_part(rng: np.random.Generator, outline: str, label: int) -> Part:
    radius = rng.uniform(*RADII)
    reach = int(np.ceil(radius)) + MARGIN
    grid = np.mgrid[-reach : reach + 1, -reach : reach + 1] + rng.uniform(-0.5, 0.5, (2, 1, 1))
    y, x = grid.astype(np.float32)
    return Part(label, radius, outline_distance(outline, x, y, radius, rng.uniform(0, 2 * np.pi)), x, y)


def _describe(part: Part, centre: tuple[int, int], key: tuple[int, int], canvas: Canvas) -> ContextObject:
    on_canvas, _ = canvas.window(part, *centre)
    rows, columns = np.nonzero(canvas.instances[on_canvas] == len(canvas.areas) - 1)
    top, left = on_canvas[0].start, on_canvas[1].start
    box = (top + rows.min(), left + columns.min(), top + rows.max() + 1, left + columns.max() + 1)
    distance = float(np.hypot(centre[0] - key[0], centre[1] - key[1]))
    return ContextObject(part.label, tuple(int(v) for v in box), round(distance, 2))
