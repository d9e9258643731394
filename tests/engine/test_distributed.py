"""Two processes against one, with gloo on the CPU and NCCL on GPUs: the same training, the same figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

ROOT = Path(__file__).parents[2]
# without the GPUs that there may be: those would be used instead; one thread a process: on some CPUs sums depend on it
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
# with them, and without convolutions that round to ten bits
WITH_GPUS = os.environ | {"PYTHONPATH": str(ROOT), "NVIDIA_TF32_OVERRIDE": "0"}


def train_net(config_file, output, *opts, processes=1, flags=(), environment=ENVIRONMENT):
    """Run train_net.py as a user does; its log on failure."""
    command = [sys.executable, "-W", "ignore", str(ROOT / "train_net.py"), "--config-file", str(config_file)]
    command += ["--num-gpus", str(processes), "--dist-url", "auto", *flags, "OUTPUT_DIR", str(output), *map(str, opts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def metrics(output):
    return json.loads((output / "evaluation/scenes_val/metrics.json").read_text())


# with SyncBN rounding makes 3e-4 in SGR's last weights, and all there is of biases that a norm takes away again (1e-6)
@pytest.mark.parametrize(
    ("norm", "limit", "least"), [("LN", 1e-5, 1e-12), ("SyncBN", 1e-3, 1e-4)], ids=["LN", "SyncBN"]
)
def test_two_processes_train_and_evaluate_like_one(config_file, tmp_path, norm, limit, least):
    one, two = tmp_path / "one", tmp_path / "two"
    # SGD: Adam would blow rounding up where a gradient is zero but for it (the bias of attention keys)
    solver = ("SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", 0.01, "TEST.ERROR_KINDS.ENABLED", True)
    solver += ("MODEL.SGR.NORM", norm)
    train_net(config_file, one, *solver)
    log = train_net(config_file, two, *solver, processes=2)
    a, b = (torch.load(folder / "model_final.pth", weights_only=True)["model"] for folder in (one, two))
    for key, expected in a.items():
        error = (expected - b[key]).float().norm() / expected.float().norm().clamp(min=least)
        assert error < min(limit, 1e-4 if "running" in key else limit), (
            f"{key}: relative difference {error:.2e} after 10 steps. {log[-500:]}"
        )
    # the very same weights on one rank and on two, five images: bitwise the same figures
    weights = ("MODEL.WEIGHTS", one / "model_final.pth", "TEST.ERROR_KINDS.ENABLED", True, "MODEL.SGR.NORM", norm)
    train_net(config_file, two, *weights, processes=2, flags=["--eval-only"])
    assert metrics(one) == metrics(two) and "error_kinds" in metrics(two)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_and_evaluate_like_one(config_file, tmp_path):
    """With SyncBN, which in one process is BN over the same batch."""
    options = ("MODEL.DEVICE", "cuda", "MODEL.TIMM.NORM", "SyncBN", "SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", 0.01)
    one, two = tmp_path / "one", tmp_path / "two"
    for processes, folder in ((1, one), (2, two)):
        train_net(config_file, folder, *options, processes=processes, environment=WITH_GPUS)
    a, b = (torch.load(f / "model_final.pth", map_location="cpu", weights_only=True)["model"] for f in (one, two))
    for key, expected in a.items():
        error = (expected.float() - b[key].float()).norm() / expected.float().norm().clamp(min=1e-12)
        assert error < 1e-2, f"{key}: relative difference {error:.2e} after 10 steps"
    weights = ("MODEL.WEIGHTS", one / "model_final.pth", "MODEL.DEVICE", "cuda")
    train_net(config_file, two, *weights, processes=2, flags=["--eval-only"], environment=WITH_GPUS)
    assert metrics(one)["sem_seg"] == pytest.approx(metrics(two)["sem_seg"], abs=0.01, nan_ok=True)


def test_statistics_of_the_first_rank_are_evaluated(config_file, tmp_path):
    """Each rank's BatchNorm sees its own images; a checkpoint holds the statistics of one."""
    options = ("MODEL.TIMM.NORM", "BN", "SOLVER.MAX_ITER", 3)
    train_net(config_file, tmp_path / "two", *options, processes=2)
    weights = ("MODEL.WEIGHTS", tmp_path / "two/model_final.pth")
    train_net(config_file, tmp_path / "one", *options, *weights, flags=["--eval-only"])
    assert metrics(tmp_path / "one") == metrics(tmp_path / "two")


