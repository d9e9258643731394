"""Tables, plots and the command line of tools/run_experiment.py on results written by hand."""

import re
import subprocess
from contextlib import suppress

import matplotlib.image
import pytest
import run_experiment
import yaml
from experiments.plan import read_plan
from experiments.plots import _draw_line, draw, draw_dots, draw_mean_and_interval, lines_of
from experiments.records import Folders, read_json
from experiments.resolved import resolve
from experiments.summary import collect, span, to_markdown
from matplotlib.figure import Figure

from sgr_d2.files import write_json

PLAN = {
    "title": "A toy",
    "config": "configs/shapes/fpn.yaml",
    "seeds": [0, 1, 2],
    "baseline": "base",
    "metrics": ["sem_seg/mIoU", "token_semantics/S_C", "shapes_val/sem_seg/pACC"],
    "variants": [
        {"name": "base"},
        {"name": "better", "opts": {"MODEL.SGR.NUM_TOKENS": 8}, "note": "adds two"},
        {"name": "absent", "opts": {"MODEL.SGR.NUM_TOKENS": 16}, "seeds": [0, 2], "against": ["base", "better"]},
        {"name": "broken", "opts": {"MODEL.SGR.NUM_TOKENS": 32}, "seeds": [0, 2], "against": ["better", "absent"]},
    ],
    "sweeps": {"k": {"label": "K", "log": True, "series": {"SGR": {"better": 8, "absent": 16}}}},
    "profiles": {"p": {"label": "x", "value": "y", "metrics": {"sem_seg/mIoU": 1, "shapes_val/sem_seg/pACC": 2}}},
}
# mIoU of seeds 0, 1, 2
VALUES = {"base": (50.0, 52.0, 54.0), "better": (51.0, 54.0, 57.0)}


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(PLAN))
    return read_plan(path)


@pytest.fixture
def folders(tmp_path):
    return Folders(tmp_path / "results", tmp_path / "work")


