"""tools/overview.py: differences over several experiments."""

import math
import re

import cv2
import numpy as np
import overview
import pytest
import yaml
from experiments.overview import _limits, _lines, read_overview, to_markdown
from experiments.records import read_json

from sgr_d2.files import write_json

METRICS = ["sem_seg/mIoU", "sem_seg/pACC"]
ROW = {"label": "FPN, short", "baseline": "plan/fpn", "model": "plan/sgr"}


@pytest.fixture
def write(tmp_path):
    """Write results {folder: {seed: (mIoU, pACC)}} and a file that compares rows of them."""

    def _write(results, rows, **changes):
        for folder, runs in results.items():
            for seed, figures in runs.items():
                metrics = {"val": {"sem_seg": dict(zip(("mIoU", "pACC"), figures, strict=True))}}
                path = tmp_path / folder / f"seed{seed}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json({"seed": seed, "metrics": metrics}, path)
        file = tmp_path / "overview.yaml"
        file.write_text(yaml.safe_dump({"title": "Gains", "metrics": METRICS, "rows": rows} | changes))
        return file

    return _write


def test_by_hand(write):
    baseline = {0: (50.0, 90.0), 1: (52.0, 91.0), 2: (51.0, 90.5), 7: (10.0, 20.0)}
    model = {0: (52.0, 90.5), 1: (55.0, 91.0), 2: (55.0, None), 8: (99.0, 99.0)}
    file = write({"plan/fpn": baseline, "plan/sgr": model}, [ROW])
    (row,) = read_overview(file).rows
    assert row.seeds("sem_seg/mIoU") == [0, 1, 2] and row.differences("sem_seg/mIoU") == [2, 3, 4]
    assert row.differences("sem_seg/pACC") == [0.5, 0.0]
    (line,) = [line for line in to_markdown(read_overview(file)).splitlines() if "FPN, short" in line]
    half = 4.302653 / math.sqrt(3)  # t of two degrees of freedom times sd / sqrt(n), the sd being 1
    low, high = 3 - half, 3 + half
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:4] == ["FPN, short", "0 to 2", "51.00", "54.00"]
    assert cells[4] == f"+3.00 [{low:+.2f}, {high:+.2f}]" and cells[5] == "+2.00, +3.00, +4.00"
    assert cells[6].startswith("+0.25 [")


def test_another_metric_can_be_the_first(write):
    file = write(
        {"plan/fpn": {0: (50.0, 90.0), 1: (51.0, None)}, "plan/sgr": {0: (52.0, 90.5), 1: (51.0, 91.0)}}, [ROW]
    )
    read = read_overview(file, first="sem_seg/pACC")
    assert read.metrics == ["sem_seg/pACC", "sem_seg/mIoU"]
    (line,) = [line for line in to_markdown(read).splitlines() if "FPN, short" in line]
    assert [cell.strip() for cell in line.strip("|").split("|")][1:5] == ["0", "90.00", "90.50", "+0.50"]
    with pytest.raises(ValueError, match=r"overview.yaml: metrics: .* do not contain sem_seg/x: add it"):
        read_overview(file, first="sem_seg/x")


def test_a_group_is_a_heading_for_its_row_and_those_below(write):
    runs = {"plan/fpn": {0: (50.0, 90.0), 1: (51.0, 90.0)}, "plan/sgr": {0: (51.0, 90.0), 1: (53.0, 90.0)}}
    rows = [ROW, ROW | {"group": "A", "label": "a1"}, ROW | {"label": "a2"}, ROW | {"group": "B", "label": "b1"}]
    read = read_overview(write(runs, rows))
    assert [row.group for row in read.rows] == ["", "A", "A", "B"]
    assert [text for text, _ in _lines(read.rows)] == ["FPN, short", "A", "a1", "a2", "B", "b1"]
    assert [row is None for _, row in _lines(read.rows)] == [False, True, False, False, True, False]
    text = to_markdown(read)
    assert "| FPN, short " in text and "| A: a1 " in text and "| A: a2 " in text and "| B: b1 " in text


def test_pairs_of_folders_are_taken_together(write):
    first = {"a/fpn": {0: (50.0, 90.0), 5: (0.0, 0.0)}, "a/sgr": {0: (52.0, 91.0), 6: (0.0, 0.0)}}
    second = {"b/fpn": {5: (50.0, 90.0), 6: (40.0, 90.0)}, "b/sgr": {5: (51.0, 90.0), 6: (43.0, 90.0)}}
    together = ROW | {"baseline": ["a/fpn", "b/fpn"], "model": ["a/sgr", "b/sgr"]}
    (row,) = read_overview(write(first | second, [together])).rows
    assert row.seeds("sem_seg/mIoU") == [0, 5, 6] and row.differences("sem_seg/mIoU") == [2.0, 1.0, 3.0]
    assert row.estimate("sem_seg/mIoU").mean == 2.0


