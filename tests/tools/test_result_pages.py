"""The first tables of README.md and docs/results.md are those of the results."""

import re
from pathlib import Path

import pytest
from experiments.overview import Row, read_overview

ROOT = Path(__file__).parents[2]
METRIC = "sem_seg/mIoU"


def table(page: str) -> list[list[str]]:
    """The cells of the rows below the first header that begins with "CamVid val"."""
    after = (ROOT / page).read_text().split("\n| CamVid val ", 1)[1]
    lines = after.split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def baseline_and_difference(row: Row, digits: int) -> tuple[str, str]:
    """As the pages write them: up to two seeds one by one, more as mean and interval."""
    seeds, differences = row.seeds(METRIC), row.differences(METRIC)
    mean = sum(row.baseline[METRIC][seed] for seed in seeds) / len(seeds)
    if len(seeds) < 3:
        text = ", ".join(f"{value:+.{digits}f}" for value in differences)
    else:
        found = row.estimate(METRIC)
        text = f"{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"
    return f"{mean:.{digits}f}", text


@pytest.mark.parametrize(
    ("page", "digits", "baseline", "least"), [("README.md", 1, 1, 6), ("docs/results.md", 2, 3, 20)]
)
def test_every_row_is_one_of_the_overview(page, digits, baseline, least):
    found = {
        (*baseline_and_difference(row, digits), len(row.seeds(METRIC)))
        for row in read_overview(ROOT / "results/overview.yaml").rows
    }
    rows = [
        (cells[baseline], cells[baseline + 1].replace("*", ""), int(re.match(r"\d+", cells[baseline + 2])[0]))
        for cells in table(page)
    ]
    assert len(rows) >= least
    assert [row for row in rows if row not in found] == []
