"""Detectron2 evaluator of token semantics."""

from collections.abc import Callable
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from sgr_d2.evaluation.token_meter import TokenSemanticsMeter
from sgr_d2.evaluation.token_semantics import token_semantics
from sgr_d2.labels import resize_nearest
from sgr_d2.structures import ImageTokens


class TokenSemanticsEvaluator(DatasetEvaluator):
    """Token semantics over classes and over components, for outputs with an ``ImageTokens`` under ``"sgr"``.

    If there are real instances, they replace the components. Outputs without ``"sgr"`` (the baseline) are skipped; if
    none has it, the result is empty.
    """

    def __init__(
        self,
        *,
        maps_of: Callable[[dict[str, Any]], tuple[np.ndarray, np.ndarray | None]],
        components_of: Callable[..., np.ndarray],
        num_classes: int,
        ignore_label: int | None,
        min_mass: float = 1e-4,
        full_size: bool = True,
        distributed: bool = True,
    ) -> None:
        """
        Args:
            maps_of: input of the model (the dict of an image) -> labels (H, W), and instance ids (H, W), 0 for none, or
                None if there are no real instances.
            components_of: labels, or labels and instance ids -> (H, W) component ids, 0 ignored.
            num_classes: C; labels outside [0, C) other than ``ignore_label`` are an error.
            ignore_label: the label of ignored pixels; None if there is none.
            min_mass: tokens that cover a smaller fraction of the image's pixels are inactive.
            full_size: measure at the size of the labels; otherwise at that of ``output["sem_seg"]``.
            distributed: gather the results of all processes.
        """
        self._maps_of = maps_of
        self._components_of = components_of
        self._num_classes = num_classes
        self._ignore_label = ignore_label
        self._min_mass = min_mass
        self._full_size = full_size
        self._distributed = distributed
        self.reset()

    def reset(self) -> None:
        self._meter = TokenSemanticsMeter()

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Measure a batch. Raises ValueError, naming the image, if labels or regions are invalid."""
        for image, output in zip(inputs, outputs, strict=True):
            if output.get("sgr") is None:
                continue
            maps = [np.asarray(array) for array in self._maps_of(image) if array is not None]
            if not self._full_size:
                maps = [resize_nearest(array, output["sem_seg"].shape[-2:]) for array in maps]
            try:
                self._measure(output["sgr"], *maps)
            except ValueError as error:
                raise ValueError(f"{image['file_name']}: {error}") from error

    def _measure(self, tokens: ImageTokens, labels: np.ndarray, *instances: np.ndarray) -> None:
        regions = tokens.regions.detach().float().cpu().numpy()
        common = {"extent": tokens.extent, "min_mass": self._min_mass}
        classes = token_semantics(
            regions, labels, ignore_label=self._ignore_label, num_labels=self._num_classes, **common
        )
        components = token_semantics(regions, self._components_of(labels, *instances), ignore_label=0, **common)
        self._meter.update(classes, components)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Return ``{"token_semantics": figures}`` on the main process, see ``TokenSemanticsMeter.compute``."""
        meters = comm.all_gather(self._meter) if self._distributed else [self._meter]
        if self._distributed and not comm.is_main_process():
            return None
        total = TokenSemanticsMeter()
        for meter in meters:
            total.merge(meter)
        return {"token_semantics": total.compute()} if total.num_images else {}
