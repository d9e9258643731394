"""The SGR module: features -> concept regions -> tokens -> transformer encoder -> features.

Shapes: B batch, K tokens, D token channels, C_l and H_l x W_l channels and size of level l, H x W the token grid
(the finest level). Source: arXiv 2212.03338 for the data flow; where it gives no formulas, they are ours.
"""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from sgr_d2.checks import check_choice, check_features
from sgr_d2.structures import SGROutput

from .encoder import build_encoder
from .fusion import build_fusion
from .grid import shrink_valid
from .inputs import check_shapes, checked_sizes
from .position import add_sine_position
from .recompute import forked
from .reduction import Reduction
from .regions import FixedRegions, build_region_predictor

EPS = 1e-6


class SGR(nn.Module):
    """Semantically aware global reasoning over K latent tokens.

    Maps features to features of the same names and shapes, and also returns the regions and tokens. The last layer of
    every fusion block is initialised to zero, so inserting SGR into a trained network changes none of its outputs.
    Parameters are float32; for half precision use autocast.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_tokens: int = 64,
        token_dim: int = 128,
        encoder_layers: int = 2,
        num_heads: int = 4,
        refined: list[str] | None = None,
        freeze: bool = False,
        position: bool = True,
        regions: str = "sigmoid",
        region_layers: int = 1,
        fusion_init: str = "zero",
        fusion_relative: bool = True,
        norm: str = "SyncBN",
        loss_gradient: float = 0.0,
        num_places: int = 0,
        fusion_position: bool = False,
    ):
        """
        Args:
            input_shape: {name: ShapeSpec} of the levels to read, in any order, with channels and stride.
            num_tokens: K.
            token_dim: D, divisible by 4 and by ``num_heads``.
            encoder_layers: number of transformer encoder layers; 0 for no encoder.
            num_heads: attention heads of the encoder.
            refined: names of the levels to refine, None for all that are read. Leave out levels that nothing reads
                afterwards: their parameters would never get a gradient, which breaks multi-process training.
            freeze: keep all parameters and running statistics of this module fixed.
            position: add a sine position code to the pixels from which regions and tokens are computed.
            regions, region_layers: kind and number of layers of `build_region_predictor`.
            fusion_init: initialisation of the last layer of every fusion block: "zero", or "normal" for random weights.
            fusion_relative: scale what is added by the magnitude of the features, see `Fusion`.
            norm: at the end of the encoder and in the fusion blocks: "BN", or "SyncBN" over the batches of all
                processes (on any device), which remove what all tokens and all positions have in common; or "LN".
            loss_gradient: fraction of the gradient of the output's ``region_logits`` that reaches the features; the
                region predictor gets all of it. The gradients of ``features`` and ``tokens`` are not affected.
            num_places: number of tokens of places (`FixedRegions`), which reason with the others and tell every cell
                what is around it; they are no part of the output.
            fusion_position: let the fusion blocks see the position of each cell.

        Raises:
            ValueError: if a value is invalid; the message names the config key.
        """
        super().__init__()
        _check(input_shape, num_tokens, token_dim, encoder_layers, num_heads, norm, loss_gradient, num_places)
        self.reduce = Reduction(input_shape, token_dim)
        self.in_features = list(self.reduce)  # finest first
        self._output_shape = {name: input_shape[name] for name in self.in_features}
        self.position = position
        self.region_predictor = build_region_predictor(regions, token_dim, num_tokens, region_layers)
        self.value = nn.Linear(token_dim, token_dim)
        self.encoder = build_encoder(token_dim, encoder_layers, num_heads, norm)
        options = {"relative": fusion_relative, "places": num_places > 0, "position": fusion_position}
        self.fusion = nn.ModuleDict(
            {
                name: build_fusion(input_shape[name].channels, token_dim, fusion_init, norm, **options)
                for name in _changed(self.in_features, refined)
            }
        )
        self.places = FixedRegions(num_places) if num_places else None
        self.loss_gradient = loss_gradient
        self.frozen = freeze
        if freeze:
            self.requires_grad_(False)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec], refined: list[str] | None = None) -> dict:
        sgr = cfg.MODEL.SGR
        names = list(sgr.IN_FEATURES)
        check_features("MODEL.SGR.IN_FEATURES", names, input_shape, cfg.MODEL.BACKBONE.NAME)
        # without losses on the regions there is no gradient to scale
        has_losses = sgr.COMPONENT_WEIGHT or sgr.DIVERSITY_WEIGHT
        return {
            "input_shape": {name: input_shape[name] for name in names},
            "num_tokens": sgr.NUM_TOKENS,
            "token_dim": sgr.TOKEN_DIM,
            "encoder_layers": sgr.ENCODER_LAYERS,
            "num_heads": sgr.NUM_HEADS,
            "refined": refined,
            "freeze": sgr.FREEZE,
            "norm": sgr.NORM,
            "loss_gradient": sgr.LOSS_GRADIENT if has_losses else 1.0,
            "position": sgr.POSITION,
            "regions": sgr.REGIONS,
            "region_layers": sgr.REGION_LAYERS,
            "fusion_init": sgr.FUSION_INIT,
            "fusion_relative": sgr.FUSION_RELATIVE,
            "num_places": sgr.NUM_PLACES,
            "fusion_position": sgr.FUSION_POSITION,
        }

    def output_shape(self) -> dict[str, ShapeSpec]:
        """The shapes of the refined levels: those of the input."""
        return dict(self._output_shape)

    def forward(
        self, features: dict[str, Tensor], image_sizes: Tensor | Sequence[tuple[int, int]] | None = None
    ) -> SGROutput:
        """
        Args:
            features: {name: (B, C_l, H_l, W_l)}, at least the levels of ``in_features``; others pass through.
            image_sizes: (B, 2) heights and widths in pixels before padding, on the features' device, or a list of
                them; None without padding. The padding is ignored.

        Returns:
            SGROutput.

        Raises:
            ValueError: if a level is missing, levels and sizes do not fit each other, or parameters are not float32.
        """
        if (precision := self.reduce[self.reduce.finest][0].weight.dtype) != torch.float32:
            raise ValueError(
                f"The parameters of SGR are {precision}: keep them float32; torch.autocast computes the rest in half "
                "precision."
            )
        strides, finest = self.reduce.strides, self.reduce.finest
        image_sizes = checked_sizes(image_sizes, features, self.reduce.levels)
        valid = self.reduce.valid(features, image_sizes)
        extents = image_sizes / strides[finest]
        pixels = self.reduce(features, valid)
        if self.position:
            pixels = add_sine_position(pixels, extents)
        # Equal, (B, K, H, W). The second is for the losses: only a share of its gradient reaches the features.
        logits, region_logits = forked(self.region_predictor, pixels, valid[finest], extents, share=self.loss_gradient)
        regions = [_masked(logits, valid[finest])]
        if self.places is not None:
            regions.append(_masked(self.places(pixels, valid[finest], extents), valid[finest]))
        with torch.autocast(pixels.device.type, enabled=False):
            pooled = project(pixels.float(), torch.cat(regions, 1) if len(regions) > 1 else regions[0])
            # K vectors, so float32 costs little; the norm at the end removes a mean that is several times the spread,
            # and with it most digits of a half-precision number.
            encoded = self.encoder(self.value(pooled))  # (B, K + places, D)
        tokens, *of_places = encoded.split([each.shape[1] for each in regions], 1)
        refined = {}
        for name, fuse in self.fusion.items():
            level = features[name]
            own, *others = (
                shrink_valid(each, valid[finest], level.shape[-2:], self.reduce.ratios[name]) for each in regions
            )
            places = (*of_places, *others) if others else None
            refined[name] = fuse(level, tokens, own, valid[name], places, image_sizes / strides[name])
        return SGROutput(features | refined, region_logits, tokens, valid[finest], strides[finest])

    def train(self, mode: bool = True) -> "SGR":
        return super().train(mode and not self.frozen)


def _changed(read: list[str], refined: list[str] | None) -> list[str]:
    """The levels that are read and refined, in the order of ``read``; all of them without ``refined``."""
    names = [name for name in read if refined is None or name in refined]
    if not names:
        raise ValueError(
            f"SGR reads {read} (input_shape; in a config MODEL.SGR.IN_FEATURES), but is to refine only {refined} "
            "(refined; in a config the levels that the head or the FPN reads). Name at least one level in both."
        )
    return names


def _masked(logits: Tensor, valid: Tensor) -> Tensor:
    """Logits of regions -> the regions in float32, zero on the padding."""
    return torch.where(valid, logits.float(), -torch.inf).sigmoid()


def project(pixels: Tensor, regions: Tensor) -> Tensor:
    """Average the pixels of each region: T_k = sum_p P_kp x_p / (sum_p P_kp + eps).

    Args:
        pixels: (B, D, H, W). regions: (B, K, H, W), zero where the image is padded. Both float32.

    Returns:
        (B, K, D).
    """
    weights = regions.flatten(2)  # (B, K, H*W)
    return torch.bmm(weights, pixels.flatten(2).transpose(1, 2)) / (weights.sum(-1, keepdim=True) + EPS)


def _check(
    input_shape: dict[str, ShapeSpec],
    num_tokens: int,
    token_dim: int,
    encoder_layers: int,
    num_heads: int,
    norm: str,
    loss_gradient: float,
    num_places: int,
) -> None:
    check_shapes(input_shape)
    if num_tokens < 1:
        raise ValueError(f"MODEL.SGR.NUM_TOKENS = {num_tokens}: SGR needs at least one token.")
    if num_places < 0:
        raise ValueError(f"MODEL.SGR.NUM_PLACES = {num_places}: give 0 for none, or a positive number.")
    if encoder_layers < 0:
        raise ValueError(f"MODEL.SGR.ENCODER_LAYERS = {encoder_layers}: give 0 for none, or a positive number.")
    if num_heads < 1 or token_dim < 1 or token_dim % 4 or token_dim % num_heads:
        raise ValueError(
            f"MODEL.SGR.TOKEN_DIM = {token_dim} must be a positive multiple of 4 (position code) and of "
            f"MODEL.SGR.NUM_HEADS = {num_heads}."
        )
    check_choice("MODEL.SGR.NORM", norm, ("LN", "BN", "SyncBN"))
    if not 0 <= loss_gradient <= 1:
        raise ValueError(
            f"MODEL.SGR.LOSS_GRADIENT = {loss_gradient}: give a share from 0 (the losses on the regions train the "
            "region predictor alone) to 1 (the features as well)."
        )
