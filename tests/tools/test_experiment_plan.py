"""Plans of tools/experiments: reading, wrong files, settings of a run and their differences."""

import re
from argparse import Namespace
from pathlib import Path

import pytest
import yaml
from experiments.plan import ROOT, read_plan
from experiments.records import Folders, folders_of
from experiments.resolved import BEFORE_THE_KEY, NOT_COMPARED, differences, flat, hash_of, resolve, settings_of

from sgr_d2.engine import setup

CONFIG = "configs/shapes/fpn.yaml"
PLANS = sorted((ROOT / "experiments").glob("*.yaml"))


def plan_data(**changes) -> dict:
    data = {
        "config": CONFIG,
        "opts": {"SOLVER.MAX_ITER": 3, "SOLVER.BASE_LR": 0.5},
        "seeds": [0, 7],
        "baseline": "base",
        "metrics": ["sem_seg/mIoU"],
        "variants": [
            {"name": "base"},
            {"name": "more", "config": "configs/shapes/fpn_sgr.yaml", "opts": {"SOLVER.BASE_LR": 1, "X": [1, 2]}},
        ],
    }
    return {key: value for key, value in (data | changes).items() if value is not None}


@pytest.fixture
def write(tmp_path):
    def write_plan(**changes) -> Path:
        path = tmp_path / "toy.yaml"
        path.write_text(yaml.safe_dump(plan_data(**changes)))
        return path

    return write_plan


def test_variants_add_to_what_is_common(write):
    plan = read_plan(write(sweeps={"k": {"label": "K", "series": {"SGR": {"more": 4, "base": 1}}}}))
    assert (plan.name, plan.title, plan.num_gpus) == ("toy", "toy", "auto")
    assert [run.name for run in plan.runs()] == ["base/seed0", "base/seed7", "more/seed0", "more/seed7"]
    more = plan.runs()[3]
    assert more.opts == {"SOLVER.MAX_ITER": 3, "SOLVER.BASE_LR": 1, "X": [1, 2]}
    expected = ["SOLVER.MAX_ITER", "3", "SOLVER.BASE_LR", "1", "X", "[1, 2]", "SEED", "7", "OUTPUT_DIR", "out"]
    assert sorted(more.options(OUTPUT_DIR="out")) == sorted(expected)
    assert more.options(OUTPUT_DIR="out")[-4:] == expected[-4:]
    assert Path(more.config).read_text() == (ROOT / "configs/shapes/fpn_sgr.yaml").read_text()
    assert plan.sweeps[0].places == [1, 4]
    assert [variant.against for variant in plan.variants] == [[], ["base"]]


def test_the_baseline_is_the_one_that_is_named(write):
    plan = read_plan(write(baseline="more"))
    assert plan.baseline == "more" and [variant.against for variant in plan.variants] == [["more"], []]


def test_baseline_and_metrics_have_defaults(write):
    plan = read_plan(write(baseline=None, metrics=None))
    assert plan.baseline == "base" and [variant.against for variant in plan.variants] == [[], ["base"]]
    tokens = [f"token_semantics/{name}" for name in ("S_C", "S_I", "D_C", "D_I")]
    assert plan.metrics == ["sem_seg/mIoU", "sem_seg/pACC", *tokens]


def test_results_of_an_own_plan_do_not_go_to_ours(tmp_path):
    ours, own = ROOT / "experiments/main.yaml", tmp_path / "main.yaml"
    assert folders_of(ours) == Folders(Path("results/main"), Path("output/experiments/main"))
    expected = Folders(Path("output/experiments_results/main"), Path("output/experiments_work/main"))
    assert folders_of(own) == folders_of(tmp_path / "experiments/main.yaml") == expected
    assert folders_of(ours, Path("x/mine")) == folders_of(own, Path("x/mine"))
    assert folders_of(own, Path("x/mine")) == Folders(Path("x/mine"), Path("output/experiments/mine"))
    assert folders_of(own, work=Path("w")) == Folders(expected.results, Path("w"))


def test_the_plan_of_the_documentation(tmp_path):
    page = (ROOT / "docs/experiments.md").read_text()
    (block,) = re.findall(r"((?:    .*\n)*    variants:\n(?:    .*\n)+)", page)
    (tmp_path / "own.yaml").write_text(re.sub(r"^    ", "", block, flags=re.M))
    plan = read_plan(tmp_path / "own.yaml")
    hashes = {hash_of(resolve(run)) for run in plan.runs()}
    assert plan.baseline == "fpn" and len(hashes) == len(plan.runs()) == 8 and len(block.splitlines()) == 10


def test_a_config_of_the_working_directory_comes_before_ours(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / CONFIG).parent.mkdir(parents=True)
    (tmp_path / CONFIG).write_text("mine")
    base, *_, more = read_plan(write()).runs()
    assert Path(base.config).read_text() == "mine"
    assert Path(more.config) == ROOT / "configs/shapes/fpn_sgr.yaml"