@pytest.mark.slow
def test_two_processes_with_two_parts_a_step_train_like_one(config_file, tmp_path):
    """Without SGR, whose component loss is a mean over the components of a part."""
    opts = ("SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", 0.01, "MODEL.SGR.ENABLED", False, "DATASETS.TEST", "()")
    train_net(config_file, tmp_path / "one", *opts)
    train_net(config_file, tmp_path / "two", *opts, "SOLVER.ACCUMULATION_STEPS", 2, processes=2)
    a, b = (torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"] for name in ("one", "two"))
    for key, expected in a.items():
        error = (expected - b[key]).norm() / expected.norm().clamp(min=1e-12)
        assert error < 1e-5, f"{key}: relative difference {error:.2e} after 10 steps"


def test_one_rank_of_two_without_components(config_file, tmp_path, scenes):
    """Every other image is unlabelled, so that now one rank, now both have no component: finite, and no hang."""
    config = yaml.safe_load(config_file.read_text())
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for index, file in enumerate(sorted((scenes / "train/labels").iterdir())):
        label = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(tmp_path / "labels" / file.name), np.full_like(label, 255) if index % 2 else label)
        image = cv2.imread(str(scenes / "train/images" / file.name))
        cv2.imwrite(str(tmp_path / "images" / file.name), image)
    folder = config["DATASETS"]["FOLDERS"]["scenes_train"]
    folder["IMAGE_DIR"], folder["LABEL_DIR"] = str(tmp_path / "images"), str(tmp_path / "labels")
    config["SOLVER"]["IMS_PER_BATCH"] = 2
    config["SOLVER"]["MAX_ITER"] = 6
    config_file.write_text(yaml.safe_dump(config))
    train_net(config_file, tmp_path / "out", "DATASETS.TEST", "()", processes=2)
    saved = torch.load(tmp_path / "out/model_final.pth", weights_only=True)["model"]
    assert all(torch.isfinite(value).all() for value in saved.values() if value.is_floating_point())


def test_windows_in_an_evaluation_during_training(config_file, tmp_path):
    """Two processes, whose model is wrapped; fixed regions, which each would draw for itself."""
    opts = ["MODEL.SGR.REGIONS", "fixed", "MODEL.SGR.COMPONENT_WEIGHT", 0.0, "MODEL.SGR.DIVERSITY_WEIGHT", 0.0]
    opts += ["SOLVER.MAX_ITER", 2, "TEST.SLIDING_WINDOW.ENABLED", True, "TEST.SLIDING_WINDOW.SIZE", "[64, 64]"]
    opts += ["TEST.SLIDING_WINDOW.STRIDE", "[32, 32]", "TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", "(48,)"]
    train_net(config_file, tmp_path, *opts, processes=2)
    assert 0 <= metrics(tmp_path)["sem_seg"]["mIoU"] <= 100


ONE_BAD_RANK = """
import sys
import torch
from detectron2.engine import launch
from detectron2.utils.events import EventStorage
from sgr_d2.engine import run_process
from sgr_d2.engine.loop import TrainLoop
from sgr_d2.engine.trainer import distribute
from torch import nn

class Scaled(nn.Linear):
    def forward(self, data):
        return {"loss": super().forward(torch.ones(1, 2)).sum() * data[0]["value"]}

def main(folder):
    rank = torch.distributed.get_rank()
    torch.manual_seed(0)
    model = distribute(Scaled(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop = TrainLoop(model, optimizer, device_type="cpu", amp_dtype=None, max_nonfinite_steps=2)
    values = [1.0, float("nan") if rank else 2.0, 3.0]
    loop.data_loader = [[{"value": value, "file_name": f"{rank}.png"}] for value in values]
    weights = [model.module.weight.detach().clone()]
    with EventStorage():
        for loop.iter in range(3):
            loop.run_step()
            weights.append(model.module.weight.detach().clone())
    torch.save(torch.stack(weights), f"{folder}/{rank}.pth")

if __name__ == "__main__":
    launch(run_process, 2, dist_url="auto", args=(main, sys.argv[1]))
"""


