"""One scene of the generated data set ``shapes``: two surfaces and 5 to 9 objects, with labels and instances.

The class of a pixel follows from outline (objects) or texture (surfaces). Each scene has one palette, whose colours
are assigned at random to surfaces and objects alike, so a colour says nothing about the class. Ours.
"""

from typing import NamedTuple

import numpy as np

from sgr_d2.data.datasets.shapes_outline import OUTLINES, outline_distance
from sgr_d2.data.datasets.shapes_placement import Canvas, Part, find_place
from sgr_d2.data.datasets.shapes_texture import draw_palette, gravel_tone, object_tone, smooth_noise, waves_tone

SURFACES = {"waves": waves_tone, "gravel": gravel_tone}
CLASSES = (*SURFACES, *OUTLINES)

MIN_SIDE = 64
# Pixels around an outline that a patch includes, as room for the shadow.
MARGIN = 9


class Scene(NamedTuple):
    """A drawn scene.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8 index into ``CLASSES``; every pixel has a class.
        instances: (H, W) int32; 0 on the two surfaces, 1..N the objects from the lowest to the topmost.
    """

    image: np.ndarray
    labels: np.ndarray
    instances: np.ndarray


def draw_scene(rng: np.random.Generator, height: int, width: int) -> Scene:
    """Draw one scene; the same state of ``rng`` gives the same scene.

    Args:
        rng: the only source of randomness; it is advanced.
        height, width: pixels, at least ``MIN_SIDE`` each. Objects are about 20 to 45 percent of the shorter side wide.

    Raises:
        ValueError: if the scene is too small for its objects.
    """
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"draw_scene: height={height}, width={width}; both must be at least {MIN_SIDE} pixels")
    plan = _plan_objects(rng)
    colors = draw_palette(rng, len(SURFACES) + len(plan))
    canvas = _draw_surfaces(rng, height, width, colors[: len(SURFACES)])
    for (label, touches), color in zip(plan, colors[len(SURFACES) :], strict=True):
        part = _draw_part(rng, label, min(height, width), crowded=len(plan) > 7)
        place = find_place(rng, canvas, part, touches)
        if place is not None:
            draw_object(rng, canvas, part, place, color)
    return Scene(photograph(rng, canvas), canvas.labels, canvas.instances)


def _plan_objects(rng: np.random.Generator) -> list[tuple[int, bool]]:
    """Return (label, touches the previous one) per object: the first class has a touching pair and one object apart."""
    labels = len(SURFACES) + rng.permutation(len(OUTLINES))[: rng.integers(3, 5)]
    plan = [(int(labels[0]), False), (int(labels[0]), True), (int(labels[0]), False)]
    for label in labels[1:]:
        plan.append((int(label), False))
        if rng.random() < 0.6:
            plan.append((int(label), bool(rng.random() < 0.5)))
    return plan


def _draw_surfaces(rng: np.random.Generator, height: int, width: int, colors: np.ndarray) -> Canvas:
    """Fill the canvas with two textured surfaces on either side of a wavy horizon; either may be on top."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    level = rng.uniform(0.35, 0.65) * height + rng.uniform(-0.15, 0.15) * (x - width / 2)
    for length, reach in ((0.9, 0.05), (0.35, 0.025)):
        phase, stretch = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1.2)
        level += reach * height * np.sin(2 * np.pi * x / (length * stretch * width) + phase)
    below = y - level  # signed distance to the horizon along the column
    order = rng.permutation(len(SURFACES))
    painted = []
    for label in order:
        tone = list(SURFACES.values())[label](rng, height, width)
        painted.append(tint(colors[label], 0.28 * tone))
    # The lower surface is nearer: it covers the upper one and casts a soft shadow on it.
    painted[0] *= 1 - 0.4 * np.exp(np.minimum(below, 0) / 4)[..., None]
    cover = np.clip(0.5 + below, 0, 1)[..., None]
    image = painted[0] + cover * (painted[1] - painted[0])
    angle = rng.uniform(0, 2 * np.pi)
    return Canvas(
        image=image,
        labels=np.where(below < 0, *order).astype(np.uint8),
        instances=np.zeros((height, width), np.int32),
        areas=[height * width],
        light=np.array([np.sin(angle), np.cos(angle)]),
    )


def tint(color: np.ndarray, tone: np.ndarray) -> np.ndarray:
    """Lighten or darken ``color`` (3,) by ``tone`` (H, W): (H, W, 3) float32."""
    tone = tone[..., None]
    return np.where(tone < 0, color * (1 + tone), color + (1 - color) * 0.8 * tone).astype(np.float32)


def _draw_part(rng: np.random.Generator, label: int, side: int, crowded: bool) -> Part:
    radius = side * rng.uniform(0.145, 0.18 if crowded else 0.225)
    reach = int(np.ceil(radius)) + MARGIN
    grid = np.mgrid[-reach : reach + 1, -reach : reach + 1] + rng.uniform(-0.5, 0.5, (2, 1, 1))
    y, x = grid.astype(np.float32)
    name = OUTLINES[label - len(SURFACES)]
    return Part(label, radius, outline_distance(name, x, y, radius, rng.uniform(0, 2 * np.pi)), x, y)


def draw_object(
    rng: np.random.Generator, canvas: Canvas, part: Part, place: tuple[int, int], color: np.ndarray
) -> None:
    """Draw the soft shadow of ``part``, then the object itself with a bevelled rim; update labels and instances."""
    shift = np.round(-4 * canvas.light).astype(int)
    on_canvas, on_part = canvas.window(part, *(np.array(place) + shift).tolist())
    shade = 0.55 * np.clip(0.5 - part.distance[on_part] / 7, 0, 1)
    canvas.image[on_canvas] *= 1 - shade[..., None]

    slopes = np.gradient(part.distance)
    facing = canvas.light[0] * slopes[0] + canvas.light[1] * slopes[1]
    rim = np.clip(1 + part.distance / 4.5, 0, 1)
    tone = 0.24 * object_tone(rng, part.x, part.y) + 0.4 * rim * facing
    on_canvas, on_part = canvas.window(part, *place)
    cover = np.clip(0.5 - part.distance, 0, 1)[on_part][..., None]
    painted = tint(color, np.clip(tone, -1, 1))[on_part]
    canvas.image[on_canvas] += cover * (painted - canvas.image[on_canvas])

    solid = part.distance[on_part] <= 0
    canvas.labels[on_canvas][solid] = part.label
    canvas.instances[on_canvas][solid] = len(canvas.areas)
    canvas.areas.append(int(solid.sum()))


def photograph(rng: np.random.Generator, canvas: Canvas) -> np.ndarray:
    """Light the canvas unevenly, add sensor noise and return it as (H, W, 3) uint8."""
    height, width = canvas.labels.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    gradient = 0.16 * (canvas.light[0] * y + canvas.light[1] * x) - 0.1 * (x * x + y * y)
    clouds = 0.04 * smooth_noise(rng, height, width, 24)
    image = canvas.image * (1.1 + gradient + clouds)[..., None]
    image += rng.standard_normal(image.shape, np.float32) * (0.012 + 0.02 * np.sqrt(np.clip(image, 0, 1)))
    return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
