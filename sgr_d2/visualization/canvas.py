"""A white sheet for images and short texts. All positions and sizes are in pixels, (left, top)."""

import numpy as np
from PIL import Image, ImageDraw

from .fonts import font

TEXT_COLOR = (28, 28, 30)
MUTED_COLOR = (110, 110, 115)
_OUTLINE_COLOR = (150, 150, 150)


class Canvas:
    """A white image to paste and write on; ``pixels()`` returns it.

    Args:
        width: width of the sheet.
        height: height of the sheet.
    """

    def __init__(self, width: int, height: int):
        self._image = Image.new("RGB", (width, height), "white")
        self._draw = ImageDraw.Draw(self._image)

    def paste(self, panel: np.ndarray, left: int, top: int) -> None:
        """Put a (h, w, 3) uint8 panel on the sheet."""
        self._image.paste(Image.fromarray(panel), (left, top))

    def text(
        self, text: str, left: int, top: int, size: int, *, bold: bool = False, muted: bool = False, max_width: int = 0
    ) -> None:
        """Write one line, truncated with an ellipsis if it is wider than ``max_width`` (0: never)."""
        if max_width:
            text = shortened(text, size, max_width, bold=bold)
        color = MUTED_COLOR if muted else TEXT_COLOR
        self._draw.text((left, top), text, font=font(size, bold, text), fill=color, anchor="la")

    def swatch(self, color: np.ndarray, left: int, top: int, side: int) -> None:
        """Draw a small outlined square of a colour."""
        corners = (left, top, left + side - 1, top + side - 1)
        self._draw.rectangle(corners, fill=tuple(int(value) for value in color), outline=_OUTLINE_COLOR)

    def pixels(self) -> np.ndarray:
        """Return the sheet, (height, width, 3) uint8."""
        return np.array(self._image)


def text_width(text: str, size: int, *, bold: bool = False) -> int:
    """Return the width of one line of text."""
    return round(font(size, bold, text).getlength(text))


def shortened(text: str, size: int, max_width: int, *, bold: bool = False) -> str:
    """Return ``text``, truncated with an ellipsis if it is wider than ``max_width``."""
    if text_width(text, size, bold=bold) <= max_width:
        return text
    while text and text_width(text + "…", size, bold=bold) > max_width:
        text = text[:-1].rstrip()
    return text + "…"
