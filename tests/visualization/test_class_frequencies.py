import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from sgr_d2.visualization.class_frequencies import _draw_classes, _draw_components, plot_class_frequencies


@pytest.mark.parametrize(
    ("num_classes", "num_images"), [(1, 1), (3, 0), (19, 4), (61, 2), (171, 50)], ids=lambda value: str(value)
)
def test_any_number_of_classes_and_images(tmp_path, num_classes, num_images):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 10**6, num_classes)
    pixels[-1] = 0  # one never occurs; of one class, none does
    path = tmp_path / "deep/classes.png"
    plot_class_frequencies(
        title="toys",
        classes=[f"a class with a rather long name {index}" for index in range(num_classes)],
        pixels=pixels,
        components=rng.integers(0, 300, (num_images, 3)),
        min_area=128,
        max_components=256,
        out_png=path,
    )
    with Image.open(path) as image:
        width, height = image.size
        array = np.asarray(image.convert("RGB"))
    assert width >= 800 and 300 < height < 1600
    blue = np.array([0x00, 0x72, 0xB2])
    drawn = (np.abs(array[:, : width // 2].astype(int) - blue).sum(-1) < 30).any()
    assert drawn == (num_classes > 1)


def test_bars_are_sorted_and_rare_classes_have_short_ones(tmp_path):
    path = tmp_path / "classes.png"
    plot_class_frequencies(
        title="t",
        classes=["rare", "common"],
        pixels=np.array([1, 999]),
        components=np.zeros((0, 3)),
        min_area=1,
        max_components=1,
        out_png=path,
    )
    with Image.open(path) as image:
        array = np.asarray(image.convert("RGB")).astype(int)
    rows = (np.abs(array - [0x00, 0x72, 0xB2]).sum(-1) < 30).sum(1)
    rows = rows[rows > 3]
    # the axis begins at 0.01 %: one decade for the rare class, four for the common one
    assert rows[0] == pytest.approx(4 * rows[-1], abs=6)


def test_every_bar_has_the_name_and_the_share_of_its_class():
    columns = Figure().subplots(1, 2)
    _draw_classes(columns, ["rare", "common", "absent"], np.array([1, 999, 0]), rows=2)
    names = [[tick.get_text() for tick in axes.get_yticklabels()] for axes in columns]
    assert names == [["common", "rare"], ["absent (never)"]]
    assert [bar.get_width() for bar in columns[0].patches] == pytest.approx([99.9, 0.1])


def test_the_histogram_is_of_the_components_that_are_kept():
    axes = Figure().subplots()
    _draw_components(axes, np.array([[3, 1, 1], [1, 0, 0], [1, 2, 0]]), min_area=8, max_components=3)
    bars = [patch.get_height() for patch in axes.patches if isinstance(patch, Rectangle)]
    assert bars == [0, 2, 0, 1, 0, 0]  # of images with 0 to 5 components
