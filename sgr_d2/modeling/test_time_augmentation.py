"""Multi-scale and flip test-time augmentation, for any model with semantic output."""

import numpy as np
import torch
from detectron2.data.transforms import ResizeShortestEdge
from torch import Tensor, nn

ROWS = 64  # summed at a time


class TestTimeAugmentation(nn.Module):
    """The mean of the class probabilities over scales and, if asked, mirror images.

    Scores of per-pixel heads are turned into probabilities first; scores that are probabilities already (the head's
    ``scores_are_probabilities``, as in `MaskFormerHead`) are averaged as they are. Regions and tokens are not averaged:
    they are those of the unflipped view whose size is closest to the image's.
    """

    __test__ = False  # not a test case, despite its name

    def __init__(self, model: nn.Module, *, min_sizes: list[int], max_size: int, flip: bool, probabilities: bool):
        """
        Args:
            model: with the inputs and outputs of `SGRSegmentor` in inference, or a `SlidingWindow` around one.
            min_sizes: lengths of the shorter edge in pixels, one for each scale.
            max_size: maximum length of the longer edge in pixels.
            flip: add the mirror image at every scale.
            probabilities: whether the model's "sem_seg" are probabilities, not logits.

        Raises:
            ValueError: if ``min_sizes`` is empty, or a length is not positive.
        """
        super().__init__()
        if not min_sizes or min(min_sizes) < 1:
            raise ValueError(f"TEST.AUG.MIN_SIZES = {list(min_sizes)}: give one or more positive lengths.")
        self.model = model
        self.min_sizes = list(min_sizes)
        self.max_size = max_size
        self.flip = flip
        self.probabilities = probabilities

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """As the model, but with probabilities: "sem_seg" (C, height, width) and, with SGR, "sgr"; no gradient."""
        return [self._predict(x) for x in batched_inputs]

    def _predict(self, x: dict) -> dict:
        views = [resize_shortest(x["image"], size, self.max_size) for size in self.min_sizes]
        wanted = {"height": x.get("height", x["image"].shape[-2]), "width": x.get("width", x["image"].shape[-1])}
        nearest = min(views, key=lambda view: abs(view.shape[-2] - x["image"].shape[-2]))
        total, results = None, {}
        for view in views:
            for flipped in (False, True) if self.flip else (False,):
                image = view.flip(-1) if flipped else view
                (result,) = self.model([{**wanted, "image": image}])
                total = torch.zeros_like(result["sem_seg"], dtype=torch.float32) if total is None else total
                self._add(total, result["sem_seg"], flipped)
                if view is nearest and not flipped and "sgr" in result:
                    results["sgr"] = result["sgr"]
        return results | {"sem_seg": total.div_(len(views) * (1 + self.flip))}

    def _add(self, total: Tensor, scores: Tensor, flipped: bool) -> None:
        """Add the probabilities of a view to the sum (C, height, width), a few rows at a time to save memory."""
        for part, goal in zip(scores.split(ROWS, dim=1), total.split(ROWS, dim=1), strict=True):
            part = (part.flip(-1) if flipped else part).float()
            goal.add_(part if self.probabilities else part.softmax(0))


def resize_shortest(image: Tensor, min_size: int, max_size: int) -> Tensor:
    """Resize (3, H, W) as in training: the shorter edge to ``min_size``, or less to keep the longer in ``max_size``."""
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())
    resized = ResizeShortestEdge(min_size, max_size).get_transform(pixels).apply_image(pixels)
    return torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
