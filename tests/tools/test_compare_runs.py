"""tools/compare_runs.py on run folders and results written by hand."""

import json
import os
import re

import compare_runs
import matplotlib.image
import pytest
from comparison.classes import _draw_differences, class_differences, class_metrics
from comparison.grouping import compare, complete
from comparison.page import to_html
from comparison.reading import find_runs
from experiments.resolved import differences, flat
from experiments.summary import to_markdown
from matplotlib.figure import Figure

from sgr_d2.config import get_sgr_cfg
from sgr_d2.files import write_json

STEPS = 40


def write_folder(path, *, seed, miou, car, sgr=False, steps=STEPS, more=None):
    """A run as train_net.py leaves it: two logged steps, an evaluation, a log of two attempts and 700 MB."""
    cfg = get_sgr_cfg()
    cfg.SEED, cfg.OUTPUT_DIR, cfg.SOLVER.MAX_ITER, cfg.MODEL.SGR.ENABLED = seed, str(path), STEPS, sgr
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(cfg.dump())
    rows = [{"iteration": i, "total_loss": 1.0, "time": 0.5 + seed} for i in (steps // 2 - 1, steps - 1)]
    (path / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    times = "".join(f"[d2] Total training time: {time} (0:00:05 on hooks)\n" for time in ("0:00:20", "1 day, 2:01:10"))
    (path / "log.txt").write_text(f"x max_mem: 700M\n{times}")
    results = {"sem_seg": {"mIoU": miou, "IoU-car": car, "IoU-a|b": 10.0}} | (more or {})
    write_json(results, path / "evaluation/toy_val/metrics.json")
    return path


@pytest.fixture
def runs(tmp_path):
    """Two seeds of a baseline and of SGR; differences of mIoU 1 and 3, of IoU of cars 2 and 6."""
    tokens = {"token_semantics": {"S_C": 0.5, "S_I": 0.7}}
    return [
        write_folder(tmp_path / "fpn_seed0", seed=0, miou=50.0, car=60.0),
        write_folder(tmp_path / "fpn_seed1", seed=1, miou=52.0, car=62.0),
        write_folder(tmp_path / "sgr/seed0", seed=0, miou=51.0, car=62.0, sgr=True, more=tokens),
        write_folder(tmp_path / "sgr/seed1", seed=1, miou=55.0, car=68.0, sgr=True, more=tokens),
    ]


def rows(text, heading):
    """{first cell: the other cells} of the table below a heading."""
    part = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|") and "`" in line]
    table = [re.split(r" *\| *(?=[^|]*$|[^`]*(?:`[^`]*`[^`]*)*$)", line) for line in lines]
    return {row[1].strip("`"): row[2:-1] for row in table}


