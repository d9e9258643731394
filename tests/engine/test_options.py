"""What is said of keys and values of config files and command lines that cannot be used."""

import re

import pytest

from sgr_d2.engine import load_config


def load(config_file, *opts):
    return load_config(str(config_file), list(opts))


def test_a_misspelt_key_is_named_with_its_file_and_its_neighbours(config_file):
    text = config_file.read_text().replace("NUM_TOKENS", "NUM_TOKNES")
    config_file.write_text(text)
    with pytest.raises(KeyError, match=r"scenes.yaml.*MODEL.SGR.NUM_TOKNES.*Did you mean MODEL.SGR.NUM_TOKENS"):
        load(config_file)


def test_a_misspelt_option_is_named(config_file):
    with pytest.raises(KeyError, match=r"command line.*MODEL.SGR.TOKENS_DIM.*MODEL.SGR.TOKEN_DIM"):
        load(config_file, "MODEL.SGR.TOKENS_DIM", "8")


def test_a_misspelt_section_is_named_also_if_it_is_empty(tmp_path):
    config = tmp_path / "mine.yaml"
    for text, meant in (("DATASETS: {FOLDER: {a: {}}}", "DATASETS.FOLDERS"), ("MODLE: {DEVICE: cpu}", "MODEL")):
        config.write_text(text)
        with pytest.raises(KeyError, match=rf"mine.yaml: there is no config key .* Did you mean {meant}[ ?]"):
            load_config(str(config))


def test_an_option_of_the_wrong_type_is_named(config_file):
    with pytest.raises(ValueError, match=r"command line.*NUM_TOKENS"):
        load(config_file, "MODEL.SGR.NUM_TOKENS", "many")


def test_a_list_is_asked_for_where_one_is_wanted(config_file):
    with pytest.raises(ValueError, match=r"DATASETS.TRAIN.*give a list; on a command line: KEY \"\('value',\)\""):
        load(config_file, "DATASETS.TRAIN", "scenes_train")


def test_flags_behind_options_are_named(config_file):
    for opts in (["SEED", "1", "--num-gpus", "0"], ["SEED", "1", "--eval-only", "MODEL.WEIGHTS", "x"]):
        with pytest.raises(ValueError, match=rf"{opts[2]} comes after KEY VALUE; put flags first"):
            load(config_file, *opts)


def test_an_option_without_value_is_named(config_file):
    with pytest.raises(ValueError, match=r"command line SEED: give options in pairs, KEY VALUE"):
        load(config_file, "SEED")


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("MODEL.SGR.ENABLED", "true", "write True or False"),
        ("SOLVER.MAX_ITER", "1e4", "give a whole number"),
        ("SOLVER.BASE_LR", "fast", "give a number"),
        ("MODEL.SEM_SEG_HEAD.NAME", "3", "give text"),
        ("INPUT.CROP.SIZE", "64", "give a list; on a command line: KEY"),
        ("TEST.SLIDING_WINDOW", "1", "it holds keys of its own"),
    ],
)
def test_a_value_of_a_wrong_type_is_told_what_to_be(config_file, key, value, wanted):
    given = "10000.0" if value == "1e4" else value
    with pytest.raises(ValueError, match=re.escape(f": {key} = {given}: {wanted}")):
        load(config_file, key, value)


@pytest.mark.parametrize(("section", "given"), [("TEST", "None"), ("TEST: 3", "3"), ("MODEL:\n  SGR", "None")])
def test_a_section_without_keys_is_named(tmp_path, section, given):
    config = tmp_path / "mine.yaml"
    config.write_text(f"{section}{'' if section.endswith('3') else ':'}\n")
    name = "MODEL.SGR" if "SGR" in section else "TEST"
    with pytest.raises(ValueError, match=rf"mine.yaml: {name} = {given}: it holds keys of its own"):
        load_config(str(config))


def test_a_key_that_is_there_twice_is_named_with_its_lines(config_file, tmp_path):
    """YAML itself keeps the last and drops the first."""
    config = tmp_path / "mine.yaml"
    config.write_text("SOLVER: {MAX_ITER: 7}\nSEED: 1\nSOLVER:\n  BASE_LR: 0.1\n")
    with pytest.raises(ValueError, match=r"mine.yaml: SOLVER is there twice, in lines 1 and 3, "):
        load_config(str(config))
    base = tmp_path / "base.yaml"
    config.rename(base)
    config.write_text("_BASE_: base.yaml\n")
    for opts in ([], ["IMPORTS", "[]"]):
        with pytest.raises(ValueError, match=r"base.yaml: SOLVER is there twice"):
            load_config(str(config), opts)
    base.write_text("DATASETS:\n  FOLDERS:\n    a: &a {CLASSES: [x]}\n    b: {<<: *a, SPLIT: s}\n    a: {}\n")
    with pytest.raises(ValueError, match=r"DATASETS.FOLDERS.a is there twice, in lines 3 and 5"):
        load_config(str(config))


def test_a_tuple_in_braces_is_told_to_be_a_list(tmp_path):
    config = tmp_path / "mine.yaml"
    for text in ('DATASETS: {TRAIN: ("a",), TEST: ("b",)}', "INPUT: {MIN_SIZE_TRAIN: (240, 320)}"):
        config.write_text(f"SEED: 1\n{text}\n")
        with pytest.raises(ValueError, match=r"mine.yaml, line 2: a tuple .* inside braces .* write a list") as told:
            load_config(str(config))
        assert str(told.value).count("mine.yaml") == 1
    config.write_text("INPUT:\n  MIN_SIZE_TRAIN: (240, 320)\n  CROP: {SIZE: [240, 320]}\n")
    cfg = load_config(str(config), ["DATASETS.TRAIN", ("shapes_train",)])
    assert cfg.INPUT.MIN_SIZE_TRAIN == (240, 320)


def test_whole_numbers_are_floats_where_the_key_is_one(config_file):
    cfg = load(config_file, "MODEL.SGR.COMPONENT_WEIGHT", "3", "SOLVER.BASE_LR", 1, "SOLVER.MAX_ITER", "7")
    assert [cfg.MODEL.SGR.COMPONENT_WEIGHT, cfg.SOLVER.BASE_LR] == [3.0, 1.0]
    assert type(cfg.SOLVER.MAX_ITER) is int
    with pytest.raises(ValueError, match=r"SOLVER.MAX_ITER = 7.5: give a whole number\."):
        load(config_file, "SOLVER.MAX_ITER", "7.5")
