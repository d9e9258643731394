import random
import re
from itertools import islice

import numpy as np
import pytest
import torch
from detectron2.data.samplers import TrainingSampler

from sgr_d2.data.loader import (
    PositionSampler,
    build_test_loader,
    build_train_loader,
    seeded_randomness,
    stream_loader,
)
from sgr_d2.data.mapper import SemanticMapper

RECORDS = [{"name": name} for name in "abcde"]


def random_mapper(record):
    """Depends on everything random that an augmentation may use."""
    return {**record, "draw": (random.random(), np.random.uniform(), np.random.randint(1000), torch.rand(()).item())}


def batches(count, **options):
    loader = stream_loader(RECORDS, random_mapper, **{"batch_size": 4, "seed": 3, **options})
    return list(islice(iter(loader), count))


def same(left, right):
    """Compare lists of records of tensors and plain values."""
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert torch.equal(value, b[key]) if torch.is_tensor(value) else value == b[key], key


def test_every_epoch_holds_every_record_once():
    names = [record["name"] for batch in batches(5) for record in batch]
    epochs = ["".join(names[i : i + 5]) for i in range(0, 20, 5)]
    assert all(sorted(epoch) == list("abcde") for epoch in epochs)
    assert len(set(epochs)) > 1


def test_the_order_is_that_of_detectron2():
    ours = [index for index, _ in islice(iter(PositionSampler(9, seed=4)), 30)]
    assert ours == list(islice(iter(TrainingSampler(9, seed=4)), 30))


def test_a_record_is_augmented_anew_each_time_and_each_seed():
    draws = [record["draw"] for batch in batches(5) for record in batch]
    assert len(set(draws)) == 20
    assert draws[0] not in [record["draw"] for batch in batches(5, seed=4) for record in batch]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(num_workers):
    assert batches(7, num_workers=num_workers) == batches(7)


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_the_batches_of_one(world_size):
    whole = batches(6)
    parts = [batches(6, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step, batch in enumerate(whole):
        assert [batch[i::world_size] for i in range(world_size)] == [part[step] for part in parts]


@pytest.mark.parametrize("start", [1, 5])
@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"rank": 1, "world_size": 2}])
def test_resume_goes_on_where_it_stopped(start, options):
    assert batches(4, start_iter=start, **options) == batches(4 + start, **options)[start:]


def test_the_skipped_samples_are_not_made():
    made = []
    loader = stream_loader(RECORDS, lambda record: made.append(record) or record, batch_size=2, seed=0, start_iter=500)
    next(iter(loader))
    assert len(made) == 2


def test_the_random_state_of_the_process_is_left_alone():
    def states():
        return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()

    before = states()
    batches(3)
    assert states() == before
    with pytest.raises(KeyError), seeded_randomness(1, 2):
        random_mapper({})
        raise KeyError
    assert states() == before


def test_neighbouring_seeds_do_not_share_their_streams():
    draws = []
    for entropy in ((0, 0), (0, 1), (1, 0), (1, 1), (2,)):
        with seeded_randomness(*entropy):
            draws.append((random.random(), np.random.uniform(), torch.rand(()).item()))
    assert [len(set(values)) for values in zip(*draws, strict=True)] == [len(draws)] * 3


@pytest.mark.parametrize(("batch_size", "world_size"), [(6, 4), (0, 1), (2, 3)])
def test_a_batch_that_cannot_be_split(batch_size, world_size):
    with pytest.raises(ValueError, match=rf"SOLVER\.IMS_PER_BATCH .*got {batch_size} for {world_size} process"):
        stream_loader(RECORDS, random_mapper, batch_size=batch_size, seed=0, rank=0, world_size=world_size)


def test_train_loader_with_images(folder_cfg):
    folder_cfg.MODEL.SGR.ENABLED = True
    whole = list(islice(iter(build_train_loader(folder_cfg)), 5))
    assert [len(batch) for batch in whole] == [4] * 5
    assert {"image", "sem_seg", "components", "component_classes"} <= whole[0][0].keys()
    folder_cfg.DATALOADER.NUM_WORKERS = 2
    resumed = build_train_loader(folder_cfg, start_iter=2)
    assert resumed.num_workers == 2
    for left, right in zip(whole[2:], islice(iter(resumed), 3), strict=True):
        same(left, right)
    folder_cfg.SEED = 1
    images = [record["image"].tolist() for record in next(iter(build_train_loader(folder_cfg)))]
    assert images != [record["image"].tolist() for record in whole[0]]


def test_a_negative_seed_is_drawn_anew_each_time(folder_cfg, caplog):
    folder_cfg.SEED = -1
    with caplog.at_level("INFO", logger="sgr_d2.data.loader"):
        orders = [tuple(islice(iter(build_train_loader(folder_cfg).sampler), 7)) for _ in range(5)]
    assert len(set(orders)) > 2
    assert "SEED is -1" in caplog.text


def test_several_data_sets_are_joined(folder_cfg):
    (name,) = folder_cfg.DATASETS.TRAIN
    folder_cfg.DATASETS.TRAIN = (name, name)
    assert len(build_train_loader(folder_cfg).dataset) == 14


@pytest.mark.parametrize("num_workers", [0, 2])
def test_test_loader(folder_cfg, num_workers):
    folder_cfg.DATALOADER.NUM_WORKERS = num_workers
    loader = build_test_loader(
        folder_cfg, folder_cfg.DATASETS.TEST[0], mapper=SemanticMapper(folder_cfg, is_train=False)
    )
    assert loader.num_workers == num_workers
    batches = list(loader)
    assert [batch[0]["image_id"] for batch in batches] == [f"scene{i}" for i in range(7)]
    assert all(len(batch) == 1 and batch[0]["image"].shape == (3, 37, 53) for batch in batches)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_message_of_a_worker_names_the_file(folder_cfg, tmp_path, num_workers):
    folder_cfg.DATALOADER.NUM_WORKERS = num_workers
    loader = build_train_loader(folder_cfg)
    (tmp_path / "labels" / "scene3.png").write_bytes(b"")
    try:
        list(islice(iter(loader), 4))
        message = "no error"
    except ValueError as error:
        message = str(error)
        # Breaks a cycle through torch's frames; the garbage collector would wait ten seconds for the workers.
        error.__traceback__ = None
    assert re.search(r"Cannot read label file .*scene3\.png", message)


def test_bad_keys(folder_cfg):
    folder_cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    with pytest.raises(ValueError, match=r"DATALOADER\.SAMPLER_TRAIN must be TrainingSampler"):
        build_train_loader(folder_cfg)
    folder_cfg.DATASETS.TRAIN = ()
    with pytest.raises(ValueError, match=r"DATASETS\.TRAIN is empty"):
        build_train_loader(folder_cfg)
    with pytest.raises(ValueError, match="Unknown data set 'camvid_trian'"):
        build_test_loader(folder_cfg, "camvid_trian", mapper=lambda record: record)