def test_tables_by_hand(runs, tmp_path, capsys):
    assert compare_runs.main([*map(str, runs), "--output", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out.strip()
    assert text == (tmp_path / "out/comparison.md").read_text().strip()
    assert text.startswith("# fpn and others\n\n4 of 4 runs are done.\n")
    assert "Made with" not in text
    # sd of (50, 52) and of (51, 55): sqrt(2), sqrt(8)
    assert rows(text, "Metrics") == {
        "fpn": ["2 of 2", "51.00 ± 1.41", "n/a", "n/a"],
        "sgr": ["2 of 2", "53.00 ± 2.83", "0.500 ± 0.000", "0.700 ± 0.000"],
    }
    # differences 1 and 3: mean 2, half width 12.7062 * sqrt(2) / sqrt(2); 2 and 6: mean 4, twice that
    assert rows(text, "Differences")["sgr"] == [
        "`fpn`",
        "+2.000 [-10.706, +14.706] (2)",
        "n/a",
        "n/a",
        "2 of 2",
        "+0.000 [+0.000, +0.000] (2)",
    ]
    by_class = rows(text, "IoU by class, toy_val")
    assert by_class["car"] == ["61.00 ± 1.41", "65.00 ± 4.24", "+4.000 [-21.412, +29.412] (2)"]
    assert by_class["a|b"] == ["10.00 ± 0.00", "10.00 ± 0.00", "+0.000 [+0.000, +0.000] (2)"]
    # a loss of 1, 0.5 and 1.5 s a step, 20 s and 26 h 70 s, 700 MB
    assert rows(text, "Costs")["fpn"] == ["1.0000", "1.000", "93,690", "700"]
    assert "* `sgr`: `MODEL.SGR.ENABLED: False -> True`" in text


def test_the_page_needs_no_other_file(runs, tmp_path):
    assert compare_runs.main([*map(str, runs), "--output", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out/comparison.html").read_text()
    sources = re.findall(r'src="([^"]{0,30})', page)
    assert len(sources) == 4 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<code>MODEL.SGR.ENABLED: False -&gt; True</code>" in page and "<code>a|b</code>" in page
    assert "http" not in re.sub(r'src="[^"]*"', "", page) and page.count("<table>") == 5
    for picture in ("sem_seg_mIoU", "token_semantics_S_C", "classes_toy_val"):
        pixels = matplotlib.image.imread(tmp_path / f"out/{picture}.png")
        assert pixels.shape[1] > 500 and pixels[..., :3].std() > 0.02


def test_names_are_no_markup(tmp_path):
    text = "# [all runs](javascript:alert(1)) <b>x</b> <http://example.org>"
    page = to_html(text, tmp_path, "t")
    assert "<a" not in page and "<b>" not in page and "javascript:alert(1)" in page


def test_missing_seeds_and_unfinished_runs(runs, tmp_path):
    late = write_folder(tmp_path / "sgr/seed2", seed=2, miou=90.0, car=90.0, sgr=True, steps=STEPS // 2)
    empty = write_folder(tmp_path / "none", seed=3, miou=0.0, car=0.0)
    (empty / "evaluation/toy_val/metrics.json").unlink()
    collected = compare(find_runs([*runs, late, empty]))
    assert collected.states["sgr/seed2"] == ("incomplete", "stopped after 20 of 40 steps")
    assert collected.states["fpn/seed2"] == ("missing", "")
    state, reason = collected.states["fpn/seed3"]  # the settings tell, not the name of the folder
    assert state == "incomplete" and "no metrics.json" in reason
    assert collected.values(collected.variant("sgr"), "sem_seg/mIoU") == {0: 51.0, 1: 55.0}


def test_a_class_without_labels_is_not_called_missing(tmp_path):
    absent = [
        write_folder(tmp_path / "fpn_seed0", seed=0, miou=50.0, car=None),
        write_folder(tmp_path / "sgr/seed0", seed=0, miou=51.0, car=None, sgr=True),
    ]
    rest = write_folder(tmp_path / "other/seed0", seed=0, miou=51.0, car=None, more={"sem_seg": {"mIoU": 1.0}})
    (rest / "config.yaml").write_text((rest / "config.yaml").read_text().replace("NUM_TOKENS: 64", "NUM_TOKENS: 8"))
    assert compare_runs.main([*map(str, [*absent, rest]), "--output", str(tmp_path / "out")]) == 0
    by_class = rows((tmp_path / "out/comparison.md").read_text(), "IoU by class, toy_val")
    assert by_class["car"] == ["no labels", "no labels", "missing", "no labels", "missing"]
    assert by_class["a|b"] == ["10.00", "10.00", "missing", "+0.000 (1)", "missing"]


def test_no_class_plot_without_pairs(runs, tmp_path):
    assert compare_runs.main([str(runs[0]), str(runs[3]), "--output", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out/comparison.md").read_text()
    assert rows(text, "Differences")["sgr"] == ["`fpn`", *["missing"] * 5]
    assert not list((tmp_path / "out").glob("classes_*"))


def test_differences_of_classes_are_drawn_where_they_are(runs):
    collected = compare(find_runs(runs))
    figures = class_differences(collected, class_metrics(collected, "toy_val"))["sgr"]
    assert [figure.mean for figure in figures] == [4.0, 0.0]
    axes = Figure().subplots()
    _draw_differences(axes, figures, 0.25, "red")
    interval, dot = axes.lines[:2]
    assert list(interval.get_xdata()) == pytest.approx([-21.412, 29.412], abs=1e-3)
    assert list(interval.get_ydata()) == [0.25, 0.25]
    assert (list(dot.get_xdata()), list(dot.get_ydata())) == ([4.0], [0.25])


def test_results_of_experiments_and_folders_together(runs, tmp_path):
    """A folder stands for what lies below it; an evaluation alone has no steps; settings of an older version count."""
    (runs[1] / "metrics.json").unlink()
    settings = find_runs([runs[2]])[0].settings
    older = {key: value for key, value in settings.items() if key != "SOLVER.ACCUMULATION_STEPS"}
    metrics = {"toy_val": {"sem_seg": {"mIoU": 57.0}}}
    result = {"variant": "kept", "seed": 5, "config": older | {"SEED": 5}, "metrics": metrics, "environment": {}}
    write_json(result, tmp_path / "results/kept/seed5.json")
    found = find_runs([tmp_path])
    assert [run.seed for run in found] == [0, 1, 5, 0, 1] and len(find_runs([tmp_path, runs[0]])) == 5
    collected = compare(found)
    assert [variant.name for variant in collected.plan.variants] == ["fpn", "kept"]
    assert collected.values(collected.variant("kept"), "sem_seg/mIoU") == {0: 51.0, 1: 55.0, 5: 57.0}


def test_two_data_sets_and_chosen_metrics(runs):
    write_json({"sem_seg": {"mIoU": 33.0}}, runs[0] / "evaluation/a_val/metrics.json")
    collected = compare(find_runs(runs))
    expected = ["a_val/sem_seg/mIoU", "toy_val/sem_seg/mIoU", *(f"toy_val/token_semantics/{n}" for n in ("S_C", "S_I"))]
    assert collected.plan.metrics == expected
    assert collected.values(collected.variant("fpn"), "a_val/sem_seg/mIoU") == {0: 33.0}
    assert compare(find_runs(runs), ["toy_val/sem_seg/mIoU"]).plan.metrics == ["toy_val/sem_seg/mIoU"]
    # never the figure of one set minus that of another
    assert compare(find_runs(runs), ["sem_seg/mIoU"]).plan.metrics == expected[:2]
    assert compare(find_runs(runs[1:]), ["sem_seg/mIoU"]).plan.metrics == ["sem_seg/mIoU"]


def test_a_run_killed_in_its_last_evaluation(runs):
    log, evaluation = runs[0] / "metrics.json", runs[0] / "evaluation/toy_val/metrics.json"
    os.utime(evaluation, (1, 1))  # of an earlier step
    assert compare(find_runs(runs)).states["fpn/seed0"] == ("incomplete", "stopped before its last evaluation")
    log.write_text(log.read_text() + json.dumps({"iteration": STEPS, "sem_seg/mIoU": 50.0}) + "\n")
    assert compare(find_runs(runs)).states["fpn/seed0"] == ("done", "")


def evaluated(path, *opts):
    """The config of an evaluation of the run, beside its figures; it is the training's but for ``opts``."""
    cfg = get_sgr_cfg()
    cfg.merge_from_file(str(path / "config.yaml"))
    cfg.merge_from_list(list(opts))
    (path / "evaluation/toy_val/config.yaml").write_text(cfg.dump())


def test_settings_of_an_evaluation_are_told(runs):
    def variants():
        return {variant.name: variant.note for variant in compare(find_runs(runs)).plan.variants}

    for run in runs:  # how the last checkpoint of the run itself was evaluated
        evaluated(run, "MODEL.WEIGHTS", str(run / "model_final.pth"), "TEST.NUM_PICTURES", 3, "SOLVER.BASE_LR", 9.0)
    assert variants() == {"fpn": "", "sgr": "`MODEL.SGR.ENABLED: False -> True`"}
    for run in runs[2:]:
        evaluated(run, "MODEL.WEIGHTS", str(run / "model_best.pth"), "TEST.AUG.FLIP", False, "TEST.AUG.ENABLED", True)
    flip = "`TEST.AUG.ENABLED (toy_val): False -> True`; `TEST.AUG.FLIP (toy_val): True -> False`"
    weights = "`MODEL.WEIGHTS (toy_val):  -> model_best.pth`"
    assert variants()["sgr"] == f"`MODEL.SGR.ENABLED: False -> True`; {weights}; {flip}"
    evaluated(runs[3])
    assert list(variants()) == ["fpn", "sgr", "sgr-2"]
    (runs[0] / "config.yaml").unlink()  # its evaluation is no run
    with pytest.raises(ValueError, match=r"fpn_seed0: no run"):
        find_runs([runs[0]])


def test_a_figure_that_a_run_lacks_is_counted(runs):
    third = write_folder(runs[2].parent / "seed2", seed=2, miou=50.0, car=60.0, sgr=True)
    write_json({"sem_seg": {"mIoU": 50.0}, "token_semantics": {"S_C": None}}, third / "evaluation/toy_val/metrics.json")
    text = to_markdown(compare(find_runs([*runs, third])))
    assert rows(text, "Metrics")["sgr"][:4] == ["3 of 3", "0 to 2 †", "52.00 ± 2.65", "0.500 ± 0.000 (2)"]


def test_another_length_batch_or_data_is_told_above_the_table(runs, tmp_path):
    def told():
        assert compare_runs.main([*map(str, runs), "--output", str(tmp_path / "out")]) == 0
        text = (tmp_path / "out/comparison.md").read_text()
        found = re.search(r"## Metrics\n\n\*\*(These runs differ in .*)\*\*\n", text)
        return found and found[1].partition("from that: ")[2]

    assert told() is None  # SGR itself is no such difference
    for run in runs[2:]:
        config = (run / "config.yaml").read_text()
        config = config.replace("MAX_ITER: 40\n", "MAX_ITER: 20\n").replace("  TEST: []", "  TEST:\n  - toy_val")
        (run / "config.yaml").write_text(config)
    data = '`DATASETS.TEST`: [] (fpn), ["toy_val"] (sgr)'
    assert told() == f"{data}; `SOLVER.MAX_ITER`: 40 (fpn), 20 (sgr)"
    assert "<strong>These runs differ" in (tmp_path / "out/comparison.html").read_text()


def test_variants_without_a_common_seed_are_told(runs, tmp_path):
    def told(*folders):
        assert compare_runs.main([*map(str, folders), "--output", str(tmp_path / "out")]) == 0
        found = re.search(r"\*\*(No difference .*)\*\*", (tmp_path / "out/comparison.md").read_text())
        return found and found[1]

    assert told(*runs) is None and told(runs[0], *runs[2:]) is None
    paired = "No difference to fpn (seeds 1) can be given, as it is paired by seed, for sgr (0)"
    assert told(runs[1], runs[2]) == paired


def test_same_names_are_numbered(runs, tmp_path):
    other = write_folder(tmp_path / "again/fpn_seed0", seed=0, miou=1.0, car=1.0, sgr=True)
    assert list(compare(find_runs([runs[0], other])).states) == ["fpn/seed0", "fpn-2/seed0"]


def test_wrong_command_lines(runs, tmp_path, capsys):
    twin = write_folder(tmp_path / "twin", seed=0, miou=1.0, car=1.0)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/config.yaml").write_text("[1]")
    write_json({"title": "x"}, tmp_path / "seed0.json")
    broken = write_folder(tmp_path / "broken", seed=9, miou=1.0, car=1.0, steps=2)
    for arguments, message in (
        ([tmp_path / "absent"], "absent: there is no such folder or file"),
        ([tmp_path / "nothing"], "nothing: no run. Name the OUTPUT_DIR of a training"),
        ([tmp_path / "odd"], "not the config of a run"),
        ([tmp_path / "seed0.json"], "it lacks config, metrics, seed, variant"),
        ([runs[0], twin], "the same settings and SEED 0; name one of them"),
        ([broken], "None of the runs has metrics"),
        ([*runs, "--metrics", "sem_seg/IoU"], "--metrics sem_seg/IoU: no run has it; there are toy_val/sem_seg/mIoU"),
    ):
        assert compare_runs.main([*map(str, arguments), "--output", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_code_of_before_a_key_did_is_not_its_default():
    """A result without the key, of code whose norm was LN, is another model than one of today's default."""
    before, now = complete({}), complete(flat(get_sgr_cfg()))
    assert before["MODEL.SGR.NORM"] == "LN" and now["MODEL.SGR.NORM"] == get_sgr_cfg().MODEL.SGR.NORM
    assert differences(before, now) and complete({"MODEL.SGR.NORM": "BN"})["MODEL.SGR.NORM"] == "BN"
