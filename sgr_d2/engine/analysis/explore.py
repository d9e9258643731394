"""Fills the token explorer: predicts images with one or more models, measures them and writes the pages.

Shape legend: H x W image, K tokens, C classes.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.data import MetadataCatalog

from sgr_d2.data.components import ComponentLimits
from sgr_d2.data.datasets import SemanticMetadata, get_dataset_records
from sgr_d2.data.reading import read_image, read_instances, read_label
from sgr_d2.engine.inference.prediction import Prediction
from sgr_d2.engine.inference.predictor import SGRPredictor
from sgr_d2.engine.semantic import require_labels
from sgr_d2.evaluation import TOKEN_FIGURES, StreamingSemSegEvaluator, TokenSemanticsEvaluator, label_masses
from sgr_d2.messages import NO_SGR
from sgr_d2.modeling import SGR
from sgr_d2.visualization.explorer import ExploredImage, ExploredRun, ExplorerWriter, Photograph

from .attention import AttentionRecord, record_attention


class ExploreSettings(NamedTuple):
    """How tokens are measured; defaults and meaning are those of the corresponding config keys.

    Attributes:
        min_mass: TEST.TOKEN_SEMANTICS.MIN_MASS.
        limits: INPUT.COMPONENTS.
    """

    min_mass: float = 1e-4
    limits: ComponentLimits = ComponentLimits()


class NamedModel(NamedTuple):
    """A run to explore: its name and note as shown in the pages, and the model."""

    name: str
    note: str
    predictor: SGRPredictor


def explore(
    models: Sequence[NamedModel],
    records: Sequence[dict[str, Any]],
    output_dir: str | Path,
    *,
    title: str,
    dataset_name: str | None = None,
    settings: ExploreSettings | None = None,
    progress: Callable[[Iterable, str], Iterable] = lambda items, _: items,
    unreadable: Callable[[Exception], None] | None = None,
) -> None:
    """Write the explorer of ``models`` over the images of ``records`` into ``output_dir``.

    Args:
        models: with the same classes; the first one must have SGR.
        records: {"file_name"} and, for a data set, {"sem_seg_file_name"}.
        output_dir: see `ExplorerWriter`.
        title: of the pages.
        dataset_name: the registered data set of the records; None if there is no ground truth.
        settings: None for the defaults.
        progress: wraps the images, for a progress bar; called with them and a description.
        unreadable: called with the error for each image that cannot be read, which is then left out; None to raise it.

    Raises:
        ValueError: if the models have different classes, a record of the data set has no label, or there is nothing to
            explore.
        FileNotFoundError, ValueError: if an image cannot be read, or with ``unreadable`` if none can.
    """
    settings = settings or ExploreSettings()
    _check(models, records, dataset_name)
    info = models[0].predictor.metadata
    writer = ExplorerWriter(
        output_dir,
        title=title,
        class_names=info.classes,
        class_colors=info.colors,
        ignore_label=info.ignore_label,
        has_truth=dataset_name is not None,
    )
    records = _add_photos(writer, records, info, progress, unreadable)
    for model in models:
        _explore_model(model, records, writer, dataset_name, settings, progress)
    writer.finish()


def _add_photos(writer: ExplorerWriter, records, info: SemanticMetadata, progress, unreadable) -> list[dict[str, Any]]:
    """Write the photographs and return the records of those that can be read."""
    readable = []
    for record in progress(records, "photographs"):
        try:
            pixels = read_image(record["file_name"])
        except (FileNotFoundError, ValueError) as error:
            if unreadable is None:
                raise
            unreadable(error)
            continue
        writer.add_photo(Photograph(Path(record["file_name"]).name, pixels, _truth(record, info)))
        readable.append(record)
    if not readable:
        raise ValueError(f"None of the {len(records)} images can be read; there is nothing to explore.")
    return readable


def _explore_model(model: NamedModel, records, writer: ExplorerWriter, dataset_name, settings, progress) -> None:
    predictor = model.predictor
    meter = _Meter(predictor.metadata, dataset_name, settings)
    sgr = next((part for part in predictor.model.modules() if isinstance(part, SGR)), None)
    run = writer.start_run()
    with record_attention(sgr) if sgr is not None else nullcontext(AttentionRecord()) as attention:
        for record in progress(records, model.name):
            prediction = predictor(record["file_name"], scores=dataset_name is not None)
            run.add(meter.measure(record, prediction, attention.take()))
    figures, class_iou = meter.total()
    run.finish(ExploredRun(model.name, figures, class_iou, model.note))


class _Meter:
    """Measures each image and all together, with the evaluators of an evaluation.

    Without ground truth, predicted labels are used: the figures then show how well tokens agree with the prediction.
    """

    def __init__(self, info: SemanticMetadata, dataset_name: str | None, settings: ExploreSettings):
        self._info = info
        self._settings = settings
        self._has_truth = dataset_name is not None
        self._labels = np.zeros((0, 0), np.uint8)
        self._first_id = MetadataCatalog.get(dataset_name).get("first_instance_id", 1) if dataset_name else 1
        self._image = self._evaluators(dataset_name, warn_of_absent=False)
        self._all = self._evaluators(dataset_name, warn_of_absent=True)

    def _evaluators(self, dataset_name: str | None, *, warn_of_absent: bool) -> list:
        evaluators: list = [
            TokenSemanticsEvaluator(
                maps_of=self._maps_of,
                components_of=self._components,
                num_classes=len(self._info.classes),
                ignore_label=self._info.ignore_label,
                min_mass=self._settings.min_mass,
                distributed=False,
            )
        ]
        if dataset_name is not None:
            evaluators.append(
                StreamingSemSegEvaluator(
                    dataset_name,
                    read_label=lambda _: self._labels,
                    distributed=False,
                    warn_of_absent=warn_of_absent,
                )
            )
        for evaluator in evaluators:
            evaluator.reset()
        return evaluators

    def measure(self, record: dict[str, Any], prediction: Prediction, attention: np.ndarray | None) -> ExploredImage:
        """Everything the explorer shows about one image."""
        self._labels = _truth(record, self._info) if self._has_truth else prediction.labels
        tokens = None if prediction.regions is None else prediction.image_tokens()
        output = {"sgr": tokens}
        if prediction.scores is not None:
            output["sem_seg"] = torch.from_numpy(prediction.scores)
        for evaluator in self._image:
            evaluator.reset()
        for evaluator in (*self._image, *self._all):
            evaluator.process([record], [output])
        figures, _ = _figures(self._image)
        if tokens is None:
            return ExploredImage(prediction.labels, figures)
        num_classes = len(self._info.classes)
        found = label_masses(
            tokens.regions,
            self._labels,
            ignore_label=self._info.ignore_label,
            num_labels=num_classes,
            extent=tokens.extent,
        )
        masses = np.zeros((len(tokens.regions), num_classes))
        masses[:, found.ids] = found.masses
        active = found.active(self._settings.min_mass)
        if attention is not None:  # of the tokens that have a region to show, not those of places
            attention = attention[:, : len(tokens.regions), : len(tokens.regions)]
        return ExploredImage(prediction.labels, figures, tokens, masses, active, attention)

    def total(self) -> tuple[dict[str, float], dict[str, float]]:
        """Figures over all images, and the IoU of each class."""
        return _figures(self._all)

    def _maps_of(self, record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
        path = record.get("instance_file_name")
        return self._labels, read_instances(path, first_id=self._first_id) if path else None

    def _components(self, labels: np.ndarray, instances: np.ndarray | None = None) -> np.ndarray:
        return self._settings.limits.label(labels, ignore_label=self._info.ignore_label, instances=instances).ids


def _figures(evaluators: list) -> tuple[dict[str, float], dict[str, float]]:
    results: dict[str, dict[str, float]] = {}
    for evaluator in evaluators:
        results |= evaluator.evaluate() or {}
    tokens, sem_seg = results.get("token_semantics", {}), results.get("sem_seg", {})
    names = [*TOKEN_FIGURES, *(f"{name}_normalized" for name in TOKEN_FIGURES), "active_rate", "overlap"]
    figures = {name: sem_seg[name] for name in ("mIoU", "pACC") if name in sem_seg}
    figures |= {name: tokens[name] for name in names if name in tokens}
    iou = {name.removeprefix("IoU-"): value for name, value in sem_seg.items() if name.startswith("IoU-")}
    return figures, iou


def _truth(record: dict[str, Any], info: SemanticMetadata) -> np.ndarray | None:
    path = record.get("sem_seg_file_name")
    if path is None:
        return None
    return read_label(
        path, num_classes=len(info.classes), ignore_label=info.ignore_label, label_map=record.get("label_map")
    )


def _check(models: Sequence[NamedModel], records: Sequence[dict[str, Any]], dataset_name: str | None) -> None:
    if not records:
        raise ValueError("There is no image to explore.")
    if dataset_name is not None:  # the evaluators need the labels of all its images, also of those that are not shown
        otherwise = "explore its images without truth (no dataset_name; --images of tools/explore_tokens.py)"
        for some in (get_dataset_records(dataset_name), records):
            require_labels(dataset_name, some, otherwise)
    if not models or not models[0].predictor.has_sgr:
        raise ValueError(
            f"The first model {NO_SGR}, hence no tokens to explore; a baseline can only "
            "be compared with a model with SGR (--compare)."
        )
    first = models[0]
    for model in models[1:]:
        if model.predictor.classes != first.predictor.classes:
            raise ValueError(f"{first.name} and {model.name} have different classes; they cannot be compared.")
