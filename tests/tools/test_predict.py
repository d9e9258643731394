import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prediction.inputs import _named, find_inputs
from prediction.outputs import OutputFolder, describe
from toy_checkpoint import CLASSES, write_checkpoint
from toy_predictions import run

from sgr_d2.engine import SGRPredictor


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model.pth")


def test_a_folder_with_a_broken_file(checkpoint, photos, tmp_path, capsys):
    output = tmp_path / "out"
    assert run(checkpoint, output, photos, "--regions", 2, "--batch-size", 2) == 1
    text = capsys.readouterr()
    assert "broken.jpg" in text.err and "2 predicted, 1 failed" in text.out
    predictor = SGRPredictor.from_checkpoint(checkpoint, device="cpu")
    for name, source in (("one", "one.png"), ("sub/two", "sub/two.jpg")):
        expected = predictor(photos / source)
        labels = np.asarray(Image.open(output / "labels" / f"{name}.png"))
        assert labels.dtype == np.uint8 and np.array_equal(labels, expected.labels)
        areas = json.loads((output / "areas" / f"{name}.json").read_text())
        assert areas["areas"] == {
            CLASSES[c]: {"share": round(float((labels == c).mean()), 6), "pixels": int((labels == c).sum())}
            for c in np.unique(labels)
        }
        assert (areas["height"], areas["width"]) == labels.shape
        assert Image.open(output / "overlays" / f"{name}.jpg").size == labels.shape[::-1]
        assert len(list((output / "regions" / name).glob("token_*.jpg"))) == 2
    assert [c["name"] for c in json.loads((output / "classes.json").read_text())["classes"]] == CLASSES
    assert not [path for path in output.rglob("*") if path.name.startswith(".") or "broken" in path.name]


def test_results_are_kept_unless_overwrite_is_given(checkpoint, photos, tmp_path, capsys):
    output = tmp_path / "out"
    assert run(checkpoint, output, photos / "one.png") == 0
    label = output / "labels/one.png"
    label.write_bytes(b"mine")
    assert run(checkpoint, output, photos / "one.png") == 0
    assert label.read_bytes() == b"mine" and "0 predicted, 1 kept" in capsys.readouterr().out
    assert run(checkpoint, output, photos / "one.png", "--overwrite") == 0
    assert label.read_bytes() != b"mine"


def test_an_input_that_has_changed_is_predicted_again(checkpoint, photos, tmp_path, capsys):
    output, photo = tmp_path / "out", photos / "one.png"
    assert run(checkpoint, output, photo, photos / "sub") == 0
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(photo)
    assert run(checkpoint, output, photo, photos / "sub") == 0
    said = capsys.readouterr().out
    assert "1 predicted, 1 kept" in said and "1 of these inputs had results from before they were changed" in said
    assert Image.open(output / "labels/one.png").size == (40, 30)
    # another picture of the same size in bytes is told by its time
    os.utime(photo, ns=(1, 1))
    assert run(checkpoint, output, photo) == 0 and "1 predicted: " in capsys.readouterr().out
    # results without a record of the input, of an earlier version, are kept
    areas = output / "areas/one.json"
    areas.write_text(json.dumps({k: v for k, v in json.loads(areas.read_text()).items() if k != "source"}))
    assert run(checkpoint, output, photo) == 0 and "0 predicted, 1 kept" in capsys.readouterr().out


def test_what_is_asked_for_later_is_made_as_well(checkpoint, photos, tmp_path, capsys):
    output = tmp_path / "out"
    assert run(checkpoint, output, photos / "one.png", "--no-overlays") == 0
    assert run(checkpoint, output, photos / "one.png") == 0 and (output / "overlays/one.jpg").is_file()
    assert run(checkpoint, output, photos / "one.png", "--regions", 2) == 0 and (output / "regions/one").is_dir()
    assert run(checkpoint, output, photos / "one.png", "--regions", 2) == 0
    assert "0 predicted, 1 kept" in capsys.readouterr().out
    assert run(checkpoint, output, photos / "one.png", "--opts", "INPUT.MIN_SIZE_TEST", 32) == 2
    assert "these results are of a model with other --opts" in capsys.readouterr().err


def test_pictures_of_other_options_are_made_again(checkpoint, photos, tmp_path, capsys):
    output, photo = tmp_path / "out", photos / "one.png"
    assert run(checkpoint, output, photo, "--regions", 3) == 0
    assert run(checkpoint, output, photo, "--regions", 2) == 0 and "1 predicted: " in capsys.readouterr().out
    assert len(list((output / "regions/one").iterdir())) == 2
    overlay = (output / "overlays/one.jpg").read_bytes()
    assert run(checkpoint, output, photo, "--opacity", 1) == 0 and "1 predicted: " in capsys.readouterr().out
    assert (output / "overlays/one.jpg").read_bytes() != overlay
    # what is not wanted now makes no difference, nor do the options of videos
    assert run(checkpoint, output, photo, "--no-overlays", "--opacity", 0.2, "--stride", 2, "--max-frames", 9) == 0
    assert "0 predicted, 1 kept" in capsys.readouterr().out
    assert run(checkpoint, output, photo, "--opacity", 1, "--autocast", "bfloat16") == 2
    assert "these results are of a model with other --autocast" in capsys.readouterr().err


