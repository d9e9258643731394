"""Ctrl-C in train_net.py: where the run was, in one line."""

import re

import pytest
from toy_processes import ENVIRONMENT, interrupted_train_net
from toy_runs import run

from sgr_d2.engine.refusals import TRACEBACK

LONG = ("SOLVER.MAX_ITER", 100_000, "DATASETS.TEST", "()")
AT = r"train_net\.py: Interrupted at iteration \d+\."


@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_ends_a_run_in_one_line(config_file, tmp_path, processes):
    options = (*LONG, "SOLVER.CHECKPOINT_PERIOD", 2)
    code, errors = interrupted_train_net(config_file, tmp_path, *options, line="model_0000003", processes=processes)
    assert code == 130 and "Traceback" not in errors, errors
    last = (tmp_path / "last_checkpoint").read_text()
    told = rf"^{AT} Last checkpoint: {re.escape(str(tmp_path / last))}; continue with the same command and --resume\.$"
    assert len(re.findall(told, errors, re.MULTILINE)) == 1, errors
    run(config_file, *LONG, "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", tmp_path)  # without --resume
    assert (tmp_path / "earlier_1" / last).is_file()


def test_ctrl_c_before_the_first_checkpoint(config_file, tmp_path):
    code, errors = interrupted_train_net(config_file, tmp_path, *LONG, line="Starting training")
    assert code == 130 and "Traceback" not in errors
    told = rf"^{AT} There is no checkpoint yet, so nothing is saved \(SOLVER.CHECKPOINT_PERIOD = 5000\)\.$"
    assert re.search(told, errors, re.MULTILINE)


def test_the_traceback_of_ctrl_c_is_there_on_request(config_file, tmp_path):
    environment = ENVIRONMENT | {TRACEBACK: "1"}
    _, errors = interrupted_train_net(config_file, tmp_path, *LONG, line="Starting training", environment=environment)
    assert "Traceback" in errors and "KeyboardInterrupt: Interrupted at iteration" in errors
