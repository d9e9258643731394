"""Videos and cameras with OpenCV: reads frames, and writes frames with the classes' colours."""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from sgr_d2.engine import SGRPredictor
from sgr_d2.files import write_json

from .outputs import LAYOUT, OutputFolder, areas

DEFAULT_RATE = 25.0
# The fraction of the frames claimed by a file that must be there.
WHOLE_SHARE = 0.98
# Pattern of the label files of a video, the only ones that a new call may delete.
_FRAME = "[0-9]" * 6


class Frames:
    """The frames of a video file or camera, (H, W, 3) uint8 RGB, every ``stride``-th, at most ``limit``.

    Raises:
        ValueError: if it cannot be opened.
    """

    def __init__(self, source: Path | int, *, stride: int = 1, limit: int | None = None):
        self._capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
        if not self._capture.isOpened():
            what = f"camera {source}" if isinstance(source, int) else str(source)
            raise ValueError(f"{what}: OpenCV cannot open it. Does it exist, is it free, and is its format supported?")
        self._source, self._stride, self._limit = source, stride, limit
        self.is_camera = isinstance(source, int)
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = (rate if 0 < rate < 1000 else DEFAULT_RATE) / stride
        total = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)) if not isinstance(source, int) else 0
        expected = -(-total // stride) if total > 0 else None
        self._expected = total
        self.broken_off = False
        self.total = min(x for x in (expected, limit) if x is not None) if expected or limit else None

    def __iter__(self) -> Iterator[np.ndarray]:
        number = taken = 0
        while self._limit is None or taken < self._limit:
            good, frame = self._capture.read()
            if not good:
                # containers' counts are approximate; a file with less than this is truncated or damaged
                self.broken_off = number < WHOLE_SHARE * self._expected
                break
            if number % self._stride == 0:
                taken += 1
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            number += 1
        if number == 0:
            raise ValueError(f"{self._source}: not a single frame could be read; the file is damaged or empty.")

    def close(self) -> None:
        self._capture.release()


class OverlayVideo:
    """An .mp4 that gets its name when it is complete."""

    def __init__(self, path: Path, rate: float):
        # MPEG-4 stores rates as fractions with a denominator of at most 65535
        self._path, self._rate = path, round(rate, 3) if rate < 65 else round(rate, 2)
        self._temporary = path.with_name(f".{path.stem}.part{path.suffix}")
        self._writer: cv2.VideoWriter | None = None

    def add(self, frame: np.ndarray) -> None:
        """Append (H, W, 3) RGB; odd sizes lose their last row or column, which the codec does not support."""
        frame = frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2]
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            code = cv2.VideoWriter_fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._temporary), code, self._rate, frame.shape[1::-1])
            if not self._writer.isOpened():
                raise ValueError(f"{self._path}: this OpenCV cannot write mp4 videos; use --no-overlays.")
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.release()
            os.replace(self._temporary, self._path)

    def drop(self) -> None:
        if self._writer is not None:
            self._writer.release()
        self._temporary.unlink(missing_ok=True)


def predict_frames(
    predictor: SGRPredictor,
    frames: Frames,
    source: str,
    name: str,
    output: OutputFolder,
    *,
    made_from: dict[str, int] | None = None,
    show: bool = False,
    tick,
) -> int:
    """Predict all frames and return their number; q in the window, or Ctrl-C for a camera, ends early.

    Writes labels/<name>/<frame>.png, overlays/<name>.mp4 and areas/<name>.json with a list of frames, and with
    ``made_from``, the `stamp` of the file.

    Raises:
        ValueError: if the file broke off before its end (results up to there are written), or the folder for its labels
            contains those of images.
    """
    video = OverlayVideo(output.path("overlays", name, ".mp4"), frames.rate)
    found = []
    _make_room(output, name)
    try:
        for frame in frames:
            prediction = predictor(frame, scores=False)
            output.write_labels(f"{name}/{len(found):06d}", prediction)
            found.append(areas(prediction))
            overlay = prediction.overlay(frame, output.opacity) if output.overlays or show else None
            if output.overlays:
                video.add(overlay)
            tick()
            if show and not _shown(overlay):
                break
    except KeyboardInterrupt:
        if not (found and frames.is_camera):  # a file is predicted as a whole by the next call
            video.drop()
            raise
    except BaseException:
        video.drop()
        raise
    finally:
        frames.close()
        if show:
            cv2.destroyAllWindows()
    video.finish()
    head = {"file": source, "model": output.model, "frames_per_second": frames.rate, "num_frames": len(found)}
    head["broken_off"] = frames.broken_off
    head["made_with"] = output.made_with(video=True)
    if made_from is not None:
        head["source"] = made_from
    write_json(head | {"frames": found}, output.path("areas", name, ".json"), **LAYOUT)
    if frames.broken_off:
        raise ValueError(
            f"{source}: broke off after {len(found)} of {frames.total} frames; the file is truncated or damaged."
        )
    return len(found)


def _make_room(output: OutputFolder, name: str) -> None:
    """Remove only the labels of an earlier call, which may have had more frames."""
    if (output.folder / "areas" / name).is_dir():
        raise ValueError(
            f"{output.folder / 'labels' / name} holds the labels of images of a folder {name}; choose another --output."
        )
    for old in (output.folder / "labels" / name).glob(f"{_FRAME}*.png"):
        old.unlink()


def _shown(overlay: np.ndarray) -> bool:
    """Show a frame; returns False if the user pressed q or Escape."""
    cv2.imshow("sgr_d2", cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR))
    return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)
