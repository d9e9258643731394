"""Tables of README.md and docs/results.md are those of the results."""

import re
from pathlib import Path
from statistics import mean, median

import pytest
from experiments.outcome import metric_of
from experiments.overview import Row, read_overview
from experiments.plan import read_plan
from experiments.records import read_json
from experiments.statistics import estimate
from experiments.summary import span

ROOT = Path(__file__).parents[2]
METRIC = "sem_seg/mIoU"
TOKENS = [f"token_semantics/{name}" for name in ("S_C", "S_I", "D_C", "D_I", "I_C", "I_I")]
# The rows of the main table of docs/results.md, in its order; the first of each group is what the others compare to.
GROUPS = [
    ("controls/fpn_16", "controls/unsupervised", "controls/sgr", "controls/places"),
    ("controls/lite2", "controls/lite2_unsupervised", "controls/lite2_sgr", "controls/lite2_places"),
    ("deeplab_controls/deeplab_16", "deeplab_controls/unsupervised_16", "deeplab_controls/sgr_16"),
    ("mask2former_controls/m2f", "mask2former_controls/unsupervised", "mask2former_controls/no_gradient"),
    ("learning_rate_lite0/fpn_4", "learning_rate_lite0/fpn_sgr_4_no_gradient"),
    ("learning_rate_full/fpn_3", "learning_rate_full/fpn_sgr_3_no_gradient"),
    ("learning_rate_full/m2f_1.5", "learning_rate_full/m2f_sgr_1.5"),
]
TABLED = ("S_C", "S_I", "D_C", "D_I", "I_C", "I_I", "overlap")
MODELS = [(group[0], model) for group in GROUPS for model in group]
# The rows of the tables of docs/results_ablations.md: the variants of two plans, in their order.
ABLATIONS, ABLATION_SEEDS = "ablations_stride_8", (6, 7)
FEWER = {"10 %": 10, "25 %": 25, "50 %": 50, "100 %": 100}
# Seeds 0 and 1 of this plan chose the rate.
FRESH = {"deeplab_controls": 6}


def table(page: str, header: str) -> list[list[str]]:
    """The cells of the rows below the first header that begins with ``header``."""
    after = (ROOT / page).read_text().split(f"\n| {header} ", 1)[1]
    lines = after.split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip().replace("*", "") for cell in line.strip("|").split("|")] for line in lines]


def differences_text(values: list[float], digits: int = 2) -> str:
    """As the pages write them: up to two seeds one by one, more as mean and interval."""
    if len(values) < 3:
        return ", ".join(f"{value:+.{digits}f}" for value in values)
    found = estimate(values)
    return f"{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


def baseline_and_difference(row: Row, digits: int) -> tuple[str, str]:
    of_baseline = mean(row.baseline[METRIC][seed] for seed in row.seeds(METRIC))
    return f"{of_baseline:.{digits}f}", differences_text(row.differences(METRIC), digits)


@pytest.mark.parametrize(
    ("page", "digits", "baseline", "least"), [("README.md", 1, 1, 6), ("docs/results.md", 2, 3, 20)]
)
def test_every_row_is_one_of_the_overview(page, digits, baseline, least):
    found = {
        (*baseline_and_difference(row, digits), len(row.seeds(METRIC)))
        for row in read_overview(ROOT / "results/overview.yaml").rows
    }
    rows = [
        (cells[baseline], cells[baseline + 1], int(re.match(r"\d+", cells[baseline + 2])[0]))
        for cells in table(page, "CamVid val")
    ]
    assert len(rows) >= least
    assert [row for row in rows if row not in found] == []


def results_of(folder: str) -> dict[int, dict]:
    """{seed: result} of a model."""
    results = [read_json(file) for file in (ROOT / "results" / folder).glob("seed*.json")]
    return {result["seed"]: result for result in results if result["seed"] >= FRESH.get(folder.split("/")[0], 0)}


def difference_of(model: dict[int, dict], baseline: dict[int, dict]) -> str:
    pairs = sorted(model.keys() & baseline.keys())
    return differences_text([metric_of(model[seed], METRIC) - metric_of(baseline[seed], METRIC) for seed in pairs])


