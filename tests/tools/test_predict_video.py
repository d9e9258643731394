import json

import cv2
import numpy as np
import pytest
from PIL import Image
from prediction import video
from prediction.outputs import OutputFolder, describe
from prediction.video import Frames, predict_frames
from toy_checkpoint import write_checkpoint
from toy_predictions import run, write_clip

from sgr_d2.engine import Prediction, SGRPredictor


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model.pth")


@pytest.fixture
def clip(tmp_path):
    frames = np.broadcast_to(30 * np.arange(7, dtype=np.uint8)[:, None, None, None], (7, 48, 64, 3))
    return write_clip(tmp_path / "clip.avi", np.ascontiguousarray(frames))


def test_a_video_becomes_labels_areas_and_a_video(checkpoint, clip, tmp_path):
    output = tmp_path / "out"
    assert run(checkpoint, output, clip, "--stride", 2) == 0
    areas = json.loads((output / "areas/clip.json").read_text())
    assert areas["num_frames"] == len(areas["frames"]) == 4 and areas["frames_per_second"] == 5
    assert len(list((output / "labels/clip").glob("*.png"))) == 4
    written = cv2.VideoCapture(str(output / "overlays/clip.mp4"))
    assert written.get(cv2.CAP_PROP_FRAME_COUNT) == 4 and written.get(cv2.CAP_PROP_FRAME_WIDTH) == 64
    assert run(checkpoint, tmp_path / "few", clip, "--max-frames", 1, "--no-overlays") == 0
    assert json.loads((tmp_path / "few/areas/clip.json").read_text())["num_frames"] == 1
    assert not (tmp_path / "few/overlays").exists()


def test_overlays_are_made_if_they_are_written_or_shown(checkpoint, clip, tmp_path, monkeypatch):
    predictor, made, shown = SGRPredictor.from_checkpoint(checkpoint, device="cpu"), [], []
    monkeypatch.setattr(Prediction, "overlay", lambda self, frame, opacity: made.append(1) or frame)
    monkeypatch.setattr(video, "_shown", lambda frame: shown.append(frame) or True)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    output = OutputFolder(tmp_path / "out", describe(predictor.metadata, checkpoint), overlays=False)
    assert predict_frames(predictor, Frames(clip), "clip.avi", "clip", output, tick=lambda: None) == 7
    assert not made
    assert predict_frames(predictor, Frames(clip), "clip.avi", "clip", output, show=True, tick=lambda: None) == 7
    assert len(made) == len(shown) == 7 and not (tmp_path / "out/overlays").exists()


def test_frames_keep_their_colours_and_their_rate(checkpoint, tmp_path):
    red = np.zeros((4, 48, 64, 3), np.uint8)
    red[..., 2] = 230  # OpenCV's order
    write_clip(tmp_path / "red.avi", red, rate=66.6667)
    (frame, *_) = Frames(tmp_path / "red.avi")
    assert frame[..., 0].min() > 180 and frame[..., 1:].max() < 60
    assert run(checkpoint, tmp_path / "out", tmp_path / "red.avi", "--opacity", 0) == 0
    written = cv2.VideoCapture(str(tmp_path / "out/overlays/red.mp4"))
    shown = written.read()[1]
    assert shown[..., 2].min() > 180 and shown[..., :2].max() < 60
    assert written.get(cv2.CAP_PROP_FPS) == pytest.approx(66.67, abs=0.01)


def test_a_shorter_result_replaces_a_longer_one(checkpoint, clip, photos, tmp_path):
    output = tmp_path / "out"
    assert run(checkpoint, output, clip) == 0
    assert run(checkpoint, output, clip, "--max-frames", 2, "--overwrite") == 0
    assert len(list((output / "labels/clip").iterdir())) == 2
    assert run(checkpoint, output, photos / "one.png", "--regions", 3) == 0
    assert run(checkpoint, output, photos / "one.png", "--regions", 1, "--overwrite") == 0
    assert len(list((output / "regions/one").iterdir())) == 1


def test_a_video_that_has_changed_is_predicted_again(checkpoint, clip, tmp_path, capsys):
    output = tmp_path / "out"
    assert run(checkpoint, output, clip) == 0 and run(checkpoint, output, clip) == 0
    assert "0 predicted, 1 kept" in capsys.readouterr().out
    write_clip(clip, np.full((3, 48, 64, 3), 99, np.uint8))
    assert run(checkpoint, output, clip) == 0
    assert "1 of these inputs had results from before they were changed" in capsys.readouterr().out
    assert json.loads((output / "areas/clip.json").read_text())["num_frames"] == 3


