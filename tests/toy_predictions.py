"""Runs tools/predict.py on toy input."""

import cv2
import predict


def run(checkpoint, output, *arguments):
    return predict.main(
        ["--weights", str(checkpoint), "--output", str(output), "--device", "cpu", *map(str, arguments)]
    )


def write_clip(path, frames, rate=10.0):
    """(N, H, W, 3) BGR."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, frames.shape[2:0:-1])
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path