def test_labels_of_other_classes_are_not_mixed(checkpoint, photos, tmp_path, capsys):
    output = tmp_path / "out"
    assert run(checkpoint, output, photos / "one.png") == 0
    classes = output / "classes.json"
    classes.write_text(classes.read_text().replace(f'"{CLASSES[0]}"', '"another"'))
    assert run(checkpoint, output, photos / "one.png") == 2
    assert "of a model with other classes" in capsys.readouterr().err
    assert run(checkpoint, output, photos / "one.png", "--overwrite") == 0


def test_results_of_another_config_are_not_mixed(checkpoint, photos, tmp_path):
    """Also if only a config changed that it inherits from."""
    predictor = SGRPredictor.from_checkpoint(checkpoint, device="cpu")
    base, config, output = tmp_path / "base.yaml", tmp_path / "run.yaml", tmp_path / "out"
    base.write_text("DATASETS: {TEST: [camvid_val]}\nINPUT: {MIN_SIZE_TEST: 64}\n")
    config.write_text("_BASE_: base.yaml\n")
    assert run(checkpoint, output, photos / "one.png") == 0
    described = describe(predictor.metadata, checkpoint)
    OutputFolder(output, described).write_classes()
    told = r"of a model with other --config-file\. Give"
    with pytest.raises(FileExistsError, match=told):
        OutputFolder(output, describe(predictor.metadata, checkpoint, config_file=config)).write_classes()
    OutputFolder(output, describe(predictor.metadata, checkpoint, config_file=config)).write_classes(overwrite=True)
    with pytest.raises(FileExistsError, match=told):
        OutputFolder(output, described).write_classes()
    base.write_text(base.read_text().replace("64", "96"))
    with pytest.raises(FileExistsError, match=told):
        OutputFolder(output, describe(predictor.metadata, checkpoint, config_file=config)).write_classes()


def test_other_photographs_of_the_same_name_are_not_taken_for_done(checkpoint, photos, tmp_path, capsys):
    output, other = tmp_path / "out", tmp_path / "other"
    other.mkdir()
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(other / "one.png")
    assert run(checkpoint, output, photos / "one.png") == 0
    assert run(checkpoint, output, other) == 2
    assert f"these results are of {photos / 'one.png'}, not of {other / 'one.png'}" in capsys.readouterr().err
    assert run(checkpoint, output, other, "--overwrite") == 0
    assert Image.open(output / "labels/one.png").size == (40, 30)
    again = write_checkpoint(tmp_path / "again.pth", sgr=False)
    assert run(again, output, other) == 2
    assert "of a model with other weights" in capsys.readouterr().err


def test_an_image_too_large_for_the_memory_is_passed_over(checkpoint, photos, tmp_path, capsys, monkeypatch):
    original = SGRPredictor._prediction

    def limited(self, output, with_scores):
        if output["sem_seg"].shape[-1] == 63:
            raise RuntimeError("out of memory\nmore")
        return original(self, output, with_scores)

    monkeypatch.setattr(SGRPredictor, "_prediction", limited)
    (photos / "broken.jpg").unlink()
    assert run(checkpoint, tmp_path / "out", photos, "--batch-size", 2) == 1
    text = capsys.readouterr()
    assert "one.png: 63x45 pixels could not be predicted: out of memory" in text.err
    assert "1 predicted, 1 failed" in text.out


