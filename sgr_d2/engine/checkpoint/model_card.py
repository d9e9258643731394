"""What a checkpoint stores about its model: the config, and the names and colours of the classes.

Plain text, lists and numbers next to the weights, so that a checkpoint can be used on its own and read without
unpickling any object.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from sgr_d2.data.datasets import SemanticMetadata
from sgr_d2.engine.options import merge_options
from sgr_d2.engine.own_modules import config_with, imports_in, require_imported
from sgr_d2.engine.tasks import task_of

from .checkpoint_file import read_checkpoint, require_checkpoint
from .safe_unpickle import load_torch

# The entry of a checkpoint that contains the card.
KEY = "model_card"


@dataclass(frozen=True)
class ModelCard:
    """
    Attributes:
        config: the whole config as YAML text.
        classes: C names.
        colors: C colours [R, G, B], 0..255.
        ignore_label: label of the pixels that belong to no class.
    """

    config: str
    classes: list[str]
    colors: list[list[int]]
    ignore_label: int

    @classmethod
    def of(cls, cfg: CfgNode) -> "ModelCard":
        """The card of a model with config ``cfg``, whose data sets must be registered."""
        names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
        info = task_of(names).metadata_of(names)
        return cls(cfg.dump(), list(info.classes), [list(map(int, color)) for color in info.colors], info.ignore_label)

    def cfg(self, opts: Sequence[str] = ()) -> CfgNode:
        """The config, unfrozen, with KEY VALUE options applied.

        Modules in the IMPORTS of the card are not imported; to import them, put IMPORTS into ``opts``.

        Raises:
            ValueError: if it was written by another version, with keys or values unknown to this one, or needs modules
                that are not imported.
            KeyError: if a key of ``opts`` is unknown.
        """
        content = yaml.safe_load(self.config)
        given = imports_in(opts)
        if given is None:
            require_imported(content.get("IMPORTS", []))
        cfg = config_with(content.get("IMPORTS", []) if given is None else given)
        try:
            cfg.merge_from_other_cfg(CfgNode(content))
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"The config in the checkpoint does not fit this version of sgr_d2: {error.args[0]}. "
                "Give the config of the run instead (--config-file), or use the version that wrote it."
            ) from error
        merge_options(cfg, opts)
        return cfg

    def metadata(self) -> SemanticMetadata:
        """Classes, colours and ignore label."""
        return SemanticMetadata(list(self.classes), [tuple(color) for color in self.colors], self.ignore_label)


class CardInCheckpoint:
    """Puts a card into every checkpoint that a Checkpointer saves; give it as ``Checkpointer(..., model_card=...)``."""

    def __init__(self, card: ModelCard):
        self.card = card

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.card)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Does nothing: a resumed run keeps the card of its own config."""


def classes_in(checkpoint: dict[str, Any]) -> list[str] | None:
    """The class names in the contents of a checkpoint file; None if it has no card."""
    card = checkpoint.get(KEY)
    return card.get("classes") if isinstance(card, dict) else None


def settings_in(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The config in the contents of a checkpoint file, nested as in its YAML; empty if it has no card."""
    card = checkpoint.get(KEY)
    return yaml.safe_load(card["config"]) if isinstance(card, dict) and "config" in card else {}


def read_card(path: str | Path) -> ModelCard:
    """Read the card of a checkpoint.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file has no card (an older checkpoint, or another program's), or is not a checkpoint.
    """
    require_checkpoint(path)
    without = (
        f"{path} carries no config and class names (written by an older version, or by another program). "
        "Give the config of its run: --config-file, or config_file= of SGRPredictor.from_checkpoint."
    )
    try:
        state = load_torch(str(path), mmap=_is_zip(path))
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError and others for other files
        read_checkpoint(path)  # says what is wrong, unless the file has another format
        raise ValueError(without) from error
    card = state.get(KEY) if isinstance(state, dict) else None
    if not isinstance(card, dict):
        raise ValueError(without)
    try:
        return ModelCard(**card)
    except TypeError as error:
        raise ValueError(f"{path}: its {KEY} has other entries than this version of sgr_d2 knows: {error}.") from error


def _is_zip(path: str | Path) -> bool:
    """Whether the file has the format of torch >= 1.6, the only one that can be read without copying the weights."""
    with open(path, "rb") as file:
        return file.read(2) == b"PK"