def model_cells(baseline: str, folder: str) -> list[str]:
    """Seeds, metrics, parameters, time and memory of a model, as the main table writes them."""
    by_seed = results_of(folder)
    results = list(by_seed.values())
    accuracy = estimate([metric_of(result, METRIC) for result in results])
    tokens = [[metric_of(result, metric) for result in results] for metric in TOKENS]
    return [
        span(sorted(by_seed)),
        f"{accuracy.mean:.2f}" + (f" ± {accuracy.sd:.2f}" if accuracy.n > 1 else ""),
        "" if folder == baseline else difference_of(by_seed, results_of(baseline)),
        f"{mean(metric_of(result, 'sem_seg/pACC') for result in results):.2f}",
        *("" if None in values else f"{mean(values):.2f}" for values in tokens),
        f"{results[0]['parameters'] / 1e6:.2f}",
        f"{median(result['seconds_per_step'] for result in results):.2f}",
        f"{median(result['peak_memory_mib'] for result in results) / 1024:.2f}",
    ]


@pytest.mark.parametrize(("row", "models"), enumerate(MODELS), ids=[model for _, model in MODELS])
def test_the_main_table_is_that_of_the_results(row, models):
    rows = table("docs/results.md", "Main table")
    assert len(rows) == len(MODELS)
    assert rows[row][1:] == model_cells(*models)


def paired(model: dict[int, dict], baseline: dict[int, dict], metric: str, digits: int = 2) -> str:
    """The differences by seed, or those of the loss of the head in %."""
    seeds = sorted(model.keys() & baseline.keys())
    if metric == "head_loss":
        changes = [100 * (model[seed][metric] / baseline[seed][metric] - 1) for seed in seeds]
        return ", ".join(f"{value:+.1f} %" for value in changes)
    values = [metric_of(model[seed], metric) - metric_of(baseline[seed], metric) for seed in seeds]
    return ", ".join(f"{value:+.{digits}f}" for value in values)


def ablation_results(variant: str) -> dict[int, dict]:
    """Those of the seeds that all variants have."""
    return {seed: r for seed, r in results_of(f"{ABLATIONS}/{variant}").items() if seed in ABLATION_SEEDS}


def ablation_cells(variant: str) -> list[str]:
    """mIoU, differences to no SGR and to SGR, and token metrics of a variant, as its table writes them."""
    results = {name: ablation_results(name) for name in (variant, "sgr", "fpn")}
    own = results[variant]
    to_sgr = [paired(own, results["sgr"], metric) for metric in (METRIC, "sem_seg/pACC", "head_loss")]
    tokens = [[metric_of(result, f"token_semantics/{name}") for result in own.values()] for name in TABLED]
    return [
        ", ".join(f"{metric_of(own[seed], METRIC):.2f}" for seed in sorted(own)),
        "" if variant == "fpn" else paired(own, results["fpn"], METRIC),
        *(["", "", ""] if variant == "sgr" else to_sgr),
        *("" if None in values else f"{mean(values):.2f}" for values in tokens),
    ]


def test_the_table_of_ablations_is_that_of_the_results():
    plan = read_plan(ROOT / f"experiments/{ABLATIONS}.yaml")
    made = [variant.name for variant in plan.variants if ablation_results(variant.name)]
    rows = table("docs/results_ablations.md", "variant")
    assert [re.search(r"`(\w+(?:\.\d)?)`", row[0])[1] for row in rows] == made
    assert [row[1:] for row in rows] == [ablation_cells(variant) for variant in made]


def fewer_cells(share: int) -> list[str]:
    """mIoU of Semantic FPN, and differences of and to SGR without and with places, with a share of the images."""
    fpn, sgr, places = (results_of(f"fewer_images/{model}_{share}") for model in ("fpn", "sgr", "places"))
    pairs = [(sgr, fpn), (places, fpn), (places, sgr)]
    losses = [paired(model, fpn, "head_loss") for model in (sgr, places)]
    accuracies = ", ".join(f"{metric_of(fpn[seed], METRIC):.2f}" for seed in sorted(fpn))
    return [span(sorted(fpn)), accuracies, *(paired(*pair, METRIC) for pair in pairs), *losses]


def test_the_table_of_fewer_images_is_that_of_the_results():
    rows = {row[0]: row[1:] for row in table("docs/results_ablations.md", "training images")}
    assert rows == {label: fewer_cells(share) for label, share in FEWER.items()}
