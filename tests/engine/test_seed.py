import pytest

from sgr_d2.config import get_sgr_cfg
from sgr_d2.engine.seed import with_seed, with_seed_of_run


@pytest.mark.parametrize(("seed", "expected"), [(0, 0), (5, 5), (-1, 9)])
def test_a_seed_that_is_given_is_that_of_the_run(tmp_path, seed, expected):
    cfg = get_sgr_cfg()
    cfg.SEED, cfg.OUTPUT_DIR = 9, str(tmp_path)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    cfg.SEED = seed
    assert expected == with_seed(with_seed_of_run(cfg)).SEED


@pytest.mark.parametrize("content", ["", "SEED: nine", "[1]", "MODEL: {}", "SEED: [", "\xff"])
def test_a_config_that_cannot_be_read_is_told(tmp_path, content, caplog):
    (tmp_path / "config.yaml").write_text(content, encoding="latin1")
    cfg = get_sgr_cfg()
    cfg.SEED, cfg.OUTPUT_DIR = -1, str(tmp_path)
    assert with_seed_of_run(cfg).SEED == -1
    assert f"{tmp_path}/config.yaml, which should hold the SEED of the run, cannot be read" in caplog.text


def test_a_seed_is_drawn_where_none_is_given(tmp_path):
    cfg = get_sgr_cfg()
    cfg.SEED, cfg.OUTPUT_DIR = -1, str(tmp_path)
    drawn = [with_seed(with_seed_of_run(cfg)).SEED for _ in range(2)]
    assert all(0 <= seed < 2**31 for seed in drawn) and drawn[0] != drawn[1] and cfg.SEED == -1
