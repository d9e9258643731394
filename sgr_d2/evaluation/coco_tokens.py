"""Token semantics of a detector, with instance masks as the truth."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sgr_d2.evaluation.token_semantics_evaluator import TokenSemanticsEvaluator


class InstanceTokensEvaluator(TokenSemanticsEvaluator):
    """S_C and D_C over the categories of the instances, S_I and D_I over the instances; the rest is not labelled."""

    def __init__(
        self,
        *,
        truth_of: Callable[[str], tuple[np.ndarray, np.ndarray]],
        components_of: Callable[[np.ndarray, np.ndarray], np.ndarray],
        num_classes: int,
        ignore_label: int,
        min_mass: float = 1e-4,
        distributed: bool = True,
    ) -> None:
        """
        Args:
            truth_of: image file -> categories (H, W), ``ignore_label`` where there is no instance, and ids (H, W).
            components_of: these two -> (H, W) ids of the instances that count, 0 for none.
            num_classes: C.
            ignore_label: see ``truth_of``.
            min_mass: tokens that cover a smaller share of the image's pixels are inactive.
            distributed: gather the results of all processes.
        """
        super().__init__(
            read_label=truth_of,
            components_of=components_of,
            label_files={},
            num_classes=num_classes,
            ignore_label=ignore_label,
            min_mass=min_mass,
            distributed=distributed,
        )
        self._truth_of = truth_of

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Measure a batch. Raises ValueError naming the image when regions or categories are not valid."""
        for image, output in zip(inputs, outputs, strict=True):
            if output.get("sgr") is None:
                continue
            try:
                self._measure(output["sgr"], *self._truth_of(image["file_name"]))
            except ValueError as error:
                raise ValueError(f"{image['file_name']}: {error}") from error
