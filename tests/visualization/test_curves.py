import json
import logging

import numpy as np
import pytest
from detectron2.utils.events import EventStorage, JSONWriter
from matplotlib.figure import Figure
from PIL import Image

from sgr_d2.visualization.curves import _draw_losses, _draw_scores, _smoothed, plot_curves, read_series


def _lines(path, rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def _train(path, start, stop, offset):
    """What a Detectron2 run writes: losses every second iteration, mIoU at every fifth."""
    writer = JSONWriter(str(path), window_size=1)
    with EventStorage(start) as storage:
        for i in range(start, stop):
            storage.iter = i
            storage.put_scalars(total_loss=offset + 1 / (i + 1), loss_sem_seg=offset + 0.5 / (i + 1))
            if (i + 1) % 5 == 0:
                storage.put_scalar("sem_seg/mIoU", 10.0 * offset + i, smoothing_hint=False)
            if (i + 1) % 2 == 0:
                writer.write()
    writer.close()


def test_a_file_of_detectron2_is_read_number_by_number(tmp_path):
    path = tmp_path / "metrics.json"
    _train(path, 0, 20, 0)
    series = read_series(path)
    iterations, losses = series["total_loss"]
    assert iterations.tolist() == list(range(1, 20, 2))
    assert losses == pytest.approx(1 / (iterations + 1))
    assert series["sem_seg/mIoU"][0].tolist() == [4, 9, 14, 19]
    assert series["sem_seg/mIoU"][1].tolist() == [4, 9, 14, 19]


def test_a_resumed_run_replaces_what_it_repeats_and_what_was_abandoned(tmp_path):
    path = tmp_path / "metrics.json"
    _train(path, 0, 20, 0)
    _train(path, 10, 16, 5)  # appended; started from the checkpoint of iteration 10
    iterations, losses = read_series(path)["total_loss"]
    assert iterations.tolist() == [1, 3, 5, 7, 9, 11, 13, 15]
    assert (losses < 2).tolist() == [True] * 5 + [False] * 3
    assert read_series(path)["sem_seg/mIoU"][1].tolist() == [4, 9, 64]


def test_rows_of_one_write_that_are_out_of_order_are_no_resume(tmp_path):
    rows = [{"iteration": 19, "total_loss": 1.0}, {"iteration": 9, "sem_seg/mIoU": 40.0}]
    series = read_series(_lines(tmp_path / "m.json", rows))
    assert series["total_loss"][0].tolist() == [19]
    assert series["sem_seg/mIoU"][0].tolist() == [9]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"iteration": 0, "total_loss": 1.0}],
        [{"iteration": 0, "lr": 1.0}, {"total_loss": 3.0}],
        [{"iteration": i, "total_loss": float("nan"), "sem_seg/mIoU": float("nan")} for i in range(3)],
        [
            {"iteration": i, "loss_a": -1.0, "loss_b": 0.0, "a_val/sem_seg/mIoU": 5.0, "b/sem_seg/mIoU": 6}
            for i in (1, 2)
        ],
        [
            {"iteration": i, "total_loss": 10.0 ** -(i / 20), **{f"loss_{c}": 1.0 for c in "abcdefghi"}}
            for i in range(60)
        ],
    ],
)
def test_any_numbers_give_a_picture(tmp_path, rows):
    out = tmp_path / "new" / "curve.png"
    plot_curves(_lines(tmp_path / "metrics.json", rows), out)
    picture = np.array(Image.open(out).convert("RGB"))
    assert picture.shape[0] > 300
    assert picture.shape[1] > 1000
    assert picture[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("names", [["component", "sem_seg"], [f"mask_{i}" for i in range(30)], ["x" * 80, "y"]])
def test_legends_are_below_the_axes(tmp_path, names, monkeypatch):
    """They hide no curve, wherever it is, and stay in the picture."""
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: drawn.append(figure))
    rows = [{"iteration": i, **{f"loss_{name}": 1.0 + i % 2 for name in names}, "sem_seg/mIoU": i} for i in range(9)]
    plot_curves(_lines(tmp_path / "metrics.json", rows), tmp_path / "curve.png")
    figure = drawn[0]
    figure.draw_without_rendering()
    for axes in figure.axes:
        legend = axes.get_legend().get_window_extent()
        label = axes.xaxis.label.get_window_extent()
        assert legend.y1 <= label.y0 and legend.y0 >= 0 and axes.get_window_extent().height > 200


def test_the_best_score_is_told_without_regard_to_nan(tmp_path):
    scores = [30.0, float("nan"), 42.25, 41.0]
    rows = [{"iteration": 100 * i + 99, "sem_seg/mIoU": score} for i, score in enumerate(scores)]
    axes = Figure().subplots()
    _draw_scores(axes, read_series(_lines(tmp_path / "metrics.json", rows)), "sem_seg/mIoU")
    (text,) = axes.get_legend().get_texts()
    assert text.get_text() == "mIoU: best 42.2 % at iteration 300"
    assert axes.lines[0].get_xdata().tolist() == [100, 300, 400]