def test_only_chooses_by_variant_or_run(write):
    plan = read_plan(write())
    assert [run.name for run in plan.runs("more")] == ["more/seed0", "more/seed7"]
    assert [run.name for run in plan.runs("*/seed7")] == ["base/seed7", "more/seed7"]
    with pytest.raises(ValueError, match=r"--only x: no run matches; there are base/seed0, "):
        plan.runs("x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": None}, r"toy\.yaml: the plan: keys missing \['seeds'\]"),
        ({"sead": [1]}, r"unknown \['sead'\]; known are \['baseline'.*'variants'\]\. Did you mean seeds\?$"),
        ({"variants": []}, r"variants: there are none"),
        ({"variants": {"base": {}}}, r"variants: \{'base': \{\}\} must be a list like"),
        ({"variants": ["x"], "baseline": None}, r"variants: 'x' must be a table"),
        ({"metrics": []}, r"metrics: \[\] must be a list"),
        ({"variants": [{"name": "a b"}]}, r"the name 'a b' must consist of"),
        ({"variants": [{"name": "../base"}]}, r"the name '../base' must consist of"),
        ({"variants": [{"name": "base"}, {"name": "Base"}]}, r"a name occurs twice"),
        ({"variants": ["base"]}, r"variants: 'base' must be a table"),
        ({"baseline": "none"}, r"baseline: 'none' is not one of the variants \['base', 'more'\]"),
        ({"seeds": [1, 1]}, r"variant base: seeds \[1, 1\] must be different numbers"),
        ({"seeds": [True]}, r"must be different numbers"),
        ({"seeds": []}, r"must be different numbers"),
        ({"metrics": "sem_seg/mIoU"}, r"metrics: 'sem_seg/mIoU' must be a list"),
        ({"metrics": ["mIoU"]}, r"must be a list like \[sem_seg/mIoU\]"),
        ({"num_gpus": 8}, r"num_gpus: 8 must be 0, 1 or auto"),
        ({"opts": {"SEED": 3}}, r"opts must not hold SEED: seeds belong under"),
        ({"opts": {"OUTPUT_DIR": "x"}}, r"opts must not hold OUTPUT_DIR: the runner gives"),
        ({"opts": ["A", 1]}, r"opts must be a table of KEY: value"),
        ({"config": None}, r"variant base: neither the variant nor the plan names a config"),
        ({"variants": [{"name": "base", "against": ["x"]}]}, r"variant base: against names unknown variants \['x'\]"),
        ({"variants": [{"name": "base", "against": "x"}]}, r"variant base: against 'x' must be a list"),
        ({"sweeps": {"k": {"label": "K", "series": {"": {"x": 1}}}}}, r"sweep k: unknown variants \['x'\]"),
        ({"sweeps": {"k": {"label": "K", "series": {"": {"base": "1"}}}}}, r"sweep k: a series must be a table"),
        ({"sweeps": {"k": {"label": "K", "series": []}}}, r"sweep k: series must be a table of tables"),
    ],
)
def test_wrong_plans_are_refused(write, changes, message):
    with pytest.raises(ValueError, match=message):
        read_plan(write(**changes))


