"""Encodes numbers and maps as text that a page can read from disk.

A page opened from disk may show picture files, but not read their pixels. Maps that it has to read are therefore put
into scripts, as data URLs of lossless pictures.

Shape legend: n maps of h x w cells.
"""

import base64
import io
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image


class Sprite(NamedTuple):
    """Maps side by side in one picture, row by row.

    Attributes:
        url: data URL of the grey picture.
        columns: maps per row.
    """

    url: str
    columns: int


def quantize(maps: np.ndarray, levels: int = 64) -> np.ndarray:
    """Convert probabilities 0..1 to uint8 0..255, rounded to ``levels`` steps: fewer steps make smaller files."""
    steps = np.rint(np.clip(maps, 0, 1) * (levels - 1))
    return np.rint(steps * (255 / (levels - 1))).astype(np.uint8)


def coarsen(maps: np.ndarray, extent: tuple[float, float], max_cells: int) -> tuple[np.ndarray, tuple[float, float]]:
    """Average blocks of cells until the longer side has at most ``max_cells``.

    Args:
        maps: (n, h, w).
        extent: (rows, columns) that the image covers.
        max_cells: at least 1.

    Returns:
        (n, h', w') float32, and the extent in new cells.
    """
    factor = math.ceil(max(maps.shape[1:]) / max_cells)
    maps = np.asarray(maps, np.float32)
    if factor <= 1:
        return maps, tuple(map(float, extent))
    pad = [(0, -size % factor) for size in maps.shape[1:]]
    padded = np.pad(maps, [(0, 0), *pad], mode="edge")
    rows, columns = padded.shape[1] // factor, padded.shape[2] // factor
    blocks = padded.reshape(len(maps), rows, factor, columns, factor).mean(axis=(2, 4))
    return blocks, (extent[0] / factor, extent[1] / factor)


def sprite(maps: np.ndarray) -> Sprite:
    """Pack (n, h, w) uint8 maps into one picture."""
    number, height, width = maps.shape
    columns = max(1, math.ceil(math.sqrt(number * height / width)) if number else 1)
    rows = max(1, math.ceil(number / columns))
    sheet = np.zeros((rows * height, columns * width), np.uint8)
    for index, tile in enumerate(maps):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = tile
    return Sprite(data_url(Image.fromarray(sheet)), columns)


def label_url(labels: np.ndarray, num_classes: int, ignore_label: int) -> str:
    """Encode (H, W) labels as a picture: class c as red = c % 256, green = c // 256; all other values as 65535."""
    labels = labels.astype(np.int64)  # first: 65535 does not fit into 8 bits
    known = (labels >= 0) & (labels < num_classes) & (labels != ignore_label)
    values = np.where(known, labels, 0xFFFF)
    return data_url(Image.fromarray(np.dstack([values % 256, values // 256, 0 * values]).astype(np.uint8)))


def data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, exact=True, quality=50, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def matrix(values: np.ndarray) -> dict[str, Any]:
    """Encode values >= 0 (any shape) as {"max", "bytes"}: value = (byte / 255)**2 * max, finer for small values."""
    values = np.nan_to_num(np.asarray(values, np.float64))
    highest = float(values.max(initial=0))
    codes = np.rint(255 * np.sqrt(np.clip(values, 0, None) / (highest or 1))).astype(np.uint8)
    return {"max": highest, "bytes": base64.b64encode(codes.tobytes()).decode("ascii")}


def write_script(path: Path, key: str, content: Any) -> None:
    """Write a script ``explorer.receive(key, content)``: a page opened from disk can load scripts, but not JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_finite(content), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    path.write_text(f"explorer.receive({json.dumps(key)},{_inert(text)});\n", encoding="utf-8")


def _inert(text: str) -> str:
    """Escape JSON so that no parser sees the end of a script or of a line in it."""
    return text.replace("</", "<\\/").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _finite(value: Any) -> Any:
    """Convert to JSON's types: NaN to null, floats to five digits."""
    if isinstance(value, dict):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return _finite(value.tolist())
    if isinstance(value, float | np.floating):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
