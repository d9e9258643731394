"""Fonts that have the characters of a text: DejaVu Sans, and for other scripts a font of this computer.

DejaVu Sans comes with matplotlib, so that pictures look the same everywhere. It has no Chinese, Japanese and Korean.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

_FAMILY = "DejaVu Sans"
_LAST_RESORT = "Last Resort"  # comes with matplotlib; its glyphs name the script of a character
_REGULAR, _BOLD = 400, 700


class FontFile(NamedTuple):
    """A font of this computer."""

    path: str
    family: str


def font(size: int, bold: bool = False, text: str = "") -> ImageFont.FreeTypeFont:
    """Return a font of ``size`` pixels for Pillow that has the characters of ``text`` if one is installed."""
    absent = _absent(text)
    other = installed_font(absent, bold) if absent else None
    return _load(other.path if other else _dejavu(bold), size)


@contextmanager
def fonts_for(*texts: str) -> Iterator[None]:
    """Within this context, matplotlib draws the characters of ``texts`` that DejaVu Sans lacks with installed fonts."""
    absent = _absent("".join(texts))
    others = {found.family for bold in (False, True) if absent and (found := installed_font(absent, bold))}
    with matplotlib.rc_context({"font.family": [_FAMILY, *sorted(others)]}):
        yield


@lru_cache
def installed_font(characters: frozenset[str], bold: bool = False) -> FontFile | None:
    """Return the installed font with most of ``characters``, upright and as heavy as wanted; None if none has any."""
    best = None
    for entry in font_manager.fontManager.ttflist:
        if entry.name.startswith(_LAST_RESORT):
            continue
        lacking = len(characters - _characters(entry.fname, characters))
        weight = font_manager.weight_dict.get(entry.weight, entry.weight)
        rank = (lacking, entry.style != "normal", abs(weight - (_BOLD if bold else _REGULAR)), entry.name, entry.fname)
        if lacking < len(characters) and (best is None or rank < best[0]):
            best = rank, FontFile(entry.fname, entry.name)
    return best[1] if best else None


def _absent(text: str) -> frozenset[str]:
    """The printable characters of ``text`` that DejaVu Sans lacks."""
    if text.isascii():
        return frozenset()
    wanted = frozenset(character for character in text if character.isprintable())
    return wanted - _characters(_dejavu(), wanted)


@lru_cache(maxsize=1024)
def _characters(path: str, among: frozenset[str]) -> frozenset[str]:
    """Those of ``among`` for which a font file has a glyph."""
    try:
        charmap = FT2Font(path)
        return frozenset(character for character in among if charmap.get_char_index(ord(character)))
    except (OSError, RuntimeError):  # removed since matplotlib listed it, or not readable
        return frozenset()


def _dejavu(bold: bool = False) -> str:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name)


@lru_cache
def _load(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
