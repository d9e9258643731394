"""Checkpoints: what was loaded, what was skipped, what is missing."""

import logging
from pathlib import Path

from detectron2.checkpoint import DetectionCheckpointer

logger = logging.getLogger(__name__)


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer with a report, and an error where nothing fits."""

    def load(self, path: str, *args, **kwargs) -> dict:
        """
        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if no tensor of the file fits the model.
        """
        if path and "://" not in path and not Path(path).is_file():
            raise FileNotFoundError(f"MODEL.WEIGHTS = {path}: no such file. Give a checkpoint, or '' to start afresh.")
        return super().load(path, *args, **kwargs)

    def _log_incompatible_keys(self, incompatible) -> None:
        """Log the report; called by the parent after the model was loaded."""
        skipped = [key for key, *_ in incompatible.incorrect_shapes]
        unused = sorted(incompatible.unexpected_keys)
        missing = sorted(set(incompatible.missing_keys) - set(skipped))
        loaded = len(self.model.state_dict()) - len(missing) - len(skipped)
        report = (
            f"{loaded} tensors loaded, {len(skipped)} skipped for their shape, {len(missing)} missing in the file, "
            f"{len(unused)} of the file not used"
        )
        logger.info("Weights: %s", report)
        for key, in_file, in_model in incompatible.incorrect_shapes:
            logger.warning("Skipped %s: %s in the file, %s in the model", key, in_file, in_model)
        for what, keys in (("Missing in the file", missing), ("Not used", unused)):
            if keys:
                logger.warning("%s: %s", what, ", ".join(keys))
        if loaded == 0:
            raise ValueError(
                f"MODEL.WEIGHTS: nothing loaded ({report}). The file has {unused[:3]}..., the model wants "
                f"{missing[:3]}...: the file is of another model."
            )
