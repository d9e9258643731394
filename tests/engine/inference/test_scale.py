"""The warning of images at another scale than those of the training."""

import logging

import numpy as np
import pytest
from toy_checkpoint import write_checkpoint

from sgr_d2 import SGRPredictor
from sgr_d2.data.check_hints import far_apart
from sgr_d2.engine.inference.scale import ScaleWarning


def image(height, width):
    return np.full((height, width, 3), 90, np.uint8)


@pytest.fixture
def load(tmp_path):
    """A predictor of a toy model whose training scaled the shorter side to 40 to 64, with the given options."""

    def train_edges(config):
        config["INPUT"] |= {"MIN_SIZE_TRAIN": [40, 64], "MIN_SIZE_TEST": 0}

    path = write_checkpoint(tmp_path / "model.pth", change=train_edges)
    return lambda *opts: SGRPredictor.from_checkpoint(path, opts=opts, device="cpu")


@pytest.fixture
def told(caplog):
    """Lists the warnings so far, without what the log says of checkpoints."""
    return lambda: [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_the_first_image_of_another_scale_is_told_with_the_key_to_set(load, told):
    predict = load()
    predict([image(48, 64), image(80, 90)])  # a factor of 1.25 is allowed
    assert not told()
    predict([image(81, 160), image(200, 200)])
    predict(image(20, 30))
    (text,) = told()
    assert "An image of 160x81 pixels" in text and "a shorter side of 81; in training it was 40 to 64" in text
    assert 'opts=["INPUT.MIN_SIZE_TEST", 52] or --opts INPUT.MIN_SIZE_TEST 52.' in text
    load()(image(20, 30))  # another predictor warns again
    assert len(told()) == 2 and "a shorter side of 20" in told()[1]


def test_it_is_the_resized_image_that_counts(load, told):
    load("INPUT.MIN_SIZE_TEST", 52)([image(200, 300), image(20, 30)])
    assert not told()
    load("INPUT.MIN_SIZE_TEST", 52, "INPUT.MAX_SIZE_TEST", 100)(image(60, 300))
    (text,) = told()
    assert "a shorter side of 20;" in text  # as the longer side may not exceed 100
    assert 'opts=["INPUT.MIN_SIZE_TEST", 52, "INPUT.MAX_SIZE_TEST", 260]' in text


def test_what_is_advised_helps(load, told):
    load("INPUT.MIN_SIZE_TEST", 52, "INPUT.MAX_SIZE_TEST", 260)(image(60, 300))
    assert not told()


def test_nothing_is_said_where_nothing_is_known(load, told):
    load("INPUT.MIN_SIZE_TRAIN", "(0,)")(image(20, 30))  # the size of the file
    load("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", "[48]")(image(20, 30))
    ScaleWarning().look_at((20, 30), (20, 30))
    assert not told()
    assert not far_apart((), 20) and not far_apart((0, 64), 20)
