"""A small explorer with known contents, written without a model, for the tests of its files and pages.

Images of 48 x 64 pixels on a grid of 6 x 8 cells (stride 8); classes left, right and spot.
Run "first" has four tokens: 0 on the left half, 1 on the right half, 2 on a square of 2 x 2 cells, 3 nowhere.
Run "second" has no tokens.
"""

import numpy as np
import torch

from sgr_d2.structures import ImageTokens
from sgr_d2.visualization.explorer import ExploredImage, ExploredRun, ExplorerWriter, Photograph

CLASSES = ["left", "right", "spot"]
COLORS = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
GRID, STRIDE = (6, 8), 8
SIZE = (GRID[0] * STRIDE, GRID[1] * STRIDE)
IGNORE = 255


def spot(index: int) -> tuple[slice, slice]:
    """Cells of the square in image ``index``; it moves to the right."""
    return slice(1, 3), slice(index % 4, index % 4 + 2)


def scene_labels(index: int) -> np.ndarray:
    """(48, 64) uint8; the bottom row of pixels is ignored."""
    labels = np.zeros(GRID, np.uint8)
    labels[:, 4:] = 1
    labels[spot(index)] = 2
    labels = np.kron(labels, np.ones((STRIDE, STRIDE), np.uint8))
    labels[-1] = IGNORE
    return labels


def scene_regions(index: int) -> np.ndarray:
    """(4, 6, 8) float32."""
    regions = np.zeros((4, *GRID), np.float32)
    regions[0, :, :4] = 0.9
    regions[1, :, 4:] = 2 / 3
    regions[2][spot(index)] = 1.0
    return regions


def scene_image(index: int) -> ExploredImage:
    labels, regions = scene_labels(index), scene_regions(index)
    fine = np.kron(regions, np.ones((1, STRIDE, STRIDE), np.float32))
    masses = np.stack([(fine * (labels == c)).sum(axis=(1, 2)) for c in range(3)], axis=1)
    attention = np.full((2, 4, 4), 0.1)
    attention[:, 0] = [0.1, 0.6, 0.2, 0.1]  # token 0 attends to token 1 most
    attention[:, 1:] = 0.25
    tokens = ImageTokens(torch.from_numpy(regions), torch.eye(4), tuple(map(float, GRID)))
    prediction = np.where(labels == IGNORE, 0, labels)
    prediction[: 4 * index] = 1  # more is wrong in each image
    figures = {"mIoU": 90.0 - 10 * index, "pACC": 95.0 - 5 * index, "S_C": 0.1 * ((7 * index) % 5), "active_rate": 0.75}
    return ExploredImage(prediction, figures, tokens, masses, masses.sum(axis=1) > 0, attention)


def write_explorer(folder, *, num_images: int = 4, truth: bool = True, runs: int = 2):
    """Write it below ``folder``; returns the folder."""
    writer = ExplorerWriter(
        folder, title="Scenes", class_names=CLASSES, class_colors=COLORS, ignore_label=IGNORE, has_truth=truth
    )
    rng = np.random.default_rng(0)
    for index in range(num_images):
        pixels = rng.integers(60, 200, (*SIZE, 3), np.uint8)
        writer.add_photo(Photograph(f"scene_{index}.png", pixels, scene_labels(index) if truth else None))
    for number, name in list(enumerate(["first", "second"]))[:runs]:
        run = writer.start_run()
        for index in range(num_images):
            image = scene_image(index)
            if number == 1:
                figures = {"mIoU": 70.0 + 5 * index, "pACC": 80.0}
                image = ExploredImage(image.prediction, figures)
            run.add(image)
        figures = {"mIoU": 75.0 + number, "pACC": 88.0} | ({} if number else {"S_C": 0.25, "active_rate": 0.75})
        iou = {"left": 80.0, "right": 70.0 + 10 * number, "spot": 75.0}
        run.finish(ExploredRun(name, figures, iou, "model.pth"))
    writer.finish()
    return folder
