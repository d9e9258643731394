import json
import math

import numpy as np
import pytest

from sgr_d2.evaluation import format_detection_table, format_table, metrics_path, write_metrics

SEM_SEG = {
    "mIoU": 61.2345,
    "fwIoU": 80.0,
    "mACC": 70.0,
    "pACC": 90.0,
    "IoU-road": 95.5,
    "IoU-sky": math.nan,
    "IoU-tree": 33.25,
    "IoU-car": 12.5,
}
TOKENS = {name: 0.1 * i for i, name in enumerate(("S_C", "S_I", "D_C", "D_I", "I_C", "I_I"), 1)}
TOKENS |= {f"{name}_normalized": value / 2 for name, value in TOKENS.items()}
TOKENS |= {"active_rate": 0.875, "overlap": 0.25, "num_images": 3}


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table_shows_summary_tokens_and_classes():
    blocks = format_table({"sem_seg": SEM_SEG, "token_semantics": TOKENS}, ["road", "sky", "tree", "car"]).split("\n\n")
    summary, tokens, classes = ([cells(line) for line in block.splitlines()] for block in blocks)
    assert summary[0] == ["mIoU", "fwIoU", "mACC", "pACC"]
    assert summary[2] == ["61.23", "80.00", "70.00", "90.00"]
    assert [row[0] for row in tokens[2:]] == ["S_C", "S_I", "D_C", "D_I", "I_C", "I_I", "active_rate", "overlap"]
    assert tokens[9] == ["overlap", "0.2500", ""]
    assert tokens[3] == ["S_I", "0.2000", "0.1000"]
    assert classes[2] == ["road", "95.50", "sky", "n/a", "tree", "33.25"]
    assert classes[3][:2] == ["car", "12.50"]


def test_the_number_of_images_is_a_column_if_it_is_known():
    text = format_table({"sem_seg": SEM_SEG | {"num_images": 101}}, ["road"])
    summary = [cells(line) for line in text.split("\n\n")[0].splitlines()]
    assert (summary[0][-1], summary[2][-1], len(summary[0])) == ("images", "101", 5)


def test_errors_by_class_have_a_table():
    errors = {"segment": 1.5, "boundary": 2, "elsewhere": 3, "absent": 4, "pixels-absent": 0.25, "absent-sky": math.nan}
    text = format_table({"sem_seg": SEM_SEG, "error_kinds": errors | {"boundary-road": 7.125}}, ["road", "sky"])
    rows = [cells(line) for line in text.split("\n\n")[-1].splitlines()]
    assert rows[0] == ["IoU lost by", "segment", "boundary", "elsewhere", "absent"]
    assert rows[2] == ["road", "n/a", "7.12", "n/a", "n/a"] and rows[3] == ["sky", *["n/a"] * 4]
    assert rows[4] == ["mean", "1.50", "2.00", "3.00", "4.00"]
    assert rows[5] == ["% of pixels", "n/a", "n/a", "n/a", "0.25"]


def test_table_of_a_baseline_has_no_token_block():
    text = format_table({"sem_seg": SEM_SEG}, ["road"])
    assert "S_C" not in text and "95.50" in text
    assert format_table({}, ["road"]) == ""


@pytest.mark.parametrize("table", [format_table, format_detection_table])
def test_figures_of_other_evaluators_have_a_table(table):
    context = {"objects": 93.75, "pixels_0_60": math.nan, "count": 12}
    text = table({"context": context, "mine": {"score": 0.5}}, ["road"])
    assert [cells(line) for line in text.splitlines()[2:]] == [
        ["context/objects", "93.7500"],
        ["context/pixels_0_60", "n/a"],
        ["context/count", "12"],
        ["mine/score", "0.5000"],
    ]


def test_numbers_of_class_names_are_not_reformatted():
    text = format_table({"sem_seg": {"mIoU": 1.0, "IoU-007": 2.0}}, ["007"])
    assert cells(text.splitlines()[-1]) == ["007", "2.00"]


def test_metrics_file_holds_plain_numbers_and_null(tmp_path):
    path = metrics_path(tmp_path, "shapes_val")
    assert path == tmp_path / "evaluation" / "shapes_val" / "metrics.json"
    write_metrics({"sem_seg": {"mIoU": np.float32(0.5), "IoU-sky": math.nan}, "token_semantics": TOKENS}, path)
    read = json.loads(path.read_text())
    assert read["sem_seg"] == {"mIoU": 0.5, "IoU-sky": None}
    assert read["token_semantics"] == TOKENS
    assert type(read["token_semantics"]["num_images"]) is int


def test_a_refused_metric_leaves_the_old_file(tmp_path):
    path = tmp_path / "metrics.json"
    write_metrics({"sem_seg": {"mIoU": 1.0}}, path)
    with pytest.raises(ValueError, match="sem_seg/mIoU is inf"):
        write_metrics({"sem_seg": {"mIoU": math.inf}}, path)
    assert json.loads(path.read_text()) == {"sem_seg": {"mIoU": 1.0}}
    write_metrics({"sem_seg": {"mIoU": 2.0}}, path)
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]
