"""The output files of a prediction: labels, overlay, regions, areas; each is written atomically."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sgr_d2.data.datasets import SemanticMetadata
from sgr_d2.engine import Prediction, load_config
from sgr_d2.files import appearing_whole, write_json
from sgr_d2.visualization.palette import token_colors
from sgr_d2.visualization.panels import region_panel

# How `write_json` writes these files.
LAYOUT = {"indent": 1, "ensure_ascii": False}


class OutputFolder:
    """
    labels/<name>.png      the class of each pixel, 8 bits (16 for more than 256 classes)
    overlays/<name>.jpg    the classes' colours over the image
    regions/<name>/        with ``num_regions``, the largest regions: token_017.jpg
    areas/<name>.json      fraction and number of pixels of each class; the model, as a digest of classes.json; size
                           and time of change of the input; the options of `made_with`
    classes.json           names and colours by label
    """

    def __init__(
        self,
        folder: Path,
        model: dict,
        *,
        num_regions: int = 0,
        overlays: bool = True,
        opacity: float = 0.5,
        stride: int = 1,
        max_frames: int | None = None,
    ):
        """``model`` is that of `describe`; ``stride`` and ``max_frames`` are those of `Frames`."""
        self.folder = folder
        self.described = model
        self.model = hashlib.sha256(json.dumps(model, sort_keys=True).encode()).hexdigest()[:16]
        self.num_regions = num_regions
        self.overlays = overlays
        self.opacity = opacity
        self._frames = {"stride": stride, "max_frames": max_frames}

    def path(self, kind: str, name: str, suffix: str) -> Path:
        return self.folder / kind / f"{name}{suffix}"

    def made_with(self, *, video: bool) -> dict:
        """The options on which the wanted outputs of an image or video depend, beside those of `describe`."""
        pictures = {"opacity": self.opacity} if self.overlays else {}
        if video:
            return pictures | self._frames
        return pictures | ({"regions": self.num_regions} if self.num_regions else {})

    def exists(self, name: str, source: Path | None = None) -> bool:
        """Whether ``name`` is done by this model from what ``source`` holds now, with all pictures wanted now and
        the same options of `made_with`; areas are written last, and say if a video broke off.

        Raises:
            FileExistsError: if existing results are of another file than ``source``.
        """
        path = self.path("areas", name, ".json")
        if not path.is_file():
            return False
        found = json.loads(path.read_text(encoding="utf-8"))
        if source is not None and Path(found["file"]).resolve() != source.resolve():
            raise FileExistsError(
                f"{path}: these results are of {found['file']}, not of {source}. Choose another --output, or "
                "--overwrite."
            )
        if found.get("model", self.model) != self.model:  # since --overwrite with another model
            return False
        if source is not None and self.has_changed(name, source):
            return False
        video = "frames" in found
        lacks_overlay = self.overlays and not self.path("overlays", name, ".mp4" if video else ".jpg").is_file()
        lacks_regions = self.num_regions > 0 and not video and not (self.folder / "regions" / name).is_dir()
        wanted = self.made_with(video=video)
        before = found.get("made_with", wanted)
        other_options = any(before.get(option) != value for option, value in wanted.items())
        return not (found.get("broken_off", False) or lacks_overlay or lacks_regions or other_options)

    def has_changed(self, name: str, source: Path) -> bool:
        """Whether there are results of ``name``, of another content of ``source``; False for those without a stamp."""
        path = self.path("areas", name, ".json")
        if not path.is_file():
            return False
        made_from = json.loads(path.read_text(encoding="utf-8")).get("source")
        return made_from is not None and made_from != stamp(source)

    def write_classes(self, *, overwrite: bool = False) -> None:
        """
        Raises:
            FileExistsError: if the folder holds results of other classes, weights or options, and ``overwrite`` is
                False.
        """
        content, path = self.described, self.folder / "classes.json"
        if not overwrite and path.is_file() and any((self.folder / "areas").rglob("*.json")):
            found = json.loads(path.read_text(encoding="utf-8"))
            other = [key for key in content if found.get(key, content[key]) != content[key]]
            if other:
                names = {"weights": "weights", "config": "--config-file", "opts": "--opts", "autocast": "--autocast"}
                what = names.get(other[0] if len(other) == 1 else "", "classes")
                raise FileExistsError(
                    f"{path}: these results are of a model with other {what}. Give another --output, or --overwrite."
                )
        write_json(content, path, **LAYOUT)

    def write_image(
        self, name: str, source: Path, image: np.ndarray, prediction: Prediction, *, made_from: dict[str, int]
    ) -> None:
        """Write all outputs of one image (H, W, 3) RGB; ``made_from`` is the `stamp` of its file before it was read."""
        self.write_labels(name, prediction)
        if self.overlays:
            overlay = Image.fromarray(prediction.overlay(image, self.opacity))
            with appearing_whole(self.path("overlays", name, ".jpg")) as temporary:
                overlay.save(temporary, "JPEG", quality=92)
        if self.num_regions:
            self._write_regions(name, image, prediction)
        height, width = prediction.labels.shape
        head = {"file": str(source), "source": made_from, "model": self.model, "height": height, "width": width}
        head["made_with"] = self.made_with(video=False)
        write_json(head | {"areas": areas(prediction)}, self.path("areas", name, ".json"), **LAYOUT)

    def write_labels(self, name: str, prediction: Prediction) -> None:
        with appearing_whole(self.path("labels", name, ".png")) as temporary:
            Image.fromarray(prediction.labels).save(temporary, "PNG")

    def _write_regions(self, name: str, image: np.ndarray, prediction: Prediction) -> None:
        maps = prediction.region_maps()
        colors = token_colors(len(maps))
        for old in (self.folder / "regions" / name).glob("token_*.jpg"):  # may be of other tokens
            old.unlink()
        for summary in maps.strongest(self.num_regions, prediction.labels, len(prediction.classes)):
            panel = Image.fromarray(region_panel(image, maps.map_of(summary.token), colors[summary.token]))
            target = self.path("regions", f"{name}/token_{summary.token:03d}", ".jpg")
            with appearing_whole(target) as temporary:
                panel.save(temporary, "JPEG", quality=90)


def describe(
    info: SemanticMetadata,
    weights: str | Path,
    opts: Sequence[str] = (),
    *,
    config_file: str | Path | None = None,
    autocast: str | None = None,
) -> dict:
    """What classes.json holds: names and colours by label, the checkpoint, its config, if that is in a file of its own,
    the options (KEY VALUE), and the precision.
    """
    classes = [
        {"label": label, "name": name, "color": list(color)}
        for label, (name, color) in enumerate(zip(info.classes, info.colors, strict=True))
    ]
    checkpoint = {"file": Path(weights).name, "sha256": digest(weights)}
    config = None
    if config_file is not None:  # with what it inherits
        content = load_config(str(config_file)).dump().encode()
        config = {"file": Path(config_file).name, "sha256": hashlib.sha256(content).hexdigest()}
    model = {"opts": list(opts), "autocast": autocast, "weights": checkpoint, "config": config}
    return {"classes": classes, "ignore_label": info.ignore_label} | model


def stamp(path: Path) -> dict[str, int]:
    """What tells that the content of a file has changed: its size in bytes, and when it was written, in ns."""
    found = path.stat()
    return {"size": found.st_size, "modified_ns": found.st_mtime_ns}


def digest(path: str | Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**24):
            found.update(block)
    return found.hexdigest()


def areas(prediction: Prediction) -> dict[str, dict[str, float]]:
    """{class: {"share": 0..1, "pixels": count}}, largest first."""
    size = prediction.labels.size
    return {
        name: {"share": round(share, 6), "pixels": round(share * size)}
        for name, share in prediction.class_areas().items()
    }