@pytest.mark.parametrize(
    ("metric", "ylabel", "labels"),
    [
        ("segm/AP", "segm/AP (%)", ["a_val: best 30.0 % at iteration 20", "b_val: best 40.0 % at iteration 10"]),
        ("b_val/segm/AP", "b_val/segm/AP (%)", ["b_val/segm/AP: best 40.0 % at iteration 10"]),
        ("input/brightness", "input/brightness", ["input/brightness: best 127.1 at iteration 10"]),
        ("sem_seg/mIoU", "mIoU (%)", None),
    ],
)
def test_the_metric_is_drawn_for_every_data_set(tmp_path, metric, ylabel, labels):
    rows = [{"iteration": i, "a_val/segm/AP": 20.0 + i // 9 * 5, "b_val/segm/AP": 49.0 - i} for i in (9, 19)]
    rows += [{"iteration": 9, "input/brightness": 127.125, "bbox/AP": 3.0}]
    axes = Figure().subplots()
    _draw_scores(axes, read_series(_lines(tmp_path / "metrics.json", rows)), metric)
    assert axes.get_ylabel() == ylabel
    legend = axes.get_legend()
    assert (legend and [text.get_text() for text in legend.get_texts()]) == labels


@pytest.mark.parametrize("continued", [False, True])
def test_the_evaluation_after_the_last_step_is_not_put_beyond_it(tmp_path, continued):
    rows = [{"iteration": i, "total_loss": 1.0} for i in (9, 19)]
    rows += [{"iteration": 9, "sem_seg/mIoU": 30.0}, {"iteration": 20, "sem_seg/mIoU": 40.0}]
    if continued:  # resumed with more iterations, which ended with another evaluation
        rows += [{"iteration": 29, "total_loss": 1.0}, {"iteration": 30, "sem_seg/mIoU": 35.0}]
    axes = Figure().subplots()
    _draw_scores(axes, read_series(_lines(tmp_path / "metrics.json", rows)), "sem_seg/mIoU")
    curve, best = axes.lines
    assert curve.get_xdata().tolist() == [10, 20, 30][: 2 + continued]
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([20], [40.0])
    assert axes.get_legend().get_texts()[0].get_text().endswith("at iteration 20")


def test_left_holds_the_losses_and_right_the_scores(tmp_path):
    def ink(rows):
        out = tmp_path / "curve.png"
        plot_curves(_lines(tmp_path / "metrics.json", rows), out)
        picture = np.array(Image.open(out).convert("RGB")).astype(int)
        # Pixels of the blue of the first curve.
        blue = np.abs(picture - [0x00, 0x72, 0xB2]).sum(axis=2) < 30
        half = blue.shape[1] // 2
        return blue[:, :half].sum(), blue[:, half:].sum()

    losses = [{"iteration": i, "loss_sem_seg": 1.0 + i} for i in range(5)]
    scores = [{"iteration": i, "sem_seg/mIoU": 1.0 + i} for i in range(5)]
    left, right = ink(losses)
    assert left > 100
    assert right == 0
    left, right = ink(scores)
    assert left == 0
    assert right > 100


def test_smoothing_keeps_a_straight_line_and_takes_noise_away():
    line = np.linspace(3, 7, 200)
    assert _smoothed(line) == pytest.approx(line)
    noise = np.random.default_rng(0).normal(size=400)
    assert _smoothed(noise)[20:-20].std() < 0.35 * noise.std()


def test_every_loss_has_its_name_and_the_total_is_black(tmp_path):
    rows = [{"iteration": i, "loss_sem_seg": 2.0 + i, "total_loss": 5.0 + i} for i in range(40)]
    axes = Figure().subplots()
    _draw_losses(axes, read_series(_lines(tmp_path / "metrics.json", rows)))
    smooth = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert {name: line.get_color() for name, line in smooth.items()} == {"total": "#222222", "sem seg": "#0072B2"}
    assert smooth["sem seg"].get_xdata().tolist() == list(range(1, 41))
    assert smooth["sem seg"].get_ydata() == pytest.approx(np.arange(2.0, 42.0))


def test_half_a_line_of_a_killed_run_is_skipped_and_said(tmp_path, caplog):
    rows = [{"iteration": 1, "total_loss": 1.0}, '{"iteration": 3, "total_l\n', {"iteration": 5, "total_loss": 2.0}]
    path = _lines(tmp_path / "metrics.json", rows)
    with caplog.at_level(logging.WARNING, logger="sgr_d2.visualization.curves"):
        assert read_series(path)["total_loss"][0].tolist() == [1, 5]
    assert "skipped 1 lines" in caplog.text
    assert "line 2" in caplog.text


def test_missing_file_and_file_of_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.json: no such file"):
        plot_curves(tmp_path / "nothing.json", tmp_path / "curve.png")
    with pytest.raises(ValueError, match="line 1 is not a JSON object"):
        plot_curves(_lines(tmp_path / "text.json", ["MODEL:\n", "  SGR\n"]), tmp_path / "curve.png")
    assert not (tmp_path / "curve.png").exists()
