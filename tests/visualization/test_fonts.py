import warnings

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from sgr_d2.evaluation import ERROR_KINDS
from sgr_d2.visualization import Classes, draw_error_kinds, draw_sheet
from sgr_d2.visualization.canvas import Canvas, shortened, text_width
from sgr_d2.visualization.fonts import font, fonts_for, installed_font

ROAD = "道路"
WIDTH = 900  # of every glyph, of 1,000 units


def square():
    pen = TTGlyphPen(None)
    for number, (x, y) in enumerate(((50, 0), (50, 700), (850, 700), (850, 0))):
        (pen.lineTo if number else pen.moveTo)((x, y))
    pen.closePath()
    return pen.glyph()


def build_font(path, family, characters, bold=False):
    """A font whose glyphs are all the same square."""
    names = {ord(character): f"u{ord(character):X}" for character in characters}
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    builder.setupGlyf(dict.fromkeys([".notdef", *names.values()], square()))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names.values()], (WIDTH, 50)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    style = "Bold" if bold else "Regular"
    builder.setupNameTable({"familyName": family, "styleName": style, "psName": f"{family}-{style}".replace(" ", "")})
    builder.setupOS2(usWeightClass=700 if bold else 400)
    builder.setupPost()
    builder.save(path)
    font_manager.fontManager.addfont(path)


@pytest.fixture(autouse=True)
def only_fonts_of_matplotlib(monkeypatch):
    """No other font of this computer is seen, and those of a test are forgotten after it."""
    bundled = [entry for entry in font_manager.fontManager.ttflist if "mpl-data" in entry.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", bundled)
    installed_font.cache_clear()
    yield
    installed_font.cache_clear()


@pytest.fixture
def road_font(tmp_path):
    path = str(tmp_path / "road.ttf")
    build_font(path, "Road Sans", ROAD)
    return path


def test_latin_greek_and_cyrillic_are_in_the_font_of_matplotlib(road_font):
    for text in ("road", "Straße", "δρόμος", "дорога", "", "$a_b$", "a\nb"):
        assert font(12, text=text).path.endswith("DejaVuSans.ttf")
    assert font(12, bold=True, text="road").path.endswith("DejaVuSans-Bold.ttf")


def test_other_scripts_are_in_an_installed_font(road_font):
    assert font(20, text=ROAD).path == road_font
    assert text_width(ROAD, 20) == 2 * 20 * WIDTH // 1000
    assert text_width(ROAD + "…", 20) > text_width(ROAD, 20)
    assert shortened(ROAD * 9, 20, max_width=100).endswith("…")


def test_without_such_a_font_characters_are_boxes():
    assert installed_font(frozenset(ROAD)) is None
    assert font(20, text=ROAD).path.endswith("DejaVuSans.ttf")
    assert text_width(ROAD, 20) > 0


def test_the_font_that_has_most_of_them_in_the_weight_that_is_wanted(tmp_path, road_font):
    build_font(str(tmp_path / "half.ttf"), "Aardvark", ROAD[0])
    build_font(str(tmp_path / "bold.ttf"), "Road Sans", ROAD, bold=True)
    assert installed_font(frozenset(ROAD)).path == road_font
    assert installed_font(frozenset(ROAD), bold=True).path == str(tmp_path / "bold.ttf")
    assert installed_font(frozenset(ROAD + "水")).path == road_font  # two of three


def test_a_font_that_was_removed_is_left_out(road_font, tmp_path):
    (tmp_path / "road.ttf").unlink()
    assert installed_font(frozenset(ROAD)) is None


def test_the_glyphs_of_that_font_are_drawn(road_font):
    canvas = Canvas(60, 30)
    canvas.text(ROAD, 0, 0, 20)
    ink = (canvas.pixels() < 128).all(2)
    assert ink[:, :40].sum() == pytest.approx(2 * 16 * 14, rel=0.15)  # two squares of 0.8 x 0.7 of 20 pixels


def test_plots_write_class_names(tmp_path, road_font):
    figures = {f"{kind}-{ROAD}": 0.0 for kind in ERROR_KINDS} | dict.fromkeys(ERROR_KINDS, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a glyph that no font has
        draw_error_kinds(figures, ERROR_KINDS, [ROAD], ROAD, tmp_path / "kinds.png")
        with pytest.raises(UserWarning, match="Glyph"):
            draw_error_kinds(figures, ERROR_KINDS, [ROAD], "水", tmp_path / "kinds.png")


def test_sheets_write_class_names(road_font):
    image, label = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.int64)
    color = np.full((1, 3), 200, np.uint8)
    road, other = (draw_sheet(image, None, label, Classes([name], color, 255)) for name in (ROAD, "水水"))
    assert not np.array_equal(road, other)


def test_the_setting_of_matplotlib_is_put_back(road_font):
    before = matplotlib.rcParams["font.family"]
    with fonts_for("road", ROAD):
        assert matplotlib.rcParams["font.family"] == ["DejaVu Sans", "Road Sans"]
    with fonts_for("road"):
        assert matplotlib.rcParams["font.family"] == ["DejaVu Sans"]
    assert matplotlib.rcParams["font.family"] == before