def test_other_frames_of_a_video_are_predicted_again(checkpoint, clip, tmp_path, capsys):
    output = tmp_path / "out"
    assert run(checkpoint, output, clip, "--max-frames", 2) == 0
    for options, number in ((["--max-frames", 3], 3), ([], 7), (["--stride", 2], 4)):
        capsys.readouterr()
        assert run(checkpoint, output, clip, *options) == 0 and "1 predicted: " in capsys.readouterr().out
        assert len(list((output / "labels/clip").iterdir())) == number
    assert run(checkpoint, output, clip, "--stride", 2, "--regions", 2) == 0
    assert "0 predicted, 1 kept" in capsys.readouterr().out


def test_a_file_stopped_by_ctrl_c_is_not_done(checkpoint, clip, tmp_path, monkeypatch):
    predictor = SGRPredictor.from_checkpoint(checkpoint, device="cpu")
    output = OutputFolder(tmp_path / "out", describe(predictor.metadata, checkpoint))
    ticks = []

    def tick():
        ticks.append(1)
        if len(ticks) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_frames(predictor, Frames(clip), "clip.avi", "clip", output, tick=tick)
    assert not output.exists("clip") and not list((tmp_path / "out").rglob("*.mp4"))
    ticks.clear()
    frames = Frames(clip)
    frames.is_camera = True  # whose recording ends so
    assert predict_frames(predictor, frames, "camera 0", "clip", output, tick=tick) == 3
    assert output.exists("clip")


def test_a_video_that_breaks_off_is_a_failure_every_time(checkpoint, tmp_path, capsys):
    path = tmp_path / "cut.avi"
    write_clip(path, np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for _ in range(2):
        assert run(checkpoint, tmp_path / "out", path) == 1
        assert "of 40 frames; the file is truncated or damaged" in capsys.readouterr().err
    areas = json.loads((tmp_path / "out/areas/cut.json").read_text())
    assert 5 < areas["num_frames"] == len(areas["frames"]) < 30 and areas["broken_off"]


def test_a_damaged_video_and_a_missing_camera(checkpoint, tmp_path, capsys):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    assert run(checkpoint, tmp_path / "out", tmp_path / "bad.mp4") == 1
    assert "OpenCV cannot open it" in capsys.readouterr().err
    assert run(checkpoint, tmp_path / "out", "--webcam", 99) == 1
    assert "camera 99" in capsys.readouterr().err


def test_folders_in_folders_lose_nothing(checkpoint, tmp_path):
    """The folder of the regions of a.png, and of the frames of a.avi, is also that of a folder a."""
    (tmp_path / "set/a").mkdir(parents=True)
    for name in ("set/a.png", "set/a/b.png"):
        Image.fromarray(np.full((40, 48, 3), 99, np.uint8)).save(tmp_path / name)
    output = tmp_path / "out"
    assert run(checkpoint, output, tmp_path / "set", "--regions", 2) == 0
    assert list((output / "regions/a/b").glob("token_*.jpg")) and list((output / "regions/a").glob("token_*.jpg"))
    write_clip(tmp_path / "a.avi", np.zeros((3, 48, 64, 3), np.uint8))
    labels = (output / "labels/a/b.png").read_bytes()
    assert run(checkpoint, output, tmp_path / "a.avi", "--overwrite") == 1
    assert (output / "labels/a/b.png").read_bytes() == labels


def test_results_of_another_model_are_not_taken_for_done(checkpoint, photos, clip, tmp_path, capsys):
    """--overwrite of one input names the new model in classes.json; results of the others are still the old one's."""
    output, other = tmp_path / "out", write_checkpoint(tmp_path / "other.pth", sgr=False)
    assert run(checkpoint, output, photos / "one.png", photos / "sub", clip) == 0
    assert run(other, output, photos / "one.png", "--overwrite") == 0
    capsys.readouterr()
    assert run(other, output, photos / "one.png", photos / "sub", clip) == 0
    assert "2 predicted, 1 kept" in capsys.readouterr().out
    assert len({json.loads(path.read_text())["model"] for path in (output / "areas").rglob("*.json")}) == 1
    assert run(other, output, photos / "one.png", photos / "sub", clip) == 0
    assert "0 predicted, 3 kept" in capsys.readouterr().out
