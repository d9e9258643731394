"""The arithmetic, tables and command line of tools/benchmark.py; no test looks at a time."""

import json
import math
import os
from pathlib import Path

import benchmark as script
import numpy as np
import pytest
import torch
from benchmarks import BENCHMARKS, Settings
from benchmarks.components import check_same, opencv_components, opencv_components_with_stats
from benchmarks.measure import (
    Ratio,
    alternate,
    live_bytes,
    loglog_slope,
    paired_ratio,
    peak_bytes,
    peak_of_changes,
)
from benchmarks.report import Report, read_json, refuse_other_results, to_json, to_markdown
from benchmarks.street_scenes import HEIGHT, NUM_CLASSES, WIDTH, draw_street, street_scenes
from benchmarks.sweep import voronoi_map

from sgr_d2.data.components import label_components
from sgr_d2.data.datasets import get_dataset_records
from sgr_d2.files import write_json

QUICK = Settings(quick=True)


@pytest.fixture
def no_data(monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))


# measuring


def test_runs_alternate_and_the_warm_up_does_not_count():
    calls, now = [], iter(range(100))
    runs = {name: (lambda number, name=name: calls.append((name, number))) for name in "AB"}
    times = alternate(runs, rounds=3, warmup=1, clock=lambda: next(now))
    assert calls == [("A", 0), ("B", 0), ("A", 1), ("B", 1), ("A", 2), ("B", 2), ("A", 3), ("B", 3)]
    assert {name: values.tolist() for name, values in times.items()} == {"A": [1000.0] * 3, "B": [1000.0] * 3}


def test_the_ratio_is_taken_within_a_round():
    ratio = paired_ratio(np.array([2.0, 6.0, 30.0]), np.array([1.0, 2.0, 5.0]), ">= 3")
    assert ratio == Ratio(3.0, 2.5, 4.5, ">= 3")
    assert ratio.is_met() is True
    assert ratio._replace(limit="<= 2.9").is_met() is False
    assert ratio._replace(limit="").is_met() is None


def test_slope_is_the_exponent_over_the_upper_half():
    x = [1, 2, 4, 8, 16, 32]
    assert loglog_slope(x, [5 * v**1.5 for v in x]) == pytest.approx(1.5)
    assert loglog_slope(x, [100, 100, 100, 8, 16, 32]) == pytest.approx(1.0)
    assert loglog_slope(x[::-1], [v**2 for v in x[::-1]]) == pytest.approx(2.0)
    assert loglog_slope([1, 10, 100], [7, 10, 1000]) == pytest.approx(2.0)


def test_peak_of_changes_by_hand():
    changes = [(1, 10), (2, 5), (2, -5), (3, 4), (1, -10), (4, 8)]
    assert peak_of_changes(changes) == 15
    assert peak_of_changes([(9, -100), (1, 3), (1, -3), (1, 4)]) == 4  # 9 was there before
    assert peak_of_changes([]) == 0


def test_peak_bytes_counts_what_lives_at_one_time():
    mebi = 2**18  # floats
    before = torch.ones(8 * mebi)

    def run():
        first = torch.ones(4 * mebi)
        del first
        second, third = torch.ones(2 * mebi), torch.ones(3 * mebi)
        return before.sum() + second.sum() + third.sum()

    for _ in range(2):
        assert peak_bytes(run) == pytest.approx(5 * 2**20, rel=0.01)


def test_live_bytes_counts_a_storage_once():
    base = torch.zeros(10, 10)
    assert live_bytes([base, base[2:], base.t(), torch.zeros(5, dtype=torch.float64)]) == 400 + 40


# what is compared is the same


@pytest.mark.parametrize("baseline", [opencv_components, opencv_components_with_stats])
@pytest.mark.parametrize(("min_area", "max_components"), [(0, 1000), (5, 1000), (3, 0)])
def test_the_opencv_baseline_finds_the_same_components(baseline, min_area, max_components):
    rng = np.random.default_rng(0)
    for size in ((1, 1), (7, 13), (40, 31)):
        labels = rng.choice(np.array([0, 1, 10, 255], np.uint8), size, p=[0.5, 0.3, 0.1, 0.1])
        options = {"min_area": min_area, "max_components": max_components}
        check_same(label_components(labels, ignore_label=255, **options), baseline(labels, **options))


