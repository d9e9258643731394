"""Runs of tools/experiments: real processes, of a small program in place of training."""

import json
import os
import re
import signal
import sys
from dataclasses import replace

import pytest
import torch
from experiments.job import Job, Launch, last_lines, visible_gpus
from experiments.plan import Run
from experiments.records import NOT_BEGUN, Folders, is_locked, read_json, state_of, take_lock
from experiments.remaining import Remaining, duration
from experiments.runner import Runner

from sgr_d2.files import write_json

# Does what its option MODE says; "hang" waits for a signal at the first attempt and works at the second.
PROGRAM = """
import json, os, pathlib, signal, sys
pairs = [word for word in sys.argv[sys.argv.index("--num-gpus") + 2:] if word != "--resume"]
options = dict(zip(pairs[::2], pairs[1::2]))
output = pathlib.Path(options["OUTPUT_DIR"])
(output / "resumed.txt").write_text(str("--resume" in sys.argv))
if options["MODE"] == "fail":
    print("\\x1b[31mBad\\x1b[0m weather")
    sys.exit(3)
if options["MODE"] == "hang" and json.loads((output / "run.json").read_text())["attempts"] == 1:
    signal.pause()
rows = [{"iteration": i, "time": 0.25 if i else 2.0, "total_loss": 1.0} for i in range(4)]
rows += [{"iteration": i, "sem_seg/mIoU": value} for i, value in ((1, 5.0), (2, float("nan")), (4, 9.0))]
(output / "metrics.json").write_text("".join(json.dumps(row) + "\\n" for row in rows) + '{"iter')
(output / "log.txt").write_text("iter: 1 max_mem: 1250M x\\niter: 2 max_mem: 120M")
(output / "last_checkpoint").write_text("model_final.pth")
(output / "gpu.txt").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
if options["MODE"] != "empty":
    folder = output / "evaluation" / "toy_val"
    folder.mkdir(parents=True, exist_ok=True)
    value = float(options["SEED"]) + float(os.environ["OMP_NUM_THREADS"]) / 10
    (folder / "metrics.json").write_text(json.dumps({"sem_seg": {"mIoU": value, "pACC": None}}))
if options["MODE"] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def launch(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    return Launch(num_gpus=0, metrics=["sem_seg/mIoU"], threads=2, command=(sys.executable, str(program)))


@pytest.fixture
def folders(tmp_path):
    return Folders(tmp_path / "results", tmp_path / "work")


def run_of(mode: str, seed: int = 0) -> Run:
    return Run(mode, seed, "configs/toy.yaml", {"MODE": mode})


def configs_of(runs, **more):
    return {run.name: {"SEED": run.seed, "MODE": run.variant} | more for run in runs}


def make(folders, launch, runs, say=lambda text: None, configs=None, **options) -> tuple[Runner, bool]:
    runner = Runner(folders, launch, say=say, **options)
    return runner, runner.make(runs, configs or configs_of(runs))


def begin(folders, launch, run, config) -> Job:
    return Job(run, config, folders, launch, take_lock(folders, run))


def wait(job: Job) -> None:
    """Until the process has ended; its status stays for the job to collect."""
    os.waitid(os.P_PID, job.process.pid, os.WEXITED | os.WNOWAIT)


def test_results_of_several_runs_at_a_time(folders, launch):
    runs = [run_of("fine", seed) for seed in range(3)]
    said = []
    _, fine = make(folders, launch, runs, said.append, workers=2)
    assert fine
    assert [read_json(folders.result(run))["metrics"]["toy_val"]["sem_seg"]["mIoU"] for run in runs] == [0.2, 1.2, 2.2]
    result = read_json(folders.result(runs[1]))
    assert (result["variant"], result["seed"], result["attempts"]) == ("fine", 1, 1)
    assert result["seconds_per_step"] == 0.25 and result["seconds"] > 0
    assert 4 < result["peak_memory_mib"] < 4096  # of Python without any package, or of this process
    assert result["gpu_memory_mib"] == 1250
    assert result["curve"] == [[2, 5.0], [4, 9.0]]
    assert result["environment"]["threads"] == 2 and result["environment"]["instructions"]
    assert str(folders.work) not in json.dumps(result)
    assert sum(text.startswith("done") for text in said) == 3
    # where to look while a run is made, and how long the rest will take
    assert f"begin fine/seed0 (1 of 3): log {folders.output(runs[0]) / 'stdout.txt'}" in said
    rest = [re.search(r"; (\d) more: about \d+ s$", text) for text in said if text.startswith("done")]
    assert rest[0] and rest[0][1] == "2" and rest[-1] is None
    assert not (folders.output(runs[0]) / "last_checkpoint").exists()


def test_the_rest_counts_what_is_to_be_made_here(folders, launch):
    runs = [run_of("fine", seed) for seed in range(4)]
    make(folders, launch, [runs[1]])
    others = take_lock(folders, runs[2])
    said = []
    make(folders, launch, runs, said.append)
    os.close(others)
    assert "; 1 more: about " in said[1] and " more" not in said[-1]


def test_remaining_time_by_hand():
    remaining = Remaining(workers=2)
    remaining.add("a", 100.0)
    remaining.add("a", 200.0)  # 150 s on average
    remaining.add("b", 600.0)  # 300 s over all three
    assert remaining.seconds(["a"], {}) == 150 and remaining.seconds(["new"], {}) == 300
    assert remaining.seconds(["a", "a"], {"a": [50.0]}) == (150 + 150 + 100) / 2
    assert remaining.seconds(["a"], {"b": [100.0]}) == 500  # the run in progress ends last
    assert remaining.seconds([], {"a": [1e4]}) == remaining.seconds([], {}) == 0
    assert [duration(s) for s in (40, 720, 12000, 190800)] == ["40 s", "12 min", "3 h 20 min", "2 d 5 h"]


def test_runs_are_shared_out_to_the_gpus(folders, launch, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    runs = [run_of("fine", seed) for seed in range(3)]
    make(folders, replace(launch, gpus=("4", "GPU-7")), runs, workers=3)
    assert [(folders.output(run) / "gpu.txt").read_text() for run in runs] == ["4", "GPU-7", "4"]
    other = [run_of("fine", 3)]
    make(folders, launch, other)
    assert (folders.output(other[0]) / "gpu.txt").read_text() == "none"


@pytest.mark.parametrize(
    ("variable", "expected"), [(None, ("0", "1")), ("", ("0", "1")), ("5, 2", ("5", "2")), ("5,2,1", ("5", "2"))]
)
def test_gpus_by_name(monkeypatch, variable, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible_gpus() == expected


def test_what_is_done_is_not_done_again(folders, launch):
    runs = [run_of("fine")]
    make(folders, launch, runs)
    before = folders.result(runs[0]).stat().st_mtime_ns
    said = []
    assert make(folders, launch, runs, said.append)[1]
    assert folders.result(runs[0]).stat().st_mtime_ns == before and said == []
    # with --redo, too, unless the settings are others
    make(folders, launch, runs, said.append, redo=True)
    assert said == []
    other = configs_of(runs, **{"SOLVER.MAX_ITER": 5})
    make(folders, launch, runs, said.append, redo=True, configs=other)
    assert read_json(folders.result(runs[0]))["config"]["SOLVER.MAX_ITER"] == 5
    assert state_of(folders, runs[0], configs_of(runs)[runs[0].name])[0] == "changed"


def test_a_failure_is_recorded_and_the_others_go_on(folders, launch):
    runs = [run_of("fail"), run_of("empty"), run_of("fine"), run_of("killed")]
    said = []
    runner, fine = make(folders, launch, runs, said.append)
    assert not fine and runner.failed == ["fail/seed0", "empty/seed0", "killed/seed0"]
    assert state_of(folders, runs[0], {}) == ("failed", "exit code 3: Bad weather")
    assert read_json(folders.failure(runs[0]))["log"] == ["Bad weather"]
    assert "no metrics.json; is DATASETS.TEST empty?" in read_json(folders.failure(runs[1]))["reason"]
    assert [folders.result(run).exists() for run in runs] == [False, False, True, False]
    # it is tried again the next time
    again, _ = make(folders, launch, runs)
    assert again.failed == runner.failed
    assert read_json(folders.progress(runs[0]))["attempts"] == 2


def test_an_exception_ends_what_was_begun_and_the_next_runner_goes_on(folders, launch):
    runs = [run_of("hang"), run_of("fine"), run_of("fine", 1)]

    def say(text):
        if text.startswith("done"):
            raise KeyboardInterrupt

    runner = Runner(folders, launch, workers=2, say=say)
    with pytest.raises(KeyboardInterrupt):
        runner.make(runs, configs_of(runs))
    children = [job.process for job in runner.active if job.run.variant == "hang"]
    assert [child.returncode for child in children] == [-signal.SIGTERM]
    with pytest.raises(ProcessLookupError):
        os.kill(children[0].pid, 0)
    config = configs_of(runs)["hang/seed0"]
    assert not is_locked(folders.output(runs[0]))
    assert state_of(folders, runs[0], config) == ("interrupted", "")
    assert state_of(folders, runs[2], configs_of(runs)["fine/seed1"])[0] in (NOT_BEGUN, "interrupted")
    first = read_json(folders.progress(runs[0]))["seconds"]
    assert make(folders, launch, runs)[1]
    result = read_json(folders.result(runs[0]))
    assert result["attempts"] == 2 and result["seconds"] >= round(first, 1)


def test_what_another_run_left_of_other_settings_is_not_gone_on_with(folders, launch):
    run = run_of("fail")
    make(folders, launch, [run], configs={run.name: {"A": 1}})
    (folders.output(run) / "last_checkpoint").write_text("old")
    make(folders, launch, [run], configs={run.name: {"A": 1}})
    assert (folders.output(run) / "last_checkpoint").exists()
    assert (folders.output(run) / "resumed.txt").read_text() == "True"
    make(folders, launch, [run], configs={run.name: {"A": 2}})
    assert not (folders.output(run) / "last_checkpoint").exists()
    assert (folders.output(run) / "resumed.txt").read_text() == "False"
    assert read_json(folders.progress(run))["attempts"] == 1


def test_an_interrupted_run_outlives_new_keys_but_not_other_settings(folders, launch):
    run = run_of("hang")
    old, new = {"MODE": "hang"}, {"MODE": "hang", "MODEL.SGR.AREA_POWER": 0.0}  # a key that did not exist yet
    job = begin(folders, launch, run, old)
    (folders.output(run) / "model_0000001.pth").write_text("weights")
    job.end()
    assert state_of(folders, run, new) == ("interrupted", "")
    assert state_of(folders, run, old | {"A": 2}) == ("changed", "A: None -> 2")
    job = begin(folders, launch, run, new)
    assert (folders.output(run) / "model_0000001.pth").exists()
    assert read_json(folders.progress(run))["config"] == new
    wait(job)
    job.end()


def test_a_run_in_other_hands_is_left_alone(folders, launch):
    runs = [run_of("fine"), run_of("fine", 1)]
    mine = take_lock(folders, runs[0])
    assert mine is not None
    assert state_of(folders, runs[0], {})[0] == "running"
    _, fine = make(folders, launch, runs)
    assert fine and not folders.result(runs[0]).exists() and folders.result(runs[1]).exists()
    os.close(mine)
    assert state_of(folders, runs[0], {})[0] == NOT_BEGUN


def test_training_holds_the_lock_when_its_runner_is_gone(folders, launch):
    run = run_of("hang")
    job = begin(folders, launch, run, {})
    os.close(job.lock)  # as the kernel does with a killed runner
    assert is_locked(folders.output(run))
    job.lock = os.dup(0)
    job.end()
    assert not is_locked(folders.output(run))


def test_checkpoints_are_kept_on_demand(folders, launch):
    run = run_of("fine")
    make(folders, Launch(**{**launch.__dict__, "keep": True}), [run])
    assert (folders.output(run) / "last_checkpoint").exists()


def test_a_kept_run_is_not_lost_to_another_place_of_results(folders, launch):
    run = run_of("fine")
    make(folders, replace(launch, keep=True), [run])
    other = Folders(folders.results.with_name("others"), folders.work)
    assert make(other, launch, [run])[1] and other.result(run).is_file()
    assert (folders.output(run) / "earlier_1/last_checkpoint").is_file()
    assert (folders.output(run) / "earlier_1/metrics.json").is_file()


def test_what_a_run_cost_is_not_known_if_its_runner_died(folders, launch):
    run = run_of("hang")
    config = configs_of([run])[run.name]
    job = begin(folders, launch, run, config)
    os.close(job.lock)
    job.process.kill()
    job.process.wait()
    assert make(folders, launch, [run])[1]
    result = read_json(folders.result(run))
    assert result["attempts"] == 2 and result["seconds"] is None and result["peak_memory_mib"] is None


def test_the_costs_of_all_attempts_are_told(folders, launch):
    run = run_of("fine")
    before = {"config": configs_of([run])[run.name], "seconds": 5000.0, "attempts": 3, "peak_memory_mib": 10**6}
    write_json(before, folders.progress(run))
    make(folders, launch, [run])
    result = read_json(folders.result(run))
    assert 5000 < result["seconds"] < 5600 and (result["attempts"], result["peak_memory_mib"]) == (4, 10**6)
    # they are not those of a run that is made anew
    folders.result(run).unlink()
    make(folders, launch, [run])
    assert read_json(folders.result(run))["seconds"] < 600


def test_runners_do_not_pile_up_on_a_gpu(folders, launch):
    hanging, run = run_of("hang"), run_of("fine")
    launch = replace(launch, gpus=("4", "GPU-7"))
    job = Job(hanging, {}, folders, launch, take_lock(folders, hanging), gpu="4")  # another runner's
    make(folders, launch, [run])
    assert (folders.output(run) / "gpu.txt").read_text() == "GPU-7"
    job.end()


def test_ended_process_is_collected_once(folders, launch):
    job = begin(folders, launch, run_of("fail"), {})
    wait(job)
    assert job.poll() == job.poll() == 3
    assert job.finish() == "exit code 3: Bad weather"


def test_last_lines_of_a_long_log(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"x" * 200_000 + b"\n\n" + "\x1b[32mé\x1b[0m\n".encode() + b"\xff end  \n\n")
    assert last_lines(path, 2) == ["é", "� end"]
    path.write_text("")
    assert last_lines(path, 2) == []


def test_a_broken_result_names_the_file(folders):
    run = run_of("fine")
    folders.result(run).parent.mkdir(parents=True)
    for text, message in (("{", r"seed0\.json: not a JSON file"), ("[1]", r"seed0\.json: holds list")):
        folders.result(run).write_text(text)
        with pytest.raises(ValueError, match=message):
            state_of(folders, run, {})
