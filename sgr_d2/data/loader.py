"""Data loaders. The training stream depends only on the seed.

Sample n of the stream is the same for any number of workers and processes, and after a resume: the shuffle depends on
the seed, the augmentation of sample n on (seed, n), and batch i of all processes together consists of the samples
[i * B, (i + 1) * B).
"""

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, build_detection_test_loader
from detectron2.data.build import trivial_batch_collator
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from sgr_d2.data.bad_record import CheckedMapper, Mapper, Record
from sgr_d2.data.datasets import get_dataset_records
from sgr_d2.data.mapper import SemanticMapper
from sgr_d2.data.subset import choose_fraction

logger = logging.getLogger(__name__)


def build_train_loader(
    cfg: CfgNode, *, start_iter: int = 0, mapper: Mapper | None = None, records: list[Record] | None = None
) -> DataLoader:
    """Return the endless loader of DATASETS.TRAIN; it yields lists of IMS_PER_BATCH / processes mapped records.

    Args:
        cfg: config with DATASETS.TRAIN, TRAIN_FRACTION, SOLVER.IMS_PER_BATCH, DATALOADER.NUM_WORKERS, SEED and the keys
            of the mapper.
        start_iter: iterations already done; their samples are skipped without being made.
        mapper: used instead of ``SemanticMapper(cfg, is_train=True)``.
        records: used instead of all those of DATASETS.TRAIN.

    Raises:
        FileNotFoundError, ValueError: if a data set is unknown, missing or empty, or the batch cannot be split.
    """
    if not cfg.DATASETS.TRAIN:
        raise ValueError("DATASETS.TRAIN is empty; name at least one data set to train on.")
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        raise ValueError(f"DATALOADER.SAMPLER_TRAIN must be TrainingSampler; got {cfg.DATALOADER.SAMPLER_TRAIN!r}.")
    seed = cfg.SEED
    if seed < 0:
        seed = comm.shared_random_seed()
        logger.info("SEED is %d: the order of the training images is drawn from seed %d.", cfg.SEED, seed)
    mapper = mapper or SemanticMapper(cfg, is_train=True)
    if records is None:
        records = list(chain.from_iterable(get_dataset_records(name) for name in cfg.DATASETS.TRAIN))
    total, records = len(records), choose_fraction(records, cfg.DATASETS.TRAIN_FRACTION, seed)
    logger.info("Training on %d of %d images of %s.", len(records), total, ", ".join(cfg.DATASETS.TRAIN))
    return stream_loader(
        records,
        mapper,
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
        seed=seed,
        start_iter=start_iter,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        pin_memory=cfg.MODEL.DEVICE.startswith("cuda") and torch.cuda.is_available(),
    )


def build_test_loader(cfg: CfgNode, dataset_name: str, *, mapper: Mapper) -> DataLoader:
    """Return the loader of one data set, an image per batch, split over processes by Detectron2's InferenceSampler.

    Raises:
        FileNotFoundError, ValueError: if the data set is unknown, missing or empty.
    """
    return build_detection_test_loader(
        get_dataset_records(dataset_name),
        mapper=CheckedMapper(mapper),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def stream_loader(
    records: list[Record],
    mapper: Mapper,
    *,
    batch_size: int,
    seed: int,
    start_iter: int = 0,
    num_workers: int = 0,
    pin_memory: bool = False,
    rank: int | None = None,
    world_size: int | None = None,
) -> DataLoader:
    """Return the endless loader of ``records``; ``batch_size`` counts the samples of all processes together.

    ``rank`` and ``world_size`` default to those of the running process. ``pin_memory`` is for training on a GPU: it
    makes copies to the GPU asynchronous.

    Raises:
        ValueError: if ``batch_size`` is not a positive multiple of the number of processes.
    """
    rank = comm.get_rank() if rank is None else rank
    world_size = comm.get_world_size() if world_size is None else world_size
    if batch_size < 1 or batch_size % world_size:
        enough = -(-max(batch_size, 1) // world_size) * world_size
        raise ValueError(
            "SOLVER.IMS_PER_BATCH is the batch of all processes together and must be a multiple of their number; got "
            f"{batch_size} for {world_size} process(es). SOLVER.IMS_PER_BATCH {enough} would do."
        )
    sampler = PositionSampler(len(records), seed=seed, start=start_iter * batch_size, rank=rank, world_size=world_size)
    return DataLoader(
        _SeededDataset(DatasetFromList(records, copy=False), CheckedMapper(mapper), seed),
        batch_size=batch_size // world_size,
        sampler=sampler,
        num_workers=num_workers,
        pin_memory=pin_memory,
        collate_fn=trivial_batch_collator,
        worker_init_fn=_init_worker,
        generator=torch.Generator().manual_seed(seed),  # otherwise each epoch would advance torch's global generator
    )


class PositionSampler(TrainingSampler):
    """Detectron2's endless shuffle, with the position of every sample in the stream: yields (index, position).

    The process of rank r out of W gets the positions start + r, start + r + W, ...
    """

    def __init__(self, size: int, *, seed: int, start: int = 0, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(size, seed=seed)
        self._start = start
        self._rank = rank
        self._world_size = world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        stream = ((index, position) for position, index in enumerate(self._infinite_indices()))
        return islice(stream, self._start + self._rank, None, self._world_size)


class _SeededDataset(Dataset):
    """Maps record ``index`` with the random state for ``position``."""

    def __init__(self, records: DatasetFromList, mapper: Mapper, seed: int) -> None:
        self.records = records
        self.mapper = mapper
        self.seed = seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, place: tuple[int, int]) -> Record:
        index, position = place
        with seeded_randomness(self.seed, position):
            return self.mapper(self.records[index])


@contextmanager
def seeded_randomness(*entropy: int) -> Iterator[None]:
    """Seed ``random``, ``numpy.random`` and torch's CPU generator, which mappers draw from, from ``entropy``.

    Their previous states are restored at the end of the ``with`` block, so other code is not affected.
    """
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    words = np.random.SeedSequence(entropy).generate_state(4)
    random.seed(words.tobytes())
    np.random.seed(words)
    torch.default_generator.manual_seed(int(words[0]))  # torch.manual_seed would seed GPUs, too
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)


def _init_worker(worker_id: int) -> None:
    cv2.setNumThreads(0)  # as torch limits its own threads in a worker: the workers already run in parallel