def test_the_opencv_baseline_of_nothing():
    labels = np.full((4, 5), 255, np.uint8)
    check_same(label_components(labels, ignore_label=255, min_area=1, max_components=9), opencv_components(labels))


def test_a_difference_is_noticed():
    labels = np.zeros((6, 6), np.uint8)
    labels[2:4] = 1
    labels[:, 5] = 255
    right = label_components(labels, ignore_label=255, min_area=1, max_components=9)
    assert len(right.classes) == 3
    moved = right.ids.copy()
    moved[0, 0] = 3
    joined = np.minimum(right.ids, 2)
    for wrong in (
        right._replace(ids=moved),
        right._replace(ids=joined),
        right._replace(classes=right.classes[::-1] + 1),
        right._replace(num_small=1),
    ):
        with pytest.raises(ValueError, match="disagree"):
            check_same(right, wrong)


# inputs


def test_generated_streets_are_like_camvid():
    image, labels = draw_street(np.random.default_rng(0))
    assert image.shape == (HEIGHT, WIDTH, 3) and labels.shape == (HEIGHT, WIDTH)
    assert image.dtype == labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {*range(NUM_CLASSES), 255}
    assert (labels == 255).mean() == pytest.approx(0.05, abs=0.01)
    found = label_components(labels, ignore_label=255, min_area=16, max_components=256)
    assert 30 < len(found.classes) < 100
    again, _ = draw_street(np.random.default_rng(0))
    assert np.array_equal(image, again)


def test_scenes_are_generated_where_there_is_no_camvid_and_gone_afterwards(no_data, tmp_path):
    with street_scenes(2) as source:
        assert source == "generated scenes"
        files = [Path(r["sem_seg_file_name"]) for r in get_dataset_records("camvid_val")]
        assert len(files) == 2 and all(file.is_file() for file in files)
    assert os.environ["DETECTRON2_DATASETS"] == str(tmp_path)
    assert not any(file.exists() for file in files)
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        get_dataset_records("camvid_val")


def test_real_scenes_are_used_where_they_are(no_data, tmp_path):
    for split in ("train", "val"):
        (tmp_path / "camvid" / "labels" / split).mkdir(parents=True)
    with street_scenes(2) as source:
        assert source == "CamVid"


def test_voronoi_map_has_every_component_largest_first():
    ids = voronoi_map(0, 12, 20, 30)
    areas = np.bincount(ids.ravel(), minlength=13)
    assert areas[0] == 0 and len(areas) == 13
    assert (areas[1:] > 0).all() and (np.diff(areas[1:]) <= 0).all()


# results


def report() -> Report:
    rows = [{"run": "a", "ms": 1.25}, {"run": "b", "ms": 12.5}]
    return Report("What it is.", rows, {"a_over_b": Ratio(0.1, 0.09, 0.12, "<= 0.5"), "slope": Ratio(1.0, 1.0, 1.0)})


def test_json_maps_ratios_to_numbers_and_the_table_follows_from_it(tmp_path):
    path = tmp_path / "new" / "results.json"
    write_json(to_json({"cpu": "X", "cores": 2, "load_before": None}, QUICK, {"toy": report()}), path)
    data = read_json(path)
    assert data["ratios"] == {"a_over_b": 0.1, "slope": 1.0}
    assert data["quartiles"]["a_over_b"] == [0.09, 0.12]
    assert data["machine"]["cpu"] == "X" and data["machine"]["quick"] is True
    lines = [line.split("|") for line in to_markdown(data).splitlines()]
    cells = [[cell.strip() for cell in line[1:-1]] for line in lines if len(line) > 2]
    assert ["b", "12.5"] in cells and ["a", "1.250"] in cells
    assert ["`a_over_b`", "0.100", "0.090 to 0.120", "<= 0.5", "yes"] in cells
    assert ["`slope`", "1.000", "", "", ""] in cells


