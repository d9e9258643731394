"""Loads checkpoints of sgr_d2 and other codes, with a report of what was loaded, skipped and missing."""

import logging
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.error import URLError
from urllib.parse import parse_qs

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from torch import Tensor, nn

from sgr_d2.messages import first_few
from sgr_d2.modeling.backbone import name_in_state_dict
from sgr_d2.modeling.sgr.parts import is_part_of_sgr

from .checkpoint_file import read_checkpoint, require_weights
from .detector_keys import check_backbone
from .key_maps import match_keys
from .last_checkpoint import UNFINISHED, find_last, tag
from .load_report import MADE_ANEW, LoadReport, Skipped, make_report, summary
from .model_card import classes_in, settings_in

logger = logging.getLogger(__name__)


def load_weights(model: nn.Module, path: str | Path) -> LoadReport:
    """Load the tensors of a checkpoint that fit ``model`` by name and shape, whatever code wrote the file.

    Args:
        path: a file of sgr_d2, Detectron2 (including its model zoo) or Mask2Former, or an ImageNet backbone of
            torchvision, timm, Swin or Caffe2, as published; a path or URL that Detectron2 supports. No code in the
            file is run.

    Returns:
        What was loaded, skipped because of its shape, missing, new, and unused; it is also logged.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, contains more than tensors and plain data, or nothing in it fits.
    """
    if not str(path):
        raise FileNotFoundError("load_weights: the path is empty. Give the path of a checkpoint.")
    checkpointer = Checkpointer(model)
    checkpointer.load(str(path), checkpointables=[])
    return checkpointer.report


def require_all_parameters(model: nn.Module, report: LoadReport, path: str, changed: str = "") -> None:
    """Check that a model that will not be trained any further was loaded completely.

    Args:
        model: after loading.
        report: of the load.
        path: of the file, for the message.
        changed: how its settings differ, for the message, as the end of a sentence.

    Raises:
        ValueError: if a parameter, a norm's statistics or another buffer that the model does not compute itself was
            missing from the file, or had another shape: it would keep its initial value.
    """
    absent = absent_parameters(model, report)
    if absent and all(name.startswith("backbone.") for name in report.loaded):
        raise ValueError(
            f"{path} holds only a backbone, to start training from: {len(absent)} other parameters of the model "
            "would be untrained. Give the checkpoint of a training run as MODEL.WEIGHTS, or --resume for the last one "
            "in OUTPUT_DIR."
        )
    if absent:
        raise ValueError(
            f"{path}: {len(absent)} parameters of the model are missing from the file or have another shape, and would "
            f"be untrained: {summary(absent)}. {f'It {changed} ' if changed else ''}Give the config of the training "
            "run: config.yaml next to the checkpoint."
        )


def require_use_of_sgr(report: LoadReport, path: str, changed: str = "") -> None:
    """Check that a model that will not be trained any further has SGR, or a peer of it, if the file has.

    Args:
        report, path, changed: as for `require_all_parameters`.

    Raises:
        ValueError: if not: its head would see other features than those with which it was trained.
    """
    for what, is_part in (("SGR", is_part_of_sgr), ("a peer of SGR", lambda name: name.startswith("peer."))):
        in_file = [name for name in report.unused if is_part(name)]
        if in_file and not any(is_part(name) for name in report.loaded):
            raise ValueError(
                f"{path} has {what}, and this model has not: {len(in_file)} tensors would be left out, without which "
                f"it was not trained. {f'It {changed} ' if changed else ''}Give the config of the training run: "
                "config.yaml next to the checkpoint."
            )


