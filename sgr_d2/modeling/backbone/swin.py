"""Detectron2's Swin transformer, under the feature names of its ResNets (res2 to res5)."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, SwinTransformer
from torch import Tensor

from sgr_d2.checks import check_features, check_freeze_at


class SwinBackbone(SwinTransformer):
    """Swin with outputs res2, res3, res4, res5 (strides 4 to 32) and the state dict keys of the official Swin."""

    def __init__(self, *, out_features: list[str], **options):
        """
        Args:
            out_features: any of res2 to res5.
            options: passed on to `detectron2.modeling.SwinTransformer`.

        Raises:
            ValueError: for an unknown feature name, other than four stages, or attention heads that do not divide the
                channels of their stage.
        """
        names = ["res2", "res3", "res4", "res5"]
        check_features("MODEL.SWIN.OUT_FEATURES", out_features, names, "Swin")
        _check_stages(**options)
        super().__init__(out_indices=tuple(names.index(name) for name in sorted(out_features)), **options)
        self._cut(names.index(max(out_features)) + 1)
        self._renamed = {f"p{names.index(name)}": name for name in sorted(out_features)}
        self._out_features = list(self._renamed.values())
        self._out_feature_channels = {new: self._out_feature_channels[old] for old, new in self._renamed.items()}
        self._out_feature_strides = {new: self._out_feature_strides[old] for old, new in self._renamed.items()}

    def _cut(self, stages: int) -> None:
        """Remove the stages that no output needs: they would be computed but never get a gradient."""
        del self.layers[stages:]
        self.num_layers = stages
        self.layers[-1].downsample = None

    @property
    def size_divisibility(self) -> int:
        return 32

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> {name: (B, C, H / stride, W / stride)}."""
        return {self._renamed[name]: feature for name, feature in super().forward(images).items()}


def _check_stages(
    *, embed_dim: int = 96, depths: Sequence[int] = (2, 2, 6, 2), num_heads: Sequence[int] = (3, 6, 12, 24), **_: Any
) -> None:
    for key, values in (("DEPTHS", depths), ("NUM_HEADS", num_heads)):
        if len(values) != 4:
            raise ValueError(f"MODEL.SWIN.{key} = {list(values)}: give four numbers, one for each stage.")
    channels = [embed_dim * 2**stage for stage in range(4)]
    if any(width % heads for width, heads in zip(channels, num_heads, strict=True)):
        raise ValueError(
            f"MODEL.SWIN.NUM_HEADS = {list(num_heads)} must divide the channels of the stages, {channels} "
            f"(MODEL.SWIN.EMBED_DIM = {embed_dim}, doubled from stage to stage)."
        )


@BACKBONE_REGISTRY.register()
def build_swin_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SwinBackbone:
    """A `SwinBackbone` from ``MODEL.SWIN``."""
    check_freeze_at(cfg)
    swin = cfg.MODEL.SWIN
    return SwinBackbone(
        out_features=swin.OUT_FEATURES,
        in_chans=input_shape.channels,
        embed_dim=swin.EMBED_DIM,
        depths=swin.DEPTHS,
        num_heads=swin.NUM_HEADS,
        window_size=swin.WINDOW_SIZE,
        drop_path_rate=swin.DROP_PATH_RATE,
        use_checkpoint=swin.USE_CHECKPOINT,
    )