def test_a_loss_that_is_not_finite_on_one_rank_is_skipped_on_both(tmp_path):
    a, b = run_two(ONE_BAD_RANK, tmp_path)
    assert torch.equal(a, b) and torch.equal(a[1], a[2])
    assert torch.allclose(a[0] - a[1], torch.tensor(0.1)) and torch.allclose(a[2] - a[3], torch.tensor(0.3))


RANDOM = """
import sys
import warnings
from types import SimpleNamespace
import torch
from detectron2.engine import launch
from sgr_d2.engine import run_process
from sgr_d2.engine.build import to_channels_last
from sgr_d2.engine.hooks import SeedEachStep
from sgr_d2.engine.trainer import distribute
from sgr_d2.modeling.sgr.pointwise import PointwiseConv2d
from sgr_d2.modeling.sgr.regions import FixedRegions
from torch import nn

class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.regions, self.convolution = FixedRegions(4), PointwiseConv2d(2, 3)

    def forward(self, maps):
        return self.convolution(maps.contiguous(memory_format=torch.channels_last)).sum()

def main(folder):
    warnings.filterwarnings("error", ".*(broadcast_buffers|Grad strides)")
    rank = torch.distributed.get_rank()
    torch.manual_seed(rank)
    model = distribute(to_channels_last(Toy()))
    model(torch.rand(1, 2, 4, 5)).backward()
    hook, draws = SeedEachStep(3), []
    for step in range(4):
        hook.trainer = SimpleNamespace(iter=step)
        hook.before_step()
        draws.append(torch.rand(2))
    torch.save({"centres": model.module.regions.centres, "draws": torch.stack(draws)}, f"{folder}/{rank}.pth")

if __name__ == "__main__":
    launch(run_process, 2, dist_url="auto", args=(main, sys.argv[1]))
"""


def run_two(program, folder):
    """What the two ranks of a program save."""
    (folder / "program.py").write_text(program)
    command = [sys.executable, "-W", "ignore", str(folder / "program.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pth", weights_only=True) for rank in (0, 1)]


def test_random_buffers_are_those_of_the_first_rank_and_draws_those_of_step_and_rank(tmp_path):
    a, b = run_two(RANDOM, tmp_path)
    assert torch.equal(a["centres"], b["centres"])
    assert len(torch.cat([a["draws"], b["draws"]]).unique(dim=0)) == 8


NO_THREADS_LEFT = """
import sys
from pathlib import Path
import torch
from detectron2.engine import launch
from detectron2.utils import comm
from sgr_d2.engine import run_process
from torch import nn

def threads():
    return [name for file in Path("/proc/self/task").glob("*/comm") if "gloo" in (name := file.read_text())]

def main():
    model = nn.parallel.DistributedDataParallel(nn.Linear(2, 3))
    model.itself = model  # only the garbage collector finds it
    model(torch.ones(4, 2)).sum().backward()
    comm.all_gather("what Detectron2 keeps a group for")
    return len(threads())

def count(folder):
    rank = comm.get_rank()
    torch.save(torch.tensor([run_process(main), len(threads())]), f"{folder}/{rank}.pth")

if __name__ == "__main__":
    launch(count, 2, dist_url="auto", args=(sys.argv[1],))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_no_thread_of_a_process_group_is_left_at_the_end(tmp_path):
    """Such threads abort a process now and then."""
    for during, after in run_two(NO_THREADS_LEFT, tmp_path):
        assert during > 0 and after == 0


FOLDER_OF_EACH = """
import sys
import torch
from detectron2.engine import launch
from sgr_d2.engine import Trainer, load_config, run_process

def main(folder):
    rank = torch.distributed.get_rank()
    opts = ["OUTPUT_DIR", f"{folder}/{'output' if rank == 0 else 'local'}", "MODEL.DEVICE", "cpu"]
    try:
        Trainer(load_config(f"{folder}/scenes.yaml", opts)).resume_or_load(resume=True)
    except ValueError as error:
        torch.save(str(error), f"{folder}/{rank}.pth")

if __name__ == "__main__":
    launch(run_process, 2, dist_url="auto", args=(main, sys.argv[1]))
"""


def test_a_folder_that_one_rank_does_not_see_is_an_error_on_both(config_file, tmp_path):
    train_net(config_file, tmp_path / "output", "SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()")
    for message in run_two(FOLDER_OF_EACH, tmp_path):
        assert "begin at different iterations, [1, 0] by rank" in message and "disk that all machines share" in message