def absent_parameters(model: nn.Module, report: LoadReport) -> list[str]:
    """The parameters and buffers that were missing or had another shape, without those that the model computes."""
    loaded = set(report.loaded)
    return [name for name in model.state_dict() if name not in loaded and not MADE_ANEW.search(name)]


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer with safe reading, key maps, a report, and an error if nothing fits.

    A file gets its final name only when complete: a full disk, Ctrl-C or a killed job leaves any previous file of that
    name, and ``last_checkpoint``, unchanged.
    """

    # Results of the last load.
    report: LoadReport | None = None
    path = ""
    classes: list[str] | None = None  # None if the file does not name them
    settings: Mapping[str, Any] = MappingProxyType({})  # the config in the file; empty if it has none

    def load(self, path: str, *args, **kwargs) -> dict:
        """Without a path nothing is loaded: the model keeps the weights with which it was built.

        Raises:
            FileNotFoundError, ValueError: see `load_weights`.
            ConnectionError: if a URL cannot be reached.
        """
        require_weights(path)
        self.path = path
        if not path:  # the parent would log "Initializing model from scratch", also of a backbone with weights
            return {}
        try:
            return super().load(path, *args, **kwargs)
        except URLError as error:
            raise ConnectionError(
                f"MODEL.WEIGHTS = {path}: cannot be fetched ({error.reason}). Give the path of a local copy, with "
                "--eval-only the checkpoint of a training run (or --resume for the last one), or '' to train from "
                "random weights."
            ) from error
        finally:
            self._parsed_url_during_load = None  # otherwise the next load after an error would fail

    def save(self, name: str, *, last: bool = True, **kwargs) -> None:
        """
        Args:
            name: of the file, without ".pth".
            last: whether the run goes on from this checkpoint if it is resumed.
            kwargs: what else to save.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        unfinished, file = Path(self.save_dir, f"{name}{UNFINISHED}.pth"), Path(self.save_dir, f"{name}.pth")
        try:
            super().save(f"{name}{UNFINISHED}", **kwargs)
            os.replace(unfinished, file)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        logger.info("Saved %s", file)
        if last:
            self.tag_last_checkpoint(file.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Also called by the parent, for the unfinished file, from which no run goes on."""
        if UNFINISHED not in last_filename_basename:
            tag(self.save_dir, last_filename_basename)

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from, see `find_last`."""
        return bool(find_last(self.save_dir))

    def get_checkpoint_file(self) -> str:
        """The checkpoint to resume from, or "", see `find_last`; a warning if it is not the one that is named."""
        return find_last(self.save_dir, warn=True)

    def _load_file(self, filename: str) -> dict:
        """Replaces the parent's method, which unpickles anything."""
        checkpoint = read_checkpoint(filename)
        query = self._parsed_url_during_load.query if self._parsed_url_during_load else ""
        options = parse_qs(query)
        if options.pop("matching_heuristics", ["False"]) == ["True"]:
            checkpoint["matching_heuristics"] = True
        if options:
            raise ValueError(f"MODEL.WEIGHTS: {filename}?{query}: the only option is matching_heuristics=True.")
        return checkpoint

    def _load_model(self, checkpoint: dict):
        """Rename the tensors, load those that fit, and make the report."""
        own = self.model.state_dict()
        self.classes, self.settings = classes_in(checkpoint), settings_in(checkpoint)
        state, names = self._renamed(checkpoint, own)
        fitting = [key for key, tensor in state.items() if key in own and own[key].shape == tensor.shape]
        if not fitting:
            raise ValueError(
                "MODEL.WEIGHTS: nothing loaded, no tensor of the file fits the model. The file has "
                f"{first_few(sorted(names.values()), 3)}; the model needs {first_few(sorted(own), 3)}: the file is for "
                "another model."
            )
        leave_absent_modules(self.model, state)
        check_backbone(fitting, checkpoint["model"], own)
        checkpoint.pop("matching_heuristics", None)  # done
        checkpoint["model"] = state
        incompatible = super()._load_model(checkpoint)
        self.report = make_report(
            own,
            incompatible.missing_keys,
            [Skipped(*entry) for entry in incompatible.incorrect_shapes],
            [names.get(key, key) for key in incompatible.unexpected_keys],
        )
        return incompatible

    def _renamed(self, checkpoint: dict, own: dict[str, Tensor]) -> tuple[OrderedDict[str, Tensor], dict[str, str]]:
        """The tensors under the model's names, and {name in the model: key in the file}."""
        state = checkpoint["model"]
        if checkpoint.get("__author__") == "Caffe2":
            state = align_and_update_state_dicts(own, state, c2_conversion=True)
        layout, keys = match_keys(state, own)
        if checkpoint.get("matching_heuristics") and not any(key in own for key in keys.values()):
            state = align_and_update_state_dicts(own, state, c2_conversion=False)
            layout, keys = "Detectron2's matching heuristics", {key: key for key in state}
        if any(old != new for old, new in keys.items()):
            logger.info("The names in the file are those of: %s", layout)
        renamed = OrderedDict((new, state[old]) for old, new in keys.items())
        versions = getattr(state, "_metadata", {})  # versions of modules, which convert tensors of older ones
        renamed._metadata = OrderedDict((path.removeprefix("module."), data) for path, data in versions.items())
        return renamed, {new: old for old, new in keys.items()}

    def _log_incompatible_keys(self, incompatible) -> None:
        """Called by the parent after the model has been loaded."""
        self.report.log(logger)


def leave_absent_modules(model: nn.Module, state: OrderedDict[str, Tensor]) -> None:
    """Give the modules missing from ``state`` their current version, so that they do not convert "old" tensors.

    FrozenBN would reset its statistics to 0 and 1, as for a very old file, and BN its counter.
    """
    absent = _modules(model.state_dict()) - _modules(state)  # names in state dicts: a module may hide its own name
    for name, module in model.named_modules():
        if name_in_state_dict(name) in absent:
            state._metadata[name] = {"version": module._version}


def _modules(keys: Iterable[str]) -> set[str]:
    """The names of all modules that contain one of these tensors."""
    return {key[:dot] for key in keys for dot in range(len(key)) if key[dot] == "."}
