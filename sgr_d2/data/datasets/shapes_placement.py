"""The placement of objects in a generated scene: touching or apart, with little of each hidden. Ours."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# An object may hide at most this fraction of another one.
MAX_HIDDEN = 0.12
# Objects of one class overlap by at least this many pixels, or stay at least this many pixels apart.
MIN_CONTACT, MIN_GAP = 12, 4
ATTEMPTS = 40


class Part(NamedTuple):
    """An object before its placement: class, and signed distance (S, S) with the pixel offsets x, y (S, S)."""

    label: int
    radius: float
    distance: np.ndarray
    x: np.ndarray
    y: np.ndarray


@dataclass
class Canvas:
    """A scene being drawn; ``image`` is float32 in [0, 1], ``areas[i]`` the number of pixels of instance i before any
    was hidden, ``light`` the unit vector (row, column) towards the light."""

    image: np.ndarray
    labels: np.ndarray
    instances: np.ndarray
    areas: list[int]
    light: np.ndarray

    def window(self, part: Part, row: int, col: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the slices of the canvas and of the part that overlap if the part is centred at (row, col)."""
        on_canvas, on_part = [], []
        for centre, size in zip((row, col), self.labels.shape, strict=True):
            start = centre - len(part.x) // 2
            low = max(start, 0)
            high = max(min(start + len(part.x), size), low)
            on_canvas.append(slice(low, high))
            on_part.append(slice(low - start, high - start))
        return tuple(on_canvas), tuple(on_part)


def find_place(rng: np.random.Generator, canvas: Canvas, part: Part, touches: bool) -> tuple[int, int] | None:
    """Return the centre (row, col) of a place for ``part``, or None if ``ATTEMPTS`` draws find none."""
    sizes, border = np.array(canvas.labels.shape), 0.8 * part.radius
    for _ in range(ATTEMPTS):
        place = _approach(rng, canvas, part) if touches else tuple(rng.uniform(border, sizes - border).astype(int))
        if place is None or not all(border <= v <= size - border for v, size in zip(place, sizes, strict=True)):
            continue
        if _is_free(canvas, part, place, touches):
            return place
    return None


def _approach(rng: np.random.Generator, canvas: Canvas, part: Part) -> tuple[int, int] | None:
    """Move ``part`` towards the newest object of its class from a random side, until the two overlap slightly."""
    # If there is none of its class, the surfaces are used instead: the part then goes anywhere.
    newest = canvas.instances == np.max(canvas.instances, where=canvas.labels == part.label, initial=0)
    centre = np.argwhere(newest).mean(0)
    angle = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.sin(angle), np.cos(angle)])
    for distance in np.arange(2.2 * part.radius, 0.5 * part.radius, -1.5):
        row, col = (int(v) for v in centre + distance * direction)
        on_canvas, on_part = canvas.window(part, row, col)
        if np.count_nonzero(newest[on_canvas] & (part.distance[on_part] <= 0)) >= MIN_CONTACT:
            return row, col
    return None


def _is_free(canvas: Canvas, part: Part, place: tuple[int, int], touches: bool) -> bool:
    """Whether ``part`` at ``place`` leaves every object visible enough, and a gap to its class if not ``touches``."""
    on_canvas, on_part = canvas.window(part, *place)
    distance, labels, instances = part.distance[on_part], canvas.labels[on_canvas], canvas.instances[on_canvas]
    if not touches and np.any(labels[distance < MIN_GAP] == part.label):
        return False
    hits = np.bincount(instances[distance <= 0], minlength=len(canvas.areas))
    left = np.bincount(canvas.instances.ravel(), minlength=len(canvas.areas)) - hits
    return bool(np.all(left[1:] >= (1 - MAX_HIDDEN) * np.array(canvas.areas[1:])))