def test_an_image_too_narrow_to_be_scaled_is_passed_over(checkpoint, photos, tmp_path, capsys):
    (photos / "broken.jpg").unlink()
    Image.new("RGB", (3000, 1)).save(photos / "line.png")
    opts = ["--opts", "INPUT.MIN_SIZE_TEST", 32, "INPUT.MAX_SIZE_TEST", 64]
    assert run(checkpoint, tmp_path / "out", photos, "--batch-size", 3, *opts) == 1
    text = capsys.readouterr()
    assert "line.png: 3000x1 pixels could not be predicted" in text.err
    assert "2 predicted, 1 failed" in text.out and (tmp_path / "out/labels/sub/two.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nothing_here"], "nothing_here: no such file or folder"),
        (["*.nothing"], "as a pattern it matches no file"),
        (["--weights", "none.pth", "{photo}"], "none.pth: no such checkpoint"),
        (["--weights", "{folder}", "{photo}"], "is a folder; give a checkpoint in it"),
        (["--device", "tpu9", "{photo}"], "give 'cpu', 'cuda'"),
        (["--device", "mps", "{photo}"], "device 'mps': models run on 'cpu', 'cuda' or"),
        (["{photo}", "--opts", "MODEL.NOTHING", "1"], "no config key MODEL.NOTHING"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(checkpoint, photos, tmp_path, capsys, arguments, text):
    arguments = [a.replace("{photo}", str(photos / "one.png")).replace("{folder}", str(photos)) for a in arguments]
    assert run(checkpoint, tmp_path / "out", *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert text in error[-1] and len([line for line in error if "Error" in line]) == 0
    assert not (tmp_path / "out").exists()


def test_results_go_to_a_folder(checkpoint, photos, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for output in ("file", "file/deeper"):
        with pytest.raises(SystemExit):
            run(checkpoint, tmp_path / output, photos / "one.png")
        assert f"{tmp_path / 'file'} is a file; give a folder" in capsys.readouterr().err


def test_a_folder_without_a_result_takes_other_options(checkpoint, photos, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert run(checkpoint, tmp_path / "out", tmp_path / "broken.png") == 1
    other = ["--opts", "INPUT.MIN_SIZE_TEST", "32"]
    assert run(checkpoint, tmp_path / "out", photos / "one.png", *other) == 0
    assert run(checkpoint, tmp_path / "out", photos / "one.png") == 2
    assert "with other --opts" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["x.png", "--webcam", "0"], ["x.png", "--opacity", "2"], ["x", "--stride", "0"]]
)
def test_arguments_that_contradict(checkpoint, tmp_path, arguments):
    with pytest.raises(SystemExit) as stop:
        run(checkpoint, tmp_path / "out", *arguments)
    assert stop.value.code == 2


def test_regions_need_a_model_with_sgr(photos, tmp_path, capsys):
    baseline = write_checkpoint(tmp_path / "baseline.pth", sgr=False)
    assert run(baseline, tmp_path / "out", photos / "one.png") == 0
    assert run(baseline, tmp_path / "out2", photos / "one.png", "--regions", 1) == 2
    peer = write_checkpoint(tmp_path / "peer.pth", sgr=False, peer="NonLocal")
    assert run(peer, tmp_path / "out3", photos / "one.png", "--regions", 1) == 2
    why = "this model has no SGR (MODEL.SGR.ENABLED is False, or a peer is in its place), hence no regions"
    assert capsys.readouterr().err.count(why) == 2


def test_names_of_outputs(photos, tmp_path):
    (photos / "one.jpg").write_bytes(b"")
    found = find_inputs([str(photos)], exclude=photos / "sub")
    assert [item.name for item in found] == ["broken", "one_jpg", "one_png"]
    found = find_inputs([str(photos / "**/*.jpg"), str(photos / "sub")], exclude=tmp_path / "out")
    assert [item.name for item in found] == ["broken", "one", "sub/two"]  # each file once, by its first name
    (photos / "sub/one.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"would write the same outputs \(one_png\)"):
        find_inputs([str(photos / "one.png"), str(photos / "sub/one.png")], exclude=tmp_path / "out")
    (photos / "sub.mp4").write_bytes(b"")
    assert "sub_mp4" in [item.name for item in find_inputs([str(photos)], exclude=tmp_path / "out")]
    with pytest.raises(FileNotFoundError, match=r"photos: all images and videos in it are in .*another --output"):
        find_inputs([str(photos)], exclude=photos)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no image or video in this folder"):
        find_inputs([str(tmp_path / "empty")], exclude=tmp_path / "out")


def test_many_outputs_are_named_in_time():
    """The frames of a few long videos; comparing each with all others took 18 seconds."""
    files = {Path(f"/shots/{i % 4}/frame_{i:06d}.png"): f"{i % 4}/frame_{i:06d}.png" for i in range(48000)}
    start = time.process_time()
    assert [item.name for item in _named(files)] == [name.removesuffix(".png") for name in files.values()]
    assert time.process_time() - start < 5


def test_links_are_inputs_of_their_own_and_other_types_are_told(checkpoint, photos, tmp_path, capsys):
    (photos / "broken.jpg").unlink()
    (photos / "link.png").symlink_to(photos / "one.png")
    for name in ("x.HEIC", "y.gif", "sub/z.gif", "README"):
        (photos / name).touch()
    assert run(checkpoint, tmp_path / "out", photos) == 0
    said = capsys.readouterr().out
    assert "3 predicted" in said
    assert "4 files of other types are left out: 2 .gif, 1 .heic, 1 no suffix." in said
    assert run(checkpoint, photos / "out", photos) == 0  # what it writes there itself is no input
    assert "4 files of other types are left out" in capsys.readouterr().out
    assert (tmp_path / "out/labels/link.png").read_bytes() == (tmp_path / "out/labels/one.png").read_bytes()
