import logging
import re
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from sgr_d2 import SGRPredictor
from sgr_d2.engine import load_config
from sgr_d2.engine.checkpoint.model_card import KEY, ModelCard, read_card

CLASSES = ["left", "right", "disc"]


@pytest.fixture(scope="module")
def predictor(trained):
    return SGRPredictor.from_checkpoint(trained.checkpoint, device="cpu")


@pytest.fixture(scope="module")
def image(scenes):
    return cv2.imread(str(scenes / "val/images/009.png"))[:, :, ::-1].copy()


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("labels", "scores", "regions", "tokens"))


def test_a_checkpoint_needs_nothing_else(trained, predictor, image, tmp_path):
    """Not even its data set: here its name is unknown and its folders are gone."""
    state = torch.load(trained.checkpoint, weights_only=True)
    config = yaml.safe_load(state[KEY]["config"])
    config["DATASETS"] |= {"TRAIN": ["elsewhere_train"], "TEST": ["elsewhere_val"], "FOLDERS": {}}
    config["MODEL"]["TIMM"]["WEIGHTS"] = "elsewhere.pth"
    state[KEY]["config"] = yaml.safe_dump(config)
    torch.save(state, tmp_path / "alone.pth")
    alone = SGRPredictor.from_checkpoint(tmp_path / "alone.pth", device="cpu")
    assert alone.classes == CLASSES and alone.has_sgr
    assert same(alone(image), predictor(image))


def test_outputs_are_what_the_model_says(predictor, image):
    out = predictor(image)
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
    with torch.no_grad():
        (expected,) = predictor.model([{"image": pixels}])
    assert np.array_equal(out.scores, expected["sem_seg"].numpy())
    assert np.array_equal(out.labels, out.scores.argmax(0)) and out.labels.dtype == np.uint8
    assert np.array_equal(out.regions, expected["sgr"].regions.numpy())
    assert np.array_equal(out.tokens, expected["sgr"].tokens.numpy())
    assert out.region_map(0).shape == out.labels.shape == image.shape[:2]
    assert out.color_map().shape == image.shape
    assert np.array_equal(out.overlay(image, 0.0), image) and np.array_equal(out.overlay(image, 1.0), out.color_map())
    areas = out.class_areas()
    assert sum(areas.values()) == pytest.approx(1)
    assert areas == {CLASSES[c]: (out.labels == c).mean() for c in np.unique(out.labels)}
    assert list(areas.values()) == sorted(areas.values(), reverse=True)
    with pytest.raises(IndexError, match=r"tokens 0\.\.5"):
        out.region_map(6)
    with pytest.raises(ValueError, match=r"the prediction is of an image \(72, 96, 3\)"):
        out.overlay(image[:10])


def test_every_kind_of_input_gives_the_same(predictor, image, scenes):
    path = scenes / "val/images/009.png"
    reference = predictor(image)
    assert same(predictor(path), reference)
    assert same(predictor(str(path)), reference)
    assert same(predictor(Image.open(path)), reference)
    assert same(predictor(image[:, :, ::-1], channels="BGR"), reference)
    assert same(predictor(np.dstack([image, image[:, :, 0]])), reference)
    assert not same(predictor(image[:, :, ::-1]), reference)
    assert predictor(image, scores=False).scores is None


def test_the_channel_order_of_the_model_is_obeyed(trained, image):
    bgr = SGRPredictor.from_checkpoint(trained.checkpoint, opts=["INPUT.FORMAT", "BGR"], device="cpu")
    rgb = SGRPredictor.from_checkpoint(trained.checkpoint, device="cpu")
    assert same(bgr(image[:, :, ::-1]), rgb(image))


@pytest.mark.parametrize(
    ("opts", "change"),
    [
        (["INPUT.FORMAT", "BGR"], 'INPUT.FORMAT RGB -> BGR. INPUT.FORMAT is the channel order of.*channels="BGR"'),
        (["MODEL.PIXEL_MEAN", "[0, 0, 0]"], "MODEL.PIXEL_MEAN .* -> "),
        (["MODEL.PIXEL_STD", "[1, 1, 1]"], "MODEL.PIXEL_STD .* -> "),
        (["MODEL.SGR.REGIONS", "softmax"], "MODEL.SGR.REGIONS sigmoid -> softmax"),
    ],
)
def test_opts_that_contradict_the_training_are_a_warning(trained, caplog, monkeypatch, opts, change):
    monkeypatch.setattr(logging.getLogger("sgr_d2"), "propagate", True)
    SGRPredictor.from_checkpoint(trained.checkpoint, opts=opts, device="cpu")
    said = next(text for text in caplog.messages if "was trained with other settings" in text)
    assert re.search(rf"model_final\.pth was trained with other settings: {change}.* give those of the training", said)


def test_tokens_are_not_left_out_of_predictions(trained):
    with pytest.raises(ValueError, match=r"has SGR, and this model has not: .* MODEL.SGR.ENABLED True -> False"):
        SGRPredictor.from_checkpoint(trained.checkpoint, opts=["MODEL.SGR.ENABLED", "False"], device="cpu")


