"""Mean token semantics over images, exact in any order and for any number of processes."""

import math

from sgr_d2.evaluation.exact_sum import ExactSum
from sgr_d2.evaluation.token_semantics import TokenSemantics

_FIGURES = ("S", "D", "I")


class _LabelMapMeter:
    """Sums and counts for one kind of label map (classes, or components)."""

    def __init__(self) -> None:
        self.raw = {name: ExactSum() for name in _FIGURES}
        self.normalized = {name: ExactSum() for name in _FIGURES}
        self.active_rate = ExactSum()
        self.overlap = ExactSum()
        self.counts = {"num_unlabelled": 0, "num_inactive": 0, "num_single_label": 0}

    def update(self, result: TokenSemantics) -> None:
        if not result.is_labelled:
            self.counts["num_unlabelled"] += 1
            return
        self.active_rate.add(result.num_active / result.num_tokens)
        if not math.isnan(result.overlap):
            self.overlap.add(result.overlap)
        if not result.num_active:
            self.counts["num_inactive"] += 1
            return
        for name, value in zip(_FIGURES, (result.S, result.D, result.I), strict=True):
            self.raw[name].add(value)
        if result.label_entropy == 0:
            self.counts["num_single_label"] += 1
            return
        for name, value in zip(_FIGURES, result.normalized(), strict=True):
            self.normalized[name].add(value)

    def merge(self, other: "_LabelMapMeter") -> None:
        for name in _FIGURES:
            self.raw[name].merge(other.raw[name])
            self.normalized[name].merge(other.normalized[name])
        self.active_rate.merge(other.active_rate)
        self.overlap.merge(other.overlap)
        for name, count in other.counts.items():
            self.counts[name] += count


class TokenSemanticsMeter:
    """Streaming mean of token semantics: computed per image, then averaged over images.

    Memory does not grow with the number of images. Merged meters give bit for bit the figures of a single meter for all
    images, whatever the split and the order. Meters can be pickled, to be sent between processes.

    Attributes:
        num_images: number of images added.
    """

    def __init__(self) -> None:
        self.num_images = 0
        self._meters = {"C": _LabelMapMeter(), "I": _LabelMapMeter()}

    def update(self, classes: TokenSemantics, components: TokenSemantics | None = None) -> None:
        """Add one image: its figures over classes and, if there are any, over components or instances."""
        self.num_images += 1
        self._meters["C"].update(classes)
        if components is not None:
            self._meters["I"].update(components)

    def merge(self, other: "TokenSemanticsMeter") -> None:
        """Add all images of another meter."""
        self.num_images += other.num_images
        for kind, meter in self._meters.items():
            meter.merge(other._meters[kind])

    def compute(self) -> dict[str, float]:
        """Return the means (NaN if over no image), and the numbers of images left out of them.

        Keys: S, D, I, each with _C (classes) and _I (components); the same with ``_normalized``; ``active_rate``, the
        fraction of tokens that are active in the class map; ``overlap`` of the regions; ``num_images``; and for each
        kind ``num_unlabelled`` (no labelled pixel: in no mean), ``num_inactive`` (no active token: only in the active
        rate and the overlap) and ``num_single_label`` (only one label: not in the normalized means).
        """
        figures: dict[str, float] = {}
        for name in _FIGURES:
            figures |= {f"{name}_{kind}": meter.raw[name].mean() for kind, meter in self._meters.items()}
        for name in _FIGURES:
            figures |= {
                f"{name}_{kind}_normalized": meter.normalized[name].mean() for kind, meter in self._meters.items()
            }
        figures["active_rate"] = self._meters["C"].active_rate.mean()
        figures["overlap"] = self._meters["C"].overlap.mean()
        figures["num_images"] = self.num_images
        for kind, meter in self._meters.items():
            figures |= {f"{name}_{kind}": count for name, count in meter.counts.items()}
        return figures