@pytest.fixture
def write(plan, folders):
    """Write a result of every run in ``VALUES``; returns the settings of all runs."""
    configs = {run.name: resolve(run) for run in plan.runs()}
    for run in plan.runs():
        if run.variant in VALUES:
            tokens = {"token_semantics": {"S_C": 0.5}} if run.variant == "better" else {}
            sem_seg = {"mIoU": VALUES[run.variant][run.seed], "pACC": 90.0 + run.seed}
            result = {
                "metrics": {"shapes_val": {"sem_seg": sem_seg} | tokens},
                "head_loss": {"base": 0.5, "better": 0.4}[run.variant] + 0.1 * run.seed,
                "seconds": 100.0 + run.seed,
                "seconds_per_step": 0.5,
                "peak_memory_mib": 1000,
                "gpu_memory_mib": None,
                "parameters": 3_900_000,
                "environment": {"device": "toy", "instructions": "AVX2", "threads": 1, "torch": "2", "revision": "abc"},
                "config": configs[run.name],
            }
            write_json(result, folders.result(run))
        elif run.name == "broken/seed0":
            write_json({"exit_code": 1, "log": ["boom"]}, folders.failure(run))
    return configs


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """{first cell: the other cells} of the table below a heading."""
    part = text.split(f"## {heading}")[1].split("\n## ")[0]
    table = [[c.strip() for c in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in table}


def test_tables_by_hand(plan, folders, write):
    text = to_markdown(collect(plan, folders, write))
    assert text.startswith(
        "# A toy\n\n6 of 10 runs are done.\n* not begun: `absent` (seeds 0, 2), `broken` (seed 2)\n"
        "* `broken/seed0`: failed (exit code 1: boom)\n"
    )
    metrics = rows(text, "Metrics")
    assert metrics["base"] == ["3 of 3", "52.00 ± 2.00", "n/a", "91.00 ± 1.00"]
    assert metrics["better"] == ["3 of 3", "54.00 ± 3.00", "0.500 ± 0.000", "91.00 ± 1.00"]
    assert metrics["broken"] == ["0 of 2", "missing", "missing", "missing"]
    # differences 1, 2, 3: mean 2, sd 1, half width 4.3027 / sqrt(3) = 2.484
    assert rows(text, "Differences")["better"][:3] == ["`base`", "+2.000 [-0.484, +4.484] (3)", "n/a"]
    # 0.4 / 0.5, 0.5 / 0.6 and 0.6 / 0.7: -20.000, -16.667 and -14.286 %, mean -16.984, sd 2.870, half width 7.130
    assert rows(text, "Differences")["better"][4:] == ["3 of 3", "-16.984 [-24.114, -9.854] (3)"]
    assert "| `broken` | `better` | missing |" in re.sub(" +", " ", text)
    assert rows(text, "Costs")["base"] == ["0.6000", "0.500", "101", "1,000", "3,900,000"]
    assert rows(text, "Costs")["broken"] == ["missing"] * 5
    runs = rows(text, "sem_seg/mIoU, every run")
    assert runs == {"base": ["50.00", "52.00", "54.00"], "better": ["51.00", "54.00", "57.00"]} | {
        "broken": ["failed", "", "not begun"]
    }
    assert text.count("`absent") == 1  # no rows of what was not begun: only the list of these runs
    assert "Made with: device toy; instructions AVX2; threads 1; torch 2; revision abc." in text
    assert "* `better`: adds two" in text


def test_a_cell_tells_how_many_runs_it_is_of_where_not_all_that_are_done_have_a_figure(plan, folders, write):
    _, second, third = (folders.result(run) for run in plan.runs() if run.variant == "better")
    result = read_json(second)
    del result["metrics"]["shapes_val"]["token_semantics"]
    write_json(result, second)
    third.unlink()
    text = to_markdown(collect(plan, folders, write))
    assert rows(text, "Metrics")["better"] == ["2 of 3", "0, 1 †", "52.50 ± 2.12", "0.500 (1)", "90.50 ± 0.71"]
    assert rows(text, "Differences")["better"][1].endswith(" (2)")


def test_means_over_other_seeds_than_the_baselines_are_marked(plan, folders, write, tmp_path):
    same = to_markdown(collect(plan, folders, write))
    assert "seeds |" not in same and "†" not in same
    for run in plan.runs():
        if run.name == "better/seed1":
            folders.result(run).unlink()
    collected = collect(plan, folders, write)
    assert collected.other_seeds() == ["better"]
    text = to_markdown(collected)
    assert "**†: other seeds than those of `base`: compare the paired differences below.**" in text
    metrics = rows(text, "Metrics")
    assert metrics["base"][:3] == ["3 of 3", "0 to 2", "52.00 ± 2.00"]
    assert metrics["better"][:3] == ["2 of 3", "0, 2 †", "54.00 ± 4.24"]
    assert metrics["broken"][:3] == ["0 of 2", "", "missing"]
    draw_dots(collected, "sem_seg/mIoU", tmp_path / "dots.svg")
    assert (tmp_path / "dots.svg").read_text().count("†") == 2


def test_a_metric_that_no_run_has_is_told_with_the_one_that_is_meant(folders, write, tmp_path):
    def told(*metrics, results=True) -> list[str]:
        (tmp_path / "other.yaml").write_text(yaml.safe_dump(dict(PLAN, metrics=list(metrics))))
        collected = collect(
            read_plan(tmp_path / "other.yaml"), folders if results else Folders(tmp_path, tmp_path), write
        )
        return re.findall(r"^\*\*(No finished run .*)\*\*$", to_markdown(collected), re.M)

    assert told("sem_seg/pAC", "segm/AP", "token_semantics/S_E") == [
        "No finished run has sem_seg/pAC. Did you mean sem_seg/pACC?",
        "No finished run has segm/AP.",
        "No finished run has token_semantics/S_E. Did you mean token_semantics/S_C?",
    ]
    assert told(*PLAN["metrics"]) == told("segm/AP", results=False) == []
    for file in folders.results.glob("better/*.json"):  # only baselines are left, which have no tokens
        file.unlink()
    assert told("token_semantics/S_C") == []


def test_results_of_other_settings_are_not_tabulated(plan, folders, write):
    settings = {name: config | {"SOLVER.MAX_ITER": 7} for name, config in write.items() if name.startswith("better")}
    collected = collect(plan, folders, write | settings)
    text = to_markdown(collected)
    assert rows(text, "Metrics")["better"][0] == "0 of 3"
    assert "* `better/seed0`: changed (SOLVER.MAX_ITER: 400 -> 7)" in text
    assert rows(text, "sem_seg/mIoU, every run")["better"] == ["changed"] * 3


def test_pictures_are_drawn_of_what_is_there(plan, folders, write, tmp_path):
    names = draw(collect(plan, folders, write), tmp_path / "new")
    assert names == ["sem_seg_mIoU.png", "sweep_k.png", "profile_p.png"]
    for name in names:
        picture = matplotlib.image.imread(tmp_path / "new" / name)
        assert picture.shape[1] > 500 and picture[..., :3].std() > 0.02
    empty = collect(plan, Folders(tmp_path / "none", tmp_path / "none"), write)
    assert draw(empty, tmp_path / "empty") == []
    assert "0 of 10 runs are done" in to_markdown(empty)


def test_intervals_and_lines_lie_at_their_figures():
    axes = Figure().subplots()
    draw_mean_and_interval(axes, 3.0, [2.0, 4.0, 6.0])
    interval, mean = axes.lines
    assert list(interval.get_xdata()) == pytest.approx([4 - 4.9683, 4 + 4.9683], abs=1e-4)  # as for the table
    assert (list(mean.get_xdata()), list(mean.get_ydata())) == ([4.0], [3.0])
    axes = Figure().subplots()
    _draw_line(axes, [(32, [5.0, 7.0]), (8, [1.0]), (16, [])], "red", "SGR")
    assert (list(axes.lines[-1].get_xdata()), list(axes.lines[-1].get_ydata())) == ([8, 32], [1.0, 6.0])


def test_profile_shows_the_variants_that_it_names_and_that_have_results(tmp_path, folders, write):
    def lines(**extra) -> dict[str, str]:
        path = tmp_path / "profile.yaml"
        path.write_text(yaml.safe_dump(dict(PLAN, profiles={"p": PLAN["profiles"]["p"] | extra})))
        return lines_of(collect(read_plan(path), folders, write), read_plan(path).profiles[0])

    assert lines() == {"base": "base", "better": "better"}
    assert lines(variants={"better": "the new one", "absent": "never run"}) == {"better": "the new one"}
    with pytest.raises(ValueError, match="profile p: there is no variant 'beter'"):
        lines(variants={"beter": "x"})
    with pytest.raises(ValueError, match="profile p: variants must be a table of variant: name in the picture"):
        lines(variants=["better"])


def test_command_line(folders, write, tmp_path, capsys):
    arguments = [str(tmp_path / "toy.yaml"), "--output", str(folders.results), "--work", str(folders.work)]
    assert run_experiment.main([*arguments, "--list", "--only", "*/seed0"]) == 0
    listed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert listed[:3] == [["base/seed0", "done"], ["better/seed0", "done"], ["absent/seed0", "not", "begun"]]
    assert listed[3] == ["broken/seed0", "failed", "exit", "code", "1:", "boom"]
    assert run_experiment.main([*arguments, "--summary"]) == 0
    assert capsys.readouterr().out.strip() == (folders.results / "summary.md").read_text().strip()
    # nothing to do: no run is begun
    assert run_experiment.main([*arguments, "--only", "b[ae]*"]) == 0
    assert "begin" not in capsys.readouterr().err


def test_wrong_command_lines(folders, write, tmp_path, capsys):
    arguments = [str(tmp_path / "toy.yaml"), "--output", str(folders.results), "--work", str(folders.work)]
    changed = dict(PLAN, opts={"SOLVER.MAX_ITER": 5})
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(changed))
    unknown = dict(PLAN, opts={"SOLVER.MAX_ITERS": 5})
    (tmp_path / "unknown.yaml").write_text(yaml.safe_dump(unknown))
    misspelt = dict(PLAN, metrics=["sem_seg/mIou"])
    (tmp_path / "misspelt.yaml").write_text(yaml.safe_dump(misspelt))
    profiles = {"p": PLAN["profiles"]["p"] | {"metrics": {"shapes_val/sem_seg/IoU-dsik": 1}}}
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(dict(PLAN, profiles=profiles)))
    for command, message in (
        ([*arguments, "--workers", "0"], "0 is not a positive number"),
        ([*arguments, "--only", "nothing"], "--only nothing: no run matches"),
        ([str(tmp_path / "none.yaml")], "none.yaml: no such plan"),
        ([str(tmp_path / "changed.yaml"), *arguments[1:]], "base/seed0: SOLVER.MAX_ITER: 400 -> 5"),
        ([str(tmp_path / "unknown.yaml"), *arguments[1:]], "Did you mean SOLVER.MAX_ITER"),
        ([str(tmp_path / "misspelt.yaml"), "--list"], "sem_seg/mIou is not measured. Did you mean sem_seg/mIoU?"),
        (
            [str(tmp_path / "profile.yaml"), "--list"],
            "IoU-dsik is not measured. Did you mean shapes_val/sem_seg/IoU-disk?",
        ),
    ):
        with pytest.raises(SystemExit) as exit_info:
            run_experiment.main(command)
        assert exit_info.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_real_training_is_interrupted_and_goes_on(tmp_path, monkeypatch):
    """train_net.py itself on eight generated scenes: the second attempt begins where the first one was ended."""
    from experiments.job import Job, Launch
    from experiments.records import take_lock
    from experiments.runner import Runner

    data = {
        "config": "configs/shapes/fpn_sgr.yaml",
        "opts": {
            "MODEL.TIMM.WEIGHTS": "",
            "SOLVER.MAX_ITER": 8,
            "SOLVER.IMS_PER_BATCH": 2,
            "SOLVER.CHECKPOINT_PERIOD": 2,
            "DATASETS.TRAIN_FRACTION": 0.02,
            "TEST.NUM_PICTURES": 0,
        },
        "seeds": [3],
        "baseline": "sgr",
        "metrics": ["sem_seg/mIoU"],
        "variants": [{"name": "sgr"}],
    }
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    (tmp_path / "real.yaml").write_text(yaml.safe_dump(data))
    run = read_plan(tmp_path / "real.yaml").runs()[0]
    folders = Folders(tmp_path / "results", tmp_path / "work")
    launch = Launch(num_gpus=0, metrics=["sem_seg/mIoU"], keep=True)
    config = resolve(run)
    job = Job(run, config, folders, launch, take_lock(folders, run))
    while job.poll() is None and not (folders.output(run) / "last_checkpoint").exists():
        with suppress(subprocess.TimeoutExpired):
            job.process.wait(0.05)
    job.end()
    runner = Runner(folders, launch, say=lambda text: None)
    assert runner.make([run], {run.name: config}), runner.failed
    log = (folders.output(run) / "stdout.txt").read_text()
    starts = [int(number) for number in re.findall(r"Starting training from iteration (\d+)", log)]
    assert starts[0] == 0 and starts[1] >= 2
    collected = collect(read_plan(tmp_path / "real.yaml"), folders, {run.name: config})
    (result,) = collected.results.values()
    assert 0 <= result["metrics"]["shapes_val"]["sem_seg"]["mIoU"] <= 100
    assert 3.5e6 < result["parameters"] < 6e6 and result["attempts"] == 2
    assert result["peak_memory_mib"] > 200


@pytest.mark.parametrize(
    ("seeds", "text"),
    [([], ""), ([3], "3"), ([0, 1], "0, 1"), ([0, 1, 2, 3], "0 to 3"), ([0, 1, 2, 5, 8, 9], "0 to 2, 5, 8, 9")],
)
def test_seeds_in_words(seeds, text):
    assert span(seeds) == text