@pytest.mark.parametrize(
    "opts",
    [
        [],
        ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "elsewhere.pth", "MODEL.CHANNELS_LAST", "True"],
        ["INPUT.MIN_SIZE_TEST", "48", "INPUT.MAX_SIZE_TEST", "90"],
        ["TEST.SLIDING_WINDOW.ENABLED", "True"],
        ["MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD", "0.3", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.3"],
    ],
)
def test_opts_that_a_test_may_choose_are_no_warning(trained, caplog, monkeypatch, opts):
    monkeypatch.setattr(logging.getLogger("sgr_d2"), "propagate", True)
    SGRPredictor.from_checkpoint(trained.checkpoint, opts=opts, device="cpu")
    assert "other settings" not in caplog.text


def test_a_list_of_any_sizes_equals_its_images(predictor, image):
    images = [image, image[:45, :77], image[:, ::-1]]
    together = predictor(images)
    assert [out.labels.shape for out in together] == [(72, 96), (45, 77), (72, 96)]
    for out, single in zip(together, images, strict=True):
        np.testing.assert_allclose(out.scores, predictor(single).scores, rtol=1e-4, atol=1e-5)
    assert predictor([]) == []
    assert len(predictor(np.stack([image, image]))) == 2
    streamed = list(predictor.stream((image for _ in range(5)), batch_size=2))
    assert len(streamed) == 5 and all(np.array_equal(out.labels, together[0].labels) for out in streamed)
    with pytest.raises(ValueError, match=r"batch_size = 0"):
        list(predictor.stream([image], batch_size=0))


def test_a_stream_refuses_a_single_image(predictor, image, scenes):
    path = scenes / "val/images/009.png"
    singles = (str(path), path, Image.open(path), image, image[..., 0], torch.from_numpy(image))
    for single in singles:
        with pytest.raises(TypeError, match=r"stream takes an iterable of images; got .*use predictor\(image\)"):
            list(predictor.stream(single))
    for several in (np.array([str(path)]), image[None], [image[..., 0]]):
        assert len(list(predictor.stream(several))) == 1


def test_a_resized_input_keeps_the_size_of_the_image(trained, image):
    small = SGRPredictor.from_checkpoint(trained.checkpoint, opts=["INPUT.MIN_SIZE_TEST", "48"], device="cpu")
    out = small(image)
    assert out.labels.shape == image.shape[:2] and out.extent == (48 / 8, 64 / 8)


def test_threads_do_not_disturb_each_other(predictor, image):
    images = [image, image[:, ::-1].copy(), image[::-1].copy()]
    expected = [predictor(x) for x in images]
    wrong = []

    def work(index):
        for _ in range(3):
            if not same(predictor(images[index]), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_autocast_gives_float32_close_to_the_exact(trained, predictor, image):
    half = SGRPredictor.from_checkpoint(trained.checkpoint, device="cpu", autocast="bfloat16")
    out = half(image)
    assert out.scores.dtype == out.regions.dtype == out.tokens.dtype == np.float32
    np.testing.assert_allclose(out.regions, predictor(image).regions, atol=0.05)
    with pytest.raises(ValueError, match=r"autocast = 'int8': choose from"):
        SGRPredictor.from_checkpoint(trained.checkpoint, autocast="int8")


def test_nan_scores_are_an_error(trained, image):
    broken = SGRPredictor.from_checkpoint(trained.checkpoint, device="cpu")
    for parameter in broken.model.parameters():
        parameter.data.fill_(np.nan)
    with pytest.raises(ValueError, match=r"scores are NaN"):
        broken(image)


def test_a_head_without_scores_is_named(trained, image):
    silent = SGRPredictor.from_checkpoint(trained.checkpoint, device="cpu")
    silent.model.sem_seg_head.postprocess = lambda prediction, index, size, height, width: {"depth": None}
    with pytest.raises(ValueError, match=r"SemSegFPNHead gives no 'sem_seg'.*`postprocess`.*\(C, height, width\)"):
        silent(image)


def test_the_size_of_test_images_is_told(trained):
    opts = ["INPUT.MIN_SIZE_TEST", "48", "INPUT.MAX_SIZE_TEST", "90"]
    assert SGRPredictor.from_checkpoint(trained.checkpoint, opts=opts, device="cpu").test_size == (48, 90)
    assert SGRPredictor.from_checkpoint(trained.checkpoint, device="cpu").test_size == (0, 0)


def test_the_baseline_has_no_regions(trained, image, tmp_path):
    state = torch.load(trained.checkpoint, weights_only=True)
    config = yaml.safe_load(state[KEY]["config"])
    config["MODEL"]["SGR"]["ENABLED"] = False
    state[KEY]["config"] = yaml.safe_dump(config)
    state["model"] = {name: tensor for name, tensor in state["model"].items() if not name.startswith("sgr.")}
    torch.save(state, tmp_path / "baseline.pth")
    baseline = SGRPredictor.from_checkpoint(tmp_path / "baseline.pth", device="cpu")
    out = baseline(image)
    assert out.regions is None and out.tokens is None and out.labels.shape == (72, 96) and not baseline.has_sgr
    with pytest.raises(ValueError, match=r"no SGR"):
        out.region_map(0)


def test_a_detector_is_refused(trained, tmp_path):
    state = torch.load(trained.checkpoint, weights_only=True)
    config = yaml.safe_load(state[KEY]["config"])
    config["MODEL"]["META_ARCHITECTURE"], config["MODEL"]["SGR"]["ENABLED"] = "RetinaNet", False
    config["MODEL"]["RETINANET"]["IN_FEATURES"] = ["p3", "p4", "p5"]
    config["MODEL"]["ANCHOR_GENERATOR"]["SIZES"] = [[32]]
    state[KEY]["config"] = yaml.safe_dump(config)
    torch.save(state, tmp_path / "detector.pth")
    with pytest.raises(ValueError, match=r"detector\.pth is of a RetinaNet.*Use a trained detector"):
        SGRPredictor.from_checkpoint(tmp_path / "detector.pth", device="cpu")


def test_a_checkpoint_without_card_needs_its_config(trained, predictor, image, tmp_path):
    old = tmp_path / "old.pth"
    torch.save({"model": torch.load(trained.checkpoint, weights_only=True)["model"]}, old)
    with pytest.raises(ValueError, match=r"old\.pth carries no config.*--config-file"):
        SGRPredictor.from_checkpoint(old)
    again = SGRPredictor.from_checkpoint(old, config_file=trained.config, device="cpu")
    assert same(again(image), predictor(image))


def test_a_config_of_other_classes_is_refused(trained, tmp_path):
    state = torch.load(trained.checkpoint, weights_only=True)
    names = state[KEY]["classes"]
    state[KEY]["classes"] = [names[1], names[0], *names[2:]]
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=rf"other\.pth was trained on other classes.*class 0 is {names[1]} there"):
        SGRPredictor.from_checkpoint(tmp_path / "other.pth", config_file=trained.config, device="cpu")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"<html>404</html>", "is a web page"), (b"PK\x03\x04 cut off", "is damaged, truncated or")],
)
def test_a_file_that_is_no_checkpoint(content, message, tmp_path):
    (tmp_path / "wrong.pth").write_bytes(content)
    with pytest.raises(ValueError, match=rf"wrong\.pth {message}"):
        SGRPredictor.from_checkpoint(tmp_path / "wrong.pth")


