"""Two processes that differ: in a loss, in random numbers, in what they see of a disk; and what is left of them."""

import math
from pathlib import Path

import pytest
import torch
from toy_processes import run_two, train_net

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


TWO_RANKS = """
import sys
import warnings
from types import SimpleNamespace
import torch
from detectron2.engine import launch
from sgr_d2.engine import run_process
from sgr_d2.engine.build import to_channels_last
from sgr_d2.engine.hooks import SeedEachStep
from sgr_d2.engine.trainer import distribute
from sgr_d2.modeling.mask2former.criterion import SetCriterion
from sgr_d2.modeling.mask2former.structures import QueryPrediction
from sgr_d2.modeling.mask2former.targets import LabelMapTargets
from sgr_d2.modeling.peers import class_loss as scores_loss
from sgr_d2.modeling.segmentor import SGRSegmentor
from sgr_d2.modeling.sgr.losses import diversity_loss
from sgr_d2.modeling.sgr.pointwise import PointwiseConv2d
from sgr_d2.modeling.sgr.regions import FixedRegions
from sgr_d2.modeling.sgr.token_classes import TokenClassLoss
from torch import nn

class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.regions, self.convolution = FixedRegions(4), PointwiseConv2d(2, 3)

    def forward(self, maps):
        return self.convolution(maps.contiguous(memory_format=torch.channels_last)).sum()

def mask_loss(count):  # of an image with so many classes, and masks that are nowhere and everywhere
    labels = torch.full((1, 4, 4), 255)
    labels[0, :count] = torch.arange(count)[:, None]
    targets = LabelMapTargets(labels, num_classes=4, ignore_as_background=True)
    prediction = QueryPrediction(torch.zeros(1, 1, 6, 5), torch.zeros(1, 1, 6, 2), torch.zeros(1, 2, 4, 4))
    return SetCriterion(num_classes=4, mask_weight=1.0, num_points=4)(prediction, targets)["loss_mask"]

def class_loss(count):  # of so many tokens with a component, by a predictor that knows nothing
    loss, component_of = TokenClassLoss(3, 4), torch.arange(6)[None]
    component_of = component_of.masked_fill(component_of >= count, -1)
    nn.init.zeros_(loss.predictor.weight), nn.init.zeros_(loss.predictor.bias)
    return loss(torch.rand(1, 6, 3), component_of, [torch.arange(count) % 4]).detach()

def query_loss(count):  # of queries that know nothing, for an image with so many classes
    labels = torch.full((1, 4, 4), 255)
    labels[0, :count] = torch.arange(count)[:, None]
    prediction = QueryPrediction(torch.zeros(1, 1, 6, 5), torch.zeros(1, 1, 6, 2), torch.zeros(1, 2, 4, 4))
    criterion = SetCriterion(num_classes=4, class_weight=1.0, num_points=4)
    return criterion(prediction, LabelMapTargets(labels, num_classes=4))["loss_ce"]

def cosine_loss(count):  # of equal regions
    return diversity_loss(torch.ones(1, 3, 4) * (count > 0), torch.ones(1, 1, 4) * (count > 0))

def pixel_loss(count):  # of a head whose loss is always 3
    head = lambda features, targets: (None, {"loss": torch.tensor(3.0)})
    segmentor = SimpleNamespace(sem_seg_head=head, ignore_value=255)
    return SGRSegmentor._head_losses(segmentor, {}, torch.full((1, 4, 4), 1 if count else 255))["loss"]

def peer_loss(count):  # of scores that are all alike, for so many labelled rows
    labels = torch.full((1, 4, 4), 255)
    labels[0, :count] = 1
    return scores_loss(torch.zeros(1, 4, 2, 2), labels, 255)

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
    counts = ((0, 0), (0, 1), (1, 3))  # of the ranks
    kinds = (mask_loss, class_loss, query_loss, cosine_loss, pixel_loss, peer_loss)
    losses = {of.__name__: torch.stack([of(pair[rank]) for pair in counts]) for of in kinds}
    found = {"centres": model.module.regions.centres, "draws": torch.stack(draws), **losses}
    torch.save(found, f"{folder}/{rank}.pth")

if __name__ == "__main__":
    launch(run_process, 2, dist_url="auto", args=(main, sys.argv[1]))
"""


def test_buffers_are_those_of_the_first_rank_draws_those_of_step_and_rank_and_losses_means_of_both(tmp_path):
    a, b = run_two(TWO_RANKS, tmp_path)
    assert torch.equal(a["centres"], b["centres"])
    assert len(torch.cat([a["draws"], b["draws"]]).unique(dim=0)) == 8
    # each has ln 2 a mask, ln 4 a token and a row, over the mean number of both ranks; but masks over at least one
    ln4 = math.log(4)
    for name, each, single in (("mask_loss", math.log(2), 1.0), ("class_loss", ln4, 2.0), ("peer_loss", ln4, 2.0)):
        torch.testing.assert_close(a[name], each * torch.tensor([0.0, 0.0, 1 / 2]))
        torch.testing.assert_close(b[name], each * torch.tensor([0.0, single, 3 / 2]))
    # means over images; a process without labels does not count, so that the mean of both is that of the labelled one
    for name, each in (("query_loss", math.log(5)), ("cosine_loss", 1.0), ("pixel_loss", 3.0)):
        torch.testing.assert_close(a[name], each * torch.tensor([0.0, 0.0, 1.0]))
        torch.testing.assert_close(b[name], each * torch.tensor([0.0, 2.0, 1.0]))


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
        assert "start at different iterations, [1, 0] by rank" in message and "disk that all machines share" in message


SEED_OF_EACH = """
import sys
from pathlib import Path
import torch
from detectron2.engine import launch
from sgr_d2.config import get_sgr_cfg
from sgr_d2.engine import run_process
from sgr_d2.engine.seed import with_seed, with_seed_of_run

def main(folder):
    rank, seeds, cfg = torch.distributed.get_rank(), [], get_sgr_cfg()
    for texts in (("SEED: 9", ""), ("SEED: 9", "SEED: 5"), ("", "SEED: 5")):
        Path(folder, f"config_{rank}").mkdir(exist_ok=True)
        Path(folder, f"config_{rank}", "config.yaml").write_text(texts[rank])
        cfg.SEED, cfg.OUTPUT_DIR = -1, f"{folder}/config_{rank}"
        seeds.append(with_seed(with_seed_of_run(cfg)).SEED)
    torch.save(seeds, f"{folder}/{rank}.pth")

if __name__ == "__main__":
    launch(run_process, 2, dist_url="auto", args=(main, sys.argv[1]))
"""


def test_the_seed_of_a_run_is_the_one_that_the_first_rank_reads(tmp_path):
    """The other rank may look when the file is being written anew."""
    a, b = run_two(SEED_OF_EACH, tmp_path)
    assert a == b and a[:2] == [9, 9] and a[2] not in (5, 9)
