"""Writes the explorer's folder as images are added; only small maps of each image are kept in memory.

Shape legend: H x W image, K tokens, C classes.
"""

import math
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sgr_d2.labels import resize_nearest
from sgr_d2.visualization.palette import class_colors, token_colors
from sgr_d2.visualization.panels import panel_size, resize_image
from sgr_d2.visualization.regions import RegionMaps

from .encode import coarsen, label_url, matrix, quantize, sprite, write_script
from .structures import ExploredImage, ExploredRun, Photograph
from .token_sums import TokenSums

# Longest sides of photographs and label maps, and of thumbnails, in pixels; of regions and small regions in cells.
PHOTO_SIDE = 960
THUMBNAIL_SIDE = 208
REGION_CELLS = 80
SMALL_REGION_CELLS = 30
# Shades of small regions, which are only displayed.
SMALL_REGION_LEVELS = 32
# Regions that nowhere in an image reach this probability are left out of it: they would not be visible.
MIN_PROBABILITY = 0.02
PAGES = (
    "index.html",
    "style.css",
    "core.js",
    "stage.js",
    "tokens.js",
    "images.js",
    "matrix.js",
    "compare.js",
    "main.js",
)


class ExplorerWriter:
    """Writes one folder that shows the same images under one or more runs.

    Call ``add_photo`` for every image; then for each run ``start_run``, its ``add`` for every image in the same order,
    and its ``finish``; and finally ``finish``.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        title: str,
        class_names: Sequence[str],
        class_colors: Sequence[Sequence[int]],
        ignore_label: int,
        has_truth: bool,
    ):
        """
        Args:
            output_dir: created if missing; files of the same names are replaced.
            title: of the pages.
            class_names, class_colors: C names and RGB triples.
            ignore_label: the label of pixels that belong to no class.
            has_truth: whether the classes of tokens are those of the truth, rather than of the prediction.
        """
        self.output_dir = Path(output_dir)
        self.class_names = list(class_names)
        self.class_colors = class_colors
        self.ignore_label = ignore_label
        self._title = title
        self._has_truth = has_truth
        self._photos: list[dict[str, Any]] = []
        self._runs: list[dict[str, Any]] = []

    def add_photo(self, photograph: Photograph) -> None:
        """Write photograph, thumbnail and truth of the next image."""
        size = display_size(photograph.pixels)
        stem = f"{len(self._photos):04d}"
        folder = self.output_dir / "photos"
        folder.mkdir(parents=True, exist_ok=True)
        _save_photo(photograph.pixels, size, folder / f"{stem}.webp", quality=80)
        thumbnail = panel_size(*photograph.pixels.shape[:2], THUMBNAIL_SIDE, THUMBNAIL_SIDE)
        _save_photo(photograph.pixels, thumbnail, folder / f"{stem}_small.webp", quality=72)
        if photograph.truth is not None:
            write_script(
                self.output_dir / f"data/truth/{stem}.js",
                f"truth/{stem}",
                self.label_url(photograph.truth, size),
            )
        self._photos.append(
            {"name": photograph.name, "size": size[::-1], "file": stem, "truth": photograph.truth is not None}
        )

    def label_url(self, labels: np.ndarray, size: tuple[int, int]) -> str:
        """Encode labels (H_img, W_img) at display size for the page."""
        return label_url(resize_nearest(labels, size), len(self.class_names), self.ignore_label)

    def start_run(self) -> "RunWriter":
        """The writer of the next run."""
        number = len(self._runs)
        self._runs.append({})
        return RunWriter(self, number, self._runs[number])

    def finish(self) -> None:
        """Write the index and the pages.

        Raises:
            ValueError: if a run has not been finished, or there is no image.
        """
        if not self._photos or not all(self._runs):
            raise ValueError("The explorer needs at least one image, and every run must be finished.")
        number = len(self.class_names)
        most_tokens = max(run["tokens"] for run in self._runs)
        index = {
            "title": self._title,
            "hasTruth": self._has_truth,
            "classes": self.class_names,
            "classColors": class_colors(number, self.class_colors),
            "clearColors": token_colors(number),
            # other colours than those of classes: a token and a class of one colour would seem to belong together
            "tokenColors": token_colors(number + most_tokens)[number:],
            "images": self._photos,
            "runs": self._runs,
        }
        write_script(self.output_dir / "data/index.js", "index", index)
        pages = resources.files("sgr_d2.visualization.explorer") / "page"
        for name in PAGES:
            with resources.as_file(pages / name) as source:
                shutil.copyfile(source, self.output_dir / name)


class RunWriter:
    """Writes the results of one run for the images."""

    def __init__(self, explorer: ExplorerWriter, number: int, content: dict[str, Any]):
        self._explorer = explorer
        self._folder = explorer.output_dir / f"data/run{number}"
        self._key = f"run{number}"
        self._content = content
        self._figures: list[dict[str, float]] = []
        self._sums = TokenSums()
        # for each image: maps (n, h, w) uint8 of the visible tokens, {token: index of its map}, extent
        self._small: list[tuple[np.ndarray, dict[int, int], tuple[float, float]]] = []
        self._cover: list[np.ndarray] = []  # (K,) for each image
        self._classes: list[tuple[np.ndarray, np.ndarray]] = []  # (K,) class and its share for each image

    def add(self, image: ExploredImage) -> None:
        """Write the next image."""
        stem = f"{len(self._figures):04d}"
        size = display_size(image.prediction)
        content: dict[str, Any] = {"prediction": self._explorer.label_url(image.prediction, size)}
        if image.tokens is not None:
            content |= self._add_tokens(image)
        write_script(self._folder / f"{stem}.js", f"{self._key}/{stem}", content)
        self._figures.append(dict(image.figures))

    def finish(self, run: ExploredRun) -> None:
        """Write the tokens over all images, and add the run's figures to the index."""
        self._content |= {
            "name": run.name,
            "note": run.note,
            "figures": dict(run.figures),
            "classIou": [run.class_iou.get(name) for name in self._explorer.class_names],
            "images": self._figures,
            "tokens": 0,
        }
        if self._sums.is_empty:
            return
        number = len(self._cover[0])
        self._content |= {"tokens": number, **self._sums.content()}
        for token in range(number):
            self._write_token(token)

    def _add_tokens(self, image: ExploredImage) -> dict[str, Any]:
        regions = image.tokens.regions.detach().cpu().float().numpy()
        cover = RegionMaps(image.tokens, tuple(max(64, 4 * math.ceil(cells)) for cells in image.tokens.extent)).cover()
        shares = image.masses / np.maximum(image.masses.sum(axis=1, keepdims=True), 1e-12)
        means = np.where(image.masses.sum(axis=1) > 0, shares.argmax(axis=1), -1)
        purity = shares.max(axis=1)
        kept = np.flatnonzero(regions.reshape(len(regions), -1).max(axis=1) >= MIN_PROBABILITY)
        kept = kept[np.argsort(-cover[kept], kind="stable")]
        maps, extent = coarsen(regions[kept], image.tokens.extent, REGION_CELLS)
        self._sums.add(image, cover)
        small, small_extent = coarsen(regions, image.tokens.extent, SMALL_REGION_CELLS)
        small = quantize(small, SMALL_REGION_LEVELS)
        visible = np.flatnonzero(small.reshape(len(small), -1).max(axis=1) >= 255 * MIN_PROBABILITY)
        self._small.append((small[visible], {int(k): index for index, k in enumerate(visible)}, small_extent))
        self._cover.append(cover)
        self._classes.append((means, purity))
        sheet = sprite(quantize(maps))
        content = {
            "grid": maps.shape[1:],
            "extent": extent,
            "columns": sheet.columns,
            "regions": sheet.url,
            # token, fraction of the image, main class and its share, active
            "tokens": [[k, cover[k], means[k], purity[k], int(image.active[k])] for k in kept],
        }
        if image.attention is not None:
            content["attention"] = matrix(image.attention.mean(axis=0))
        return content

    def _write_token(self, token: int) -> None:
        """Write the token for all images where it is visible, largest first."""
        order = sorted(range(len(self._cover)), key=lambda i: -self._cover[i][token])
        seen = [i for i in order if token in self._small[i][1]]
        height = max((self._small[i][0].shape[1] for i in seen), default=1)
        width = max((self._small[i][0].shape[2] for i in seen), default=1)
        tiles = np.zeros((len(seen), height, width), np.uint8)
        images = []
        for tile, i in zip(tiles, seen, strict=True):
            maps, index, extent = self._small[i]
            region = maps[index[token]]
            tile[: region.shape[0], : region.shape[1]] = region
            means, purity = self._classes[i]
            images.append([i, self._cover[i][token], means[token], purity[token], *region.shape, *extent])
        sheet = sprite(tiles)
        content = {"tile": [height, width], "columns": sheet.columns, "regions": sheet.url, "images": images}
        write_script(self._folder / f"token{token}.js", f"{self._key}/token{token}", content)


def display_size(array: np.ndarray) -> tuple[int, int]:
    """The size at which an image is shown: its own, or smaller so that no side exceeds ``PHOTO_SIDE``."""
    height, width = array.shape[:2]
    return (height, width) if max(height, width) <= PHOTO_SIDE else panel_size(height, width, PHOTO_SIDE, PHOTO_SIDE)


def _save_photo(pixels: np.ndarray, size: tuple[int, int], path: Path, quality: int) -> None:
    small = pixels if pixels.shape[:2] == tuple(size) else resize_image(pixels, size)
    Image.fromarray(small).save(path, "WEBP", quality=quality, method=4)
