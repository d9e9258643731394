"""From the levels of a pyramid to one map on the token grid."""

from detectron2.layers import ShapeSpec
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from .grid import enlarge_valid, valid_cells
from .pointwise import PointwiseConv2d
from .recompute import recomputed


class Reduction(nn.ModuleDict):
    """Reduces every level to D channels (1 x 1 convolution, LayerNorm), resizes it to the finest and adds all.

    Attributes:
        levels: {name: ShapeSpec}, finest first.
        strides: {name: pixels per cell}, in the same order.
        ratios: {name: stride over that of the finest level}.
        finest: the name of the level whose grid is the token grid.
    """

    def __init__(self, input_shape: dict[str, ShapeSpec], dim: int):
        """
        Args:
            input_shape: {name: ShapeSpec} of the levels, in any order, with channels and stride.
            dim: D.
        """
        levels = dict(sorted(input_shape.items(), key=lambda item: item[1].stride))
        super().__init__(
            {
                name: nn.Sequential(PointwiseConv2d(level.channels, dim), LayerNorm2d(dim))
                for name, level in levels.items()
            }
        )
        self.levels = levels
        self.strides = {name: level.stride for name, level in levels.items()}
        self.finest = next(iter(levels))
        self.ratios = {name: stride / self.strides[self.finest] for name, stride in self.strides.items()}

    def valid(self, features: dict[str, Tensor], image_sizes: Tensor) -> dict[str, Tensor]:
        """{name: (B, 1, H_l, W_l) bool}, False on cells in the padding of images of (B, 2) pixels."""
        return {
            name: valid_cells(image_sizes, stride, *features[name].shape[-2:]) for name, stride in self.strides.items()
        }

    def forward(self, features: dict[str, Tensor], valid: dict[str, Tensor]) -> Tensor:
        """{name: (B, C_l, H_l, W_l)} and the masks of `valid` -> (B, D, H, W)."""
        size = features[self.finest].shape[-2:]
        levels = (
            enlarge_valid(recomputed(reduce, features[name]), valid[name], size, self.ratios[name])
            for name, reduce in self.items()
        )
        return sum(levels, start=next(levels))  # starting from the finest level rather than 0 saves a pass
