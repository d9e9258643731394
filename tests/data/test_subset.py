import pytest

from sgr_d2.data.loader import build_train_loader
from sgr_d2.data.subset import choose_fraction

RECORDS = [{"file_name": str(i)} for i in range(37)]


def names(fraction: float, seed: int = 0) -> list[int]:
    return [int(record["file_name"]) for record in choose_fraction(RECORDS, fraction, seed)]


@pytest.mark.parametrize(("fraction", "count"), [(1, 37), (0.5, 19), (0.1, 4), (1e-6, 1), (14 / 37, 14)])
def test_count_rounds_up_and_the_order_stays(fraction, count):
    chosen = names(fraction)
    assert len(chosen) == count
    assert chosen == sorted(set(chosen))


def test_a_hair_of_rounding_is_no_image():
    assert 0.07 * 100 > 7
    assert len(choose_fraction([{}] * 100, 0.07, 0)) == 7


def test_smaller_shares_are_subsets_and_seeds_differ():
    shares = [set(names(fraction)) for fraction in (0.1, 0.25, 0.5, 1.0)]
    assert shares[0] < shares[1] < shares[2] < shares[3]
    assert names(0.25) == names(0.25)
    assert names(0.25) != names(0.25, seed=1)


def test_every_record_has_the_same_chance():
    counts = [0] * len(RECORDS)
    for seed in range(400):
        for index in names(0.25, seed):
            counts[index] += 1
    assert min(counts) > 70 and max(counts) < 150  # 400 * 10 / 37 = 108, standard deviation 9


@pytest.mark.parametrize("fraction", [0, -0.5, 1.01, float("nan")])
def test_shares_out_of_range_are_refused(fraction):
    with pytest.raises(ValueError, match=r"DATASETS\.TRAIN_FRACTION = .*: must be above 0 and at most 1"):
        choose_fraction(RECORDS, fraction, 0)


def test_no_records():
    assert choose_fraction([], 0.5, 0) == []


def test_the_loader_trains_on_the_share(folder_cfg, caplog):
    folder_cfg.DATASETS.TRAIN_FRACTION = 0.5
    with caplog.at_level("INFO", logger="sgr_d2.data.loader"):
        assert len(build_train_loader(folder_cfg).dataset) == 4
    assert "Training on 4 of 7 images" in caplog.text


def test_the_seed_of_the_run_decides_which_images(folder_cfg):
    folder_cfg.DATASETS.TRAIN_FRACTION = 0.3
    chosen = set()
    for folder_cfg.SEED in range(8):
        records = build_train_loader(folder_cfg).dataset.records
        chosen.add(tuple(record["image_id"] for record in records))
    assert len(chosen) > 2