def test_missing_files_are_named(write, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.yaml: no such plan"):
        read_plan(tmp_path / "none.yaml")
    with pytest.raises(FileNotFoundError, match=r"toy\.yaml: config configs/none\.yaml: no such file"):
        read_plan(write(config="configs/none.yaml"))
    (tmp_path / "twice.yaml").write_text("seeds: [1]\nseeds: [2]\n")
    with pytest.raises(ValueError, match=r"twice\.yaml: seeds is there twice, in lines 1 and 2"):
        read_plan(tmp_path / "twice.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"bad\.yaml: not a YAML file"):
        read_plan(tmp_path / "bad.yaml")


def test_settings_of_a_run_hold_what_differs_from_detectron2(write):
    base, _, _, more = read_plan(write(variants=[{"name": "base"}, {"name": "more", "opts": {"SEED_": 1}}])).runs()
    settings = resolve(base)
    assert settings["SOLVER.MAX_ITER"] == 3 and settings["MODEL.SGR.NUM_TOKENS"] > 0
    assert settings["DATASETS.TRAIN"] == ["shapes_train"]
    assert "SOLVER.MOMENTUM" not in settings  # Detectron2's, and as it is there
    assert not NOT_COMPARED & set(settings)
    assert hash_of(settings) == hash_of(dict(reversed(settings.items())))
    assert hash_of(settings) != hash_of(settings | {"SOLVER.MAX_ITER": 4})
    with pytest.raises(KeyError, match=r"more/seed7: .*no config key SEED_"):
        resolve(more)


def test_settings_are_those_that_a_run_trains_with(write, tmp_path):
    """Of a recipe for eight processes: batch, rate, schedule, norms and precision of the one that trains, on a CPU."""
    for name in ("images/x.png", "labels/x.png"):  # looked for, not read
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    images, labels = str(tmp_path / "images"), str(tmp_path / "labels")
    folders = {"blank": {"IMAGE_DIR": images, "LABEL_DIR": labels, "CLASSES": ["a", "b"]}}
    recipe = {
        "VERSION": 2,
        "_BASE_": str(ROOT / CONFIG),
        "OUTPUT_DIR": str(tmp_path / "output"),
        "DATASETS": {"FOLDERS": folders, "TRAIN": ["blank"], "TEST": ["blank"]},
        "MODEL": {"FPN": {"NORM": "SyncBN"}},
        "SOLVER": {"REFERENCE_WORLD_SIZE": 8, "IMS_PER_BATCH": 16, "BASE_LR": 0.016, "AMP": {"ENABLED": True}},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    plan = write(config=str(tmp_path / "recipe.yaml"), opts={}, variants=[{"name": "base"}])
    run = read_plan(plan).runs()[0]
    settings = resolve(run, cpu=True)
    assert settings["SOLVER.IMS_PER_BATCH"] == 2 and settings["SOLVER.BASE_LR"] == pytest.approx(0.002)
    assert settings["MODEL.FPN.NORM"] == "BN" and "SOLVER.AMP.ENABLED" not in settings
    trained = setup(Namespace(config_file=run.config, opts=run.options(), eval_only=True, resume=False, num_gpus=0))
    assert settings == settings_of(flat(trained))


def test_differences_name_key_and_both_values(write):
    made = resolve(read_plan(write()).runs()[0])
    assert differences(made, dict(made)) == []
    wanted = made | {"SOLVER.MAX_ITER": 9, "SOLVER.MOMENTUM": 0.5}
    assert differences(made, wanted) == ["SOLVER.MAX_ITER: 3 -> 9", "SOLVER.MOMENTUM: 0.9 -> 0.5"]
    assert differences(wanted, made) == ["SOLVER.MAX_ITER: 9 -> 3", "SOLVER.MOMENTUM: 0.5 -> 0.9"]


def test_a_key_that_came_later_counts_only_where_it_is_used(write):
    now = resolve(read_plan(write()).runs()[0]) | {"MODEL.SGR.ENABLED": True}
    made = {key: value for key, value in now.items() if key != "MODEL.SGR.NUM_TOKENS"}
    default = now["MODEL.SGR.NUM_TOKENS"]
    assert differences(made, now) == []
    assert differences(made, now | {"MODEL.SGR.NUM_TOKENS": 5}) == [f"MODEL.SGR.NUM_TOKENS: {default} -> 5"]
    assert differences(made | {"MODEL.OLD": 1}, now) == ["MODEL.OLD: 1 -> (no such key)"]


def test_a_key_that_came_later_with_another_default_stands_for_what_was_done_before(write):
    now = resolve(read_plan(write()).runs()[0]) | {"MODEL.SGR.ENABLED": True}
    made = {key: value for key, value in now.items() if key not in BEFORE_THE_KEY}
    assert differences(made, now | BEFORE_THE_KEY) == []
    assert differences(made, now | BEFORE_THE_KEY | {"MODEL.SGR.NORM": "BN"}) == ["MODEL.SGR.NORM: LN -> BN"]


def test_keys_of_sgr_do_not_count_between_models_without_it(write):
    made = resolve(read_plan(write()).runs()[0]) | {"MODEL.SGR.ENABLED": False}
    assert differences(made, made | {"MODEL.SGR.NUM_TOKENS": 5, "INPUT.COMPONENTS.MIN_AREA": 1}) == []
    wanted = made | {"MODEL.SGR.ENABLED": True}
    assert differences(made, wanted | {"MODEL.SGR.TOKEN_DIM": 4})[0] == "MODEL.SGR.ENABLED: False -> True"
    assert len(differences(wanted, wanted | {"MODEL.SGR.NUM_TOKENS": 5})) == 1


def test_keys_of_sgr_that_peers_read_count_between_peers(write):
    made = resolve(read_plan(write()).runs()[0]) | {"MODEL.META_ARCHITECTURE": "PeerSegmentor"}
    changed = {"MODEL.SGR.IN_FEATURES": ["p4"], "MODEL.SGR.POSITION": False, "MODEL.SGR.NORM": "LN"}
    changed["MODEL.SGR.FUSION_RELATIVE"] = False
    assert [line.partition(":")[0] for line in differences(made, made | changed)] == sorted(changed)
    assert differences(made, made | {"MODEL.SGR.NUM_TOKENS": 5, "INPUT.COMPONENTS.MIN_AREA": 1}) == []


def test_a_config_that_cannot_be_read_is_named_with_its_run(write, tmp_path):
    (tmp_path / "broken.yaml").write_bytes(b"MODEL: \xff")
    plan = read_plan(write(config=str(tmp_path / "broken.yaml"), variants=[{"name": "base"}]))
    with pytest.raises(ValueError, match=r"^base/seed0: .*broken.yaml: .*codec can't decode"):
        resolve(plan.runs()[0])


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.name)
def test_our_plans_can_be_resolved_and_no_two_runs_are_the_same(path):
    plan = read_plan(path)
    settings = {run.name: resolve(run) for run in plan.runs()}
    hashes = [hash_of(config) for config in settings.values()]
    assert len(set(hashes)) == len(hashes)
