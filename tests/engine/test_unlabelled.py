"""Trainings without a label."""

import shutil

import cv2
import numpy as np
import pytest
import torch
from toy_runs import run

from sgr_d2.engine.unlabelled import STEPS, LabelWatch


def test_a_training_without_labels_is_told_once(scenes, config_file, tmp_path):
    copy = tmp_path / "own"
    shutil.copytree(scenes, copy)
    config_file.write_text(config_file.read_text().replace(str(scenes), str(copy)))
    for path in (copy / "train/labels").iterdir():
        cv2.imwrite(str(path), np.full((72, 96), 255, np.uint8))
    run(config_file, "SOLVER.MAX_ITER", STEPS + 2, "DATASETS.TEST", "()", "SOLVER.IMS_PER_BATCH", 1)
    log = (tmp_path / "output/log.txt").read_text()
    told = "DATASETS.TRAIN = ('scenes_train',): no pixel is labelled in the images of the first 20 steps"
    assert log.count(told) == 1 and "tools/check_dataset.py scenes_train" in log


@pytest.mark.parametrize("labelled", [{"sem_seg": torch.tensor([[9, 0]])}, {}], ids=["a pixel", "a detector's"])
def test_one_label_is_enough(labelled, caplog):
    empty = {"sem_seg": torch.full((1, 2), 9)}
    watch = LabelWatch(9, ["mine"], steps=3)
    for images in ([empty], [empty, labelled], [empty], [empty], [empty]):
        watch(images)
    assert not caplog.records
    watch = LabelWatch(9, ["mine"], steps=3)
    for _ in range(5):
        watch([empty, empty])
    assert len(caplog.records) == 1 and "Labels of 9 are ignored" in caplog.text
