"""Counts parameters and multiply-adds of a model as in the published tables.

fvcore's conventions: a multiply-add is one operation; convolutions, matrix products, attention, norms and bilinear
resizing count; elementwise operations, activations and softmax do not.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from detectron2.utils.analysis import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import Tensor, nn

from sgr_d2.modeling.mask2former.deformable_attention import MSDeformAttn
from sgr_d2.modeling.mask2former.structures import PixelFeatures
from sgr_d2.modeling.mask2former.transformer_decoder import MultiScaleMaskedTransformerDecoder
from sgr_d2.modeling.sgr.parts import SGR_PARTS, is_part_of_sgr


class ModelCost(NamedTuple):
    """
    Attributes:
        parameters: of the whole model.
        sgr_parameters: of SGR and of the queries' attention to its tokens, 0 without it.
        operations: multiply-adds for one image; None if not counted.
        sgr_operations: those of the same.
        saved_operations: additional operations of the published Mask2Former code for the same result. It multiplies
            queries and mask features at full resolution after every decoder layer and shrinks the masks for the
            attention; here the mask features are shrunk first. Published tables count ``operations`` plus this.
    """

    parameters: int
    sgr_parameters: int
    operations: float | None = None
    sgr_operations: float | None = None
    saved_operations: float | None = None

    @property
    def published_operations(self) -> float | None:
        """To compare with published tables."""
        return None if self.operations is None else self.operations + self.saved_operations


def count_parameters(model: nn.Module) -> ModelCost:
    """Count the parameters only; also works for models on the meta device."""
    named = dict(model.named_parameters())
    of_sgr = sum(p.numel() for name, p in named.items() if is_part_of_sgr(name))
    return ModelCost(sum(p.numel() for p in named.values()), of_sgr)


def count_cost(model: nn.Module, size: tuple[int, int]) -> ModelCost:
    """Run ``model`` on a black image of ``size`` (height, width) and count its operations.

    Includes resizing the scores to the size of the image. The sampling of deformable attention (four reads per sample)
    is not counted, only its projections: in the published tables it is a compiled operator, which fvcore skips.

    Args:
        model: an `SGRSegmentor`, not on the meta device.
    """
    image = torch.zeros(3, *size, device=next(model.parameters()).device)
    was_training = model.training
    model.eval()
    saved: list[int] = []
    with torch.no_grad(), _without_fused_encoder(), _without_sampling(model), _quiet_fvcore(), _steering(model, saved):
        analysis = FlopCountAnalysis(model, [{"image": image}])
        analysis.set_op_handle(**_HANDLES).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        operations = analysis.total()
        of_sgr = sum(count for name, count in analysis.by_module().items() if name.rsplit(".", 1)[-1] in SGR_PARTS)
    model.train(was_training)
    return count_parameters(model)._replace(
        operations=float(operations), sgr_operations=float(of_sgr), saved_operations=float(sum(saved))
    )


def _mm(inputs: list[Any], outputs: list[Any]) -> int:
    """(n, k) x (k, m), even with an output argument."""
    (n, k), (_, m) = (get_shape(value) for value in inputs[:2])
    return n * k * m


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    """Both products of attention with query (..., Q, d), key (..., T, d) and value (..., T, e)."""
    query, key, value = (get_shape(x) for x in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


_HANDLES = {"aten::mm": _mm, "aten::scaled_dot_product_attention": _attention}


@contextmanager
def _steering(model: nn.Module, saved: list[int]) -> Iterator[None]:
    """Append `ModelCost.saved_operations` of every Mask2Former decoder that runs to ``saved``."""

    def note(decoder: MultiScaleMaskedTransformerDecoder, inputs: tuple[PixelFeatures, Tensor | None]) -> None:
        features = inputs[0]
        queries, channels = decoder.query_feat.num_embeddings, features.mask_features.shape[1]
        layers = len(decoder.transformer_ffn_layers)
        fine = math.prod(map(int, features.mask_features.shape[-2:]))
        coarse = [math.prod(map(int, level.shape[-2:])) for level in features.levels]
        pixels = sum(fine - coarse[layer % len(coarse)] for layer in range(layers))
        saved.append(int(queries * channels * pixels))

    decoders = [m for m in model.modules() if isinstance(m, MultiScaleMaskedTransformerDecoder)]
    handles = [decoder.register_forward_pre_hook(note) for decoder in decoders]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _without_sampling(model: nn.Module) -> Iterator[None]:
    """Make deformable attention pass on its values unsampled: tracing cannot see into an autograd function."""
    layers = [module for module in model.modules() if isinstance(module, MSDeformAttn)]
    for layer in layers:
        layer.forward = partial(_projections, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _projections(layer: MSDeformAttn, query: Tensor, source: Tensor, grid: Any) -> Tensor:
    unread = layer.sampling_offsets(query).sum() + layer.attention_weights(query).sum()
    return layer.output_proj(layer.value_proj(source) + 0 * unread)


@contextmanager
def _without_fused_encoder() -> Iterator[None]:
    """Turn off torch's fused encoder layer, which hides its operations."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextmanager
def _quiet_fvcore() -> Iterator[None]:
    """Silence fvcore, which logs every operator that it skips."""
    logger = logging.getLogger("fvcore")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled
