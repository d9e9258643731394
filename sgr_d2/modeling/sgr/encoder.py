"""The transformer encoder in which tokens reason with each other."""

from detectron2.utils import comm
from torch import Tensor, nn

from .batch_norm import BatchNorm


def build_encoder(dim: int, layers: int, num_heads: int, norm: str = "LN") -> nn.Module:
    """A pre-norm transformer encoder over tokens (B, K, dim), with a norm at its end.

    Args:
        dim, layers, num_heads: as in `SGR`. Without layers, a LayerNorm is left out too.
        norm: "LN", "BN" or "SyncBN".
    """
    if layers == 0:
        return nn.Identity() if norm == "LN" else TokenBatchNorm(norm, dim)
    options = {"dropout": 0.0, "batch_first": True, "norm_first": True}
    made = nn.ModuleList(nn.TransformerEncoderLayer(dim, num_heads, 2 * dim, **options) for _ in range(layers))
    last = nn.LayerNorm(dim) if norm == "LN" else TokenBatchNorm(norm, dim)
    encoder = nn.TransformerEncoder(made[0], layers, norm=last, enable_nested_tensor=False)
    encoder.layers = made  # torch's own are copies of the first: all would start with the same weights
    return encoder


class TokenBatchNorm(nn.Module):
    """BatchNorm over all tokens of a batch.

    It removes what all tokens of all images have in common, which can grow during training until it hides their
    differences; LayerNorm, which normalises each token separately, keeps it.
    """

    def __init__(self, norm: str, dim: int):
        """
        Args:
            norm: "BN" or "SyncBN". dim: D.
        """
        super().__init__()
        self.norm = BatchNorm(dim, sync=norm == "SyncBN")

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, K, D) -> (B, K, D) float32.

        Raises:
            ValueError: for a single token of a single image in training.
        """
        synchronized = getattr(self.norm, "sync", True)  # convert_sync_batchnorm puts torch's norm here, without it
        processes = comm.get_world_size() if synchronized else 1
        if self.training and processes * tokens.shape[:2].numel() == 1:
            raise ValueError(
                "MODEL.SGR.NUM_TOKENS = 1 and one image at a time: a token that is its own mean holds nothing. "
                "Train on more images at a time, or set MODEL.SGR.NORM LN."
            )
        # contiguous, as torch's own norm, put here by convert_sync_batchnorm, otherwise gives wrong gradients on a CPU
        return self.norm(tokens.float().transpose(1, 2)[..., None].contiguous())[..., 0].transpose(1, 2)