def test_two_results_of_a_seed_are_refused(write, tmp_path):
    file = write({"plan/fpn": {0: (50.0, 90.0)}, "plan/sgr": {0: (51.0, 90.0), 1: (52.0, 90.0)}}, [ROW])
    (tmp_path / "plan/sgr/seed1.json").rename(tmp_path / "plan/sgr/seed0_old.json")
    assert read_overview(file).rows[0].differences("sem_seg/mIoU") == [1.0]
    write_json(read_json(tmp_path / "plan/sgr/seed0.json"), tmp_path / "plan/sgr/seed0_old.json")
    with pytest.raises(ValueError, match=r"sgr: its results have the seeds \[0, 0\]; keep one file per seed"):
        read_overview(file)


def test_one_seed_has_no_interval_and_a_metric_that_nobody_has_no_figure(write):
    file = write({"plan/fpn": {3: (50.0, None)}, "plan/sgr": {3: (49.5, None), 5: (60.0, None)}}, [ROW])
    (line,) = [line for line in to_markdown(read_overview(file)).splitlines() if "FPN, short" in line]
    assert re.split(r"\s*\|\s*", line.strip("| ")) == ["FPN, short", "3", "50.00", "49.50", "-0.50", "-0.50"]


def test_the_command_writes_table_and_picture(write, tmp_path, capsys):
    runs = {"plan/fpn": {0: (50.0, 90.0), 1: (51.0, 90.0)}, "plan/sgr": {0: (51.0, 90.0), 1: (53.0, 90.0)}}
    file = write(runs, [ROW, ROW | {"label": "again"}])
    assert overview.main([str(file)]) == 0
    text = (tmp_path / "overview.md").read_text(encoding="utf-8")
    assert text.strip() == capsys.readouterr().out.strip() and "+1.50" in text
    picture = cv2.imread(str(tmp_path / "overview.png"))
    blue = np.abs(picture.astype(int) - (200, 140, 60)).sum(-1) < 150  # the dots, BGR
    assert blue.any() and picture.shape[1] == 990
    assert overview.main([str(file), "--output", str(tmp_path / "other")]) == 0
    assert (tmp_path / "other/overview.png").is_file()


def test_dots_and_zero_are_in_view():
    low, high = _limits([[2.0, 3.0], [1.0]])
    assert low < 0 and high > 3
    low, high = _limits([[0.0]])
    assert low < 0 < high


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ([ROW | {"model": "plan/none"}], {}, r"plan/none: no result of .*seed0\.json"),
        ([ROW | {"model": "plan/late"}], {}, r"row 'FPN, short': plan/fpn and plan/late have no seed in common"),
        ([ROW | {"model": ["plan/fpn", "plan/late"]}], {}, r"must be folders, or lists of as many"),
        ([ROW | {"baseline": 3}], {}, r"row 'FPN, short': baseline 3 and .* must be folders"),
        (
            [ROW | {"baseline": ["plan/fpn"] * 2, "model": ["plan/fpn"] * 2}],
            {},
            r"row 'FPN, short': the seeds \[0\] are in several",
        ),
        ([{"label": "x"}], {}, r"rows: .* must be a table with the keys \['baseline', 'label', 'model'\]"),
        ([], {}, r"rows: \[\] must be a list that is not empty"),
        ([ROW], {"metrics": "sem_seg/mIoU"}, r"metrics: 'sem_seg/mIoU' must be a list"),
        ([ROW], {"metrics": ["mIoU"]}, r"metrics: \['mIoU'\] must be names like sem_seg/mIoU"),
        ([ROW], {"colour": "red"}, r"overview\.yaml: .* must be a table with the keys"),
    ],
)
def test_bad_files_are_told_in_one_line(write, rows, changes, message, capsys):
    file = write({"plan/fpn": {0: (1.0, 2.0)}, "plan/late": {1: (1.0, 2.0)}}, rows, **changes)
    assert overview.main([str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)


def test_files_that_are_none(tmp_path, capsys):
    assert overview.main([str(tmp_path / "none.yaml")]) == 2
    (tmp_path / "bad.yaml").write_text("a: [")
    assert overview.main([str(tmp_path / "bad.yaml")]) == 2
    err = capsys.readouterr().err
    assert "none.yaml: no such file" in err and "bad.yaml: not a YAML file" in err


def test_our_own_file_can_be_read():
    from experiments.plan import ROOT

    assert read_overview(ROOT / "results/overview.yaml").rows
