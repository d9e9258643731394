"""Small alternatives to SGR, with its reduction, position code and fusion, to compare with other reasoning or none.

Shapes: B batch, D channels, H x W the grid (the finest level), C classes, N nodes. Sources of the ideas: non-local
block (Wang et al. 2018), object-contextual representations (Yuan et al. 2020), GloRe (Chen et al. 2019).
"""

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from sgr_d2.checks import check_choice, check_features

from .head_keys import features_of_head
from .ranks import mean_over_ranks
from .segmentor import SGRSegmentor
from .sgr.fusion import build_fusion
from .sgr.grid import shrink_valid
from .sgr.inputs import checked_sizes
from .sgr.pointwise import PointwiseConv2d
from .sgr.position import add_sine_position
from .sgr.reduction import Reduction

EPS = 1e-6
# The loss of a peer itself, beside those of the head.
PEER_LOSS = "loss_peer"


class NonLocal(nn.Module):
    """Every pixel attends to every other one: softmax(q k / sqrt(D / 2)) v."""

    def __init__(self, dim: int, nodes: int, num_classes: int):
        super().__init__()
        self.query, self.key = PointwiseConv2d(dim, dim // 2), PointwiseConv2d(dim, dim // 2)
        self.value = PointwiseConv2d(dim, dim)

    def forward(self, pixels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, D, H, W), (B, 1, H, W) bool -> context (B, D, H, W), and class scores (B, C, H, W) or None."""
        query, key, value = (_rows(project(pixels)) for project in (self.query, self.key, self.value))
        mask = valid.flatten(2)  # (B, 1, H*W)
        # a head axis of 1: with four axes a GPU need not store the matrix of all pairs of pixels
        context = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], attn_mask=mask[:, None])
        return _maps(context[:, 0], pixels), None


class ObjectContext(nn.Module):
    """Every pixel attends to one mean vector per class, weighted by an auxiliary prediction."""

    def __init__(self, dim: int, nodes: int, num_classes: int):
        super().__init__()
        self.classes = PointwiseConv2d(dim, num_classes)
        self.query, self.key = PointwiseConv2d(dim, dim // 2), nn.Linear(dim, dim // 2)
        self.value = nn.Linear(dim, dim)

    def forward(self, pixels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `NonLocal.forward`."""
        scores = self.classes(pixels)
        with torch.autocast(pixels.device.type, enabled=False):
            weights = torch.where(valid, scores.float(), -torch.inf).flatten(2).softmax(-1)  # (B, C, H*W)
            vectors = torch.bmm(weights, _rows(pixels).float())  # (B, C, D)
        context = F.scaled_dot_product_attention(_rows(self.query(pixels)), self.key(vectors), self.value(vectors))
        return _maps(context, pixels), scores


class GraphReasoning(nn.Module):
    """Projects pixels to N nodes by a learnt linear map, mixes nodes and channels by a graph convolution, and back."""

    def __init__(self, dim: int, nodes: int, num_classes: int):
        super().__init__()
        self.assign = PointwiseConv2d(dim, nodes)
        self.adjacency, self.state = nn.Linear(nodes, nodes), nn.Linear(dim, dim)

    def forward(self, pixels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `NonLocal.forward`."""
        weights = (self.assign(pixels) * valid).flatten(2).float()  # (B, N, H*W)
        with torch.autocast(pixels.device.type, enabled=False):
            nodes = torch.bmm(weights, _rows(pixels).float()) / (valid.sum((1, 2, 3))[:, None, None] + EPS)
        nodes = nodes + self.adjacency(nodes.transpose(1, 2)).transpose(1, 2)
        nodes = F.relu(self.state(nodes))
        with torch.autocast(pixels.device.type, enabled=False):
            return _maps(torch.bmm(weights.transpose(1, 2), nodes.float()), pixels), None


class Pointwise(nn.Module):
    """No global reasoning, a control: two layers on every pixel alone, which sees its position."""

    def __init__(self, dim: int, nodes: int, num_classes: int):
        super().__init__()
        self.expand, self.project = PointwiseConv2d(dim, 2 * dim), PointwiseConv2d(2 * dim, dim)

    def forward(self, pixels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `NonLocal.forward`."""
        return self.project(F.relu(self.expand(pixels))), None


KINDS = {kind.__name__: kind for kind in (NonLocal, ObjectContext, GraphReasoning, Pointwise)}


class Peer(nn.Module):
    """Reduction to one grid, one of ``KINDS``, and the fusion of SGR with its result on every level, F initially."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        kind: str,
        dim: int,
        nodes: int,
        num_classes: int,
        refined: list[str],
        position: bool = True,
        norm: str = "SyncBN",
        fusion_relative: bool = True,
    ):
        """
        Args:
            input_shape: {name: ShapeSpec} of the levels to read. refined: names of those to refine.
            kind: a name of ``KINDS``.
            dim: D, divisible by 4. nodes: N. num_classes: C.
            position, norm, fusion_relative: see `SGR`.

        Raises:
            ValueError: for an unknown ``kind``, a ``dim`` that 4 does not divide, or if no level is both read and
                refined.
        """
        check_choice("MODEL.PEER.NAME", kind, KINDS)
        if dim < 4 or dim % 4:
            raise ValueError(f"MODEL.PEER.DIM = {dim} must be a positive multiple of 4 (position code).")
        super().__init__()
        self.reduce = Reduction(input_shape, dim)
        self.position = position
        self.mix = KINDS[kind](dim, nodes, num_classes)
        channels = {name: input_shape[name].channels for name in self.reduce if name in refined}
        if not channels:
            raise ValueError(
                f"The peer reads {list(input_shape)} (MODEL.SGR.IN_FEATURES), but the head reads only {refined}."
            )
        self.fuse = nn.ModuleDict(
            {name: build_fusion(width, dim, "zero", norm, relative=fusion_relative) for name, width in channels.items()}
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, shape: dict[str, ShapeSpec]) -> dict:
        check_features("MODEL.SGR.IN_FEATURES", cfg.MODEL.SGR.IN_FEATURES, shape, cfg.MODEL.BACKBONE.NAME)
        return {
            "input_shape": {name: shape[name] for name in cfg.MODEL.SGR.IN_FEATURES},
            "kind": cfg.MODEL.PEER.NAME,
            "dim": cfg.MODEL.PEER.DIM,
            "nodes": cfg.MODEL.PEER.NODES,
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "refined": features_of_head(cfg),
            "position": cfg.MODEL.SGR.POSITION,
            "norm": cfg.MODEL.SGR.NORM,
            "fusion_relative": cfg.MODEL.SGR.FUSION_RELATIVE,
        }

    def forward(self, features: dict[str, Tensor], image_sizes: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """Features and (B, 2) image sizes in pixels -> features of the same shapes, and class scores or None."""
        strides, finest = self.reduce.strides, self.reduce.finest
        image_sizes = checked_sizes(image_sizes, features, self.reduce.levels)
        valid = self.reduce.valid(features, image_sizes)
        pixels = self.reduce(features, valid)
        if self.position:
            pixels = add_sine_position(pixels, image_sizes / strides[finest])
        context, scores = self.mix(pixels, valid[finest])
        context = context * valid[finest]
        refined = {}
        for name, fuse in self.fuse.items():
            level = features[name]
            resized = shrink_valid(context, valid[finest], level.shape[-2:], self.reduce.ratios[name])
            refined[name] = fuse(level, _rows(resized), None, valid[name])
        return features | refined, scores


@META_ARCH_REGISTRY.register()
class PeerSegmentor(SGRSegmentor):
    """`SGRSegmentor` with a peer in place of SGR; reads ``MODEL.PEER``, and four keys of ``MODEL.SGR`` (see `Peer`)."""

    @configurable
    def __init__(self, *, peer: Peer, aux_weight: float = 0.4, **options):
        """
        Args:
            peer: replaces SGR.
            aux_weight: weight of the cross entropy on the class scores of `ObjectContext`.
            options: passed on to `SGRSegmentor`.
        """
        super().__init__(**options)
        self.peer = peer
        self.aux_weight = aux_weight
        self.scores = None  # of the last forward pass in training

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.SGR.ENABLED = False
        options = super().from_config(cfg)
        return options | {
            "peer": Peer(cfg, options["backbone"].output_shape()),
            "aux_weight": cfg.MODEL.PEER.AUX_WEIGHT,
            "read": [*features_of_head(cfg), *cfg.MODEL.SGR.IN_FEATURES],
        }

    def refine(self, features: dict[str, Tensor], image_sizes: Tensor) -> tuple[dict[str, Tensor], None]:
        """The features, refined by the peer; there are no tokens."""
        features, scores = self.peer(features, image_sizes)
        self.scores = scores if self.training else None
        return features, None

    def _head_losses(self, features: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        losses = super()._head_losses(features, targets)
        scores, self.scores = self.scores, None
        if scores is not None:
            losses[PEER_LOSS] = self.aux_weight * class_loss(scores, targets, self.ignore_value)
        return losses


def class_loss(scores: Tensor, targets: Tensor, ignore_value: int) -> Tensor:
    """Cross entropy of (B, C, h, w) scores with (B, H, W) labels, a mean over the labelled pixels of all processes."""
    scores = F.interpolate(scores.float(), size=targets.shape[-2:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(scores, targets.long(), ignore_index=ignore_value, reduction="sum")
    return total / mean_over_ranks((targets != ignore_value).sum(), targets.device)


def _rows(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)  # (B, H*W, D)


def _maps(rows: Tensor, like: Tensor) -> Tensor:
    return rows.transpose(1, 2).unflatten(2, like.shape[-2:])