def test_reading_a_card_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "created"), "w"))

    torch.save({KEY: Evil(), "model": {}}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth: refused to unpickle"):
        read_card(tmp_path / "evil.pth")
    assert not (tmp_path / "created").exists()


@pytest.mark.parametrize("present_format", [True, False])
def test_a_card_beside_numbers_of_numpy_is_read(trained, tmp_path, present_format):
    """Which hooks of one's own may put into a checkpoint, and which the weights are read beside."""
    content = torch.load(trained.checkpoint, weights_only=True) | {"best": np.float64(71.2)}
    torch.save(content, tmp_path / "best.pth", _use_new_zipfile_serialization=present_format)
    assert read_card(tmp_path / "best.pth") == read_card(trained.checkpoint)


def test_files_and_devices_that_are_not_there(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth: no such checkpoint"):
        SGRPredictor.from_checkpoint(tmp_path / "none.pth")
    with pytest.raises(FileNotFoundError, match=r"none\.pth: no such checkpoint"):
        SGRPredictor.from_checkpoint(tmp_path / "none.pth", config_file=trained.config)
    with pytest.raises(FileNotFoundError, match=r"is a folder; give a checkpoint in it, such as model_final\.pth"):
        SGRPredictor.from_checkpoint(tmp_path)
    with pytest.raises(ValueError, match=r"device 'cuda:99': this machine has \d+ GPUs"):
        SGRPredictor.from_checkpoint(trained.checkpoint, device="cuda:99")
    with pytest.raises(ValueError, match=r"give 'cpu', 'cuda'"):
        SGRPredictor.from_checkpoint(trained.checkpoint, device="gpu")


def test_a_card_keeps_the_config_and_says_which_key_it_does_not_know(trained):
    cfg = load_config(str(trained.config))
    card = ModelCard.of(cfg)
    assert yaml.safe_load(card.cfg().dump()) == yaml.safe_load(cfg.dump())
    assert card.classes == CLASSES and card.ignore_label == 255 and len(card.colors) == 3
    state = read_card(trained.checkpoint)
    assert yaml.safe_load(state.cfg().MODEL.dump()) == yaml.safe_load(cfg.MODEL.dump())
    newer = ModelCard(card.config + "NEW_KEY: 1\n", card.classes, card.colors, 255)
    with pytest.raises(ValueError, match=r"NEW_KEY.*--config-file"):
        newer.cfg()


def test_importing_the_package_alone_imports_no_torch():
    code = "import sys, sgr_d2; assert 'torch' not in sys.modules; assert 'SGRPredictor' in dir(sgr_d2); sgr_d2.Nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "AttributeError: module 'sgr_d2' has no attribute 'Nothing'" in done.stderr