def test_results_of_other_benchmarks_are_not_overwritten(tmp_path):
    path = tmp_path / "results.json"
    refuse_other_results(path, ["toy"])
    write_json(to_json({"cpu": "X"}, QUICK, {"toy": report(), "other": report()}), path)
    with pytest.raises(FileExistsError, match=r"holds results of other\. Give another file"):
        refuse_other_results(path, ["toy"])
    refuse_other_results(path, ["toy", "other"])


def test_table_of_another_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_json(tmp_path / "none.json")
    for text, message in (
        ("not json", "not a JSON file"),
        ('{"ratios": {}}', "lacks machine, results"),
        ("[]", "lacks"),
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_json(tmp_path / "bad.json")


# benchmarks and command line


# The others have tests of their own.
@pytest.mark.parametrize("name", ["sgr_step", "token_metrics", "sweep"])
def test_quick_run(name, no_data, tmp_path):
    plot = tmp_path / "new" / "sweep.png"
    result = BENCHMARKS[name](QUICK._replace(plot=plot))
    assert len({tuple(row) for row in result.rows}) == 1
    assert all(math.isfinite(value) for ratio in result.ratios.values() for value in ratio[:3])
    expected = {
        "sgr_step": {f"sgr_step_{model}_{what}" for model in ("lite0", "r50") for what in ("time", "memory")},
        "token_metrics": {"token_metrics_time"},
        "sweep": {f"slope_{what}" for what in ("K", "L", "pixels")},
    }
    assert expected[name] <= set(result.ratios)
    if name == "sgr_step":
        assert all(result.ratios[f"sgr_step_{model}_memory"].value > 1 for model in ("lite0", "r50"))
    assert plot.is_file() == (name == "sweep")


@pytest.mark.slow
def test_quick_run_of_mask2former(no_data):
    """Ours and HF's in processes of their own, one for each setting of the allocator."""
    pytest.importorskip("transformers")
    result = BENCHMARKS["mask2former"](QUICK)
    assert {(row["allocator"], row["mode"], row["model"]) for row in result.rows} == {
        (allocator, mode, model)
        for allocator in ("default", "kept")
        for mode in ("inference", "training")
        for model in ("HF", "ours", "ours + SGR")
    }
    assert all(0 < value < math.inf for ratio in result.ratios.values() for value in ratio[:3])


def test_command_line(no_data, tmp_path, capsys):
    path = tmp_path / "results.json"
    assert script.main(["components", "--quick", "--rounds", "1", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    data = json.loads(path.read_text())
    assert set(data["results"]) == {"components"}
    assert data["ratios"]["components_opencv_over_ours"] > 0
    assert data["machine"]["precision"] == f"float32, products {torch.get_float32_matmul_precision()}"
    assert data["machine"]["rounds"] == 1 and data["machine"]["torch"] == torch.__version__
    assert script.main(["--table", str(path)]) == 0
    assert capsys.readouterr().out == printed == to_markdown(data) + "\n"


def test_list_and_wrong_arguments(monkeypatch, capsys, tmp_path):
    assert script.main(["--list"]) == 0
    listed = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in listed] == list(BENCHMARKS)
    for arguments, message in (
        (["components", "speed"], f"no benchmark speed; choose from {', '.join(BENCHMARKS)}"),
        (["--rounds", "0"], "0 is not a positive number"),
        (["--table", str(tmp_path / "none.json")], "none.json: no such file"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
        (["--device", "cuda", "--cpu-time"], "--cpu-time: does not count the time of --device cuda"),
    ):
        with pytest.raises(SystemExit) as exit_info:
            script.main(arguments)
        assert exit_info.value.code == 2
        assert message in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        script.main(["--device", "cuda"])
    assert "finds no CUDA device" in capsys.readouterr().err
