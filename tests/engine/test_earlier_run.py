import pytest

from sgr_d2.engine.earlier_run import check_resume


def test_of_earlier_runs_the_one_of_the_highest_number_is_meant(tmp_path):
    for name in ("earlier_1", "earlier_9", "earlier_10", "earlier_mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "last_checkpoint").touch()
    (tmp_path / "earlier_11").mkdir()
    with pytest.raises(ValueError, match=r"holds no checkpoint, but .*earlier_10 does"):
        check_resume(tmp_path)
    (tmp_path / "last_checkpoint").touch()
    check_resume(tmp_path)
