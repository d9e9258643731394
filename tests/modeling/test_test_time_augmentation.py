import pytest
import torch
from detectron2.modeling import build_model
from torch import nn
from torch.nn import functional as F
from toys import randomize_zeros, toy_cfg

from sgr_d2.modeling.test_time_augmentation import TestTimeAugmentation, resize_shortest


class Recorder(nn.Module):
    """Scores: the image's mean in class 0, zero in class 1, at the size asked for; keeps what it saw."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, batched_inputs):
        (x,) = batched_inputs
        self.seen.append(x["image"])
        columns = x["image"].float().mean((0, 1)) / 255
        columns = F.interpolate(columns[None, None], size=x["width"], mode="nearest")[0]
        scores = torch.stack([columns, torch.zeros_like(columns)]).expand(2, x["height"], x["width"])
        return [{"sem_seg": scores.clone(), "sgr": len(self.seen)}]


def augmented(model, **options):
    return TestTimeAugmentation(model, **({"min_sizes": [10, 20, 40], "max_size": 100, "flip": True} | options))


def test_every_scale_and_its_mirror_image_is_seen():
    model = Recorder()
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    (result,) = augmented(model, probabilities=True)([{"image": image}])
    assert [tuple(seen.shape) for seen in model.seen[::2]] == [(3, 10, 15), (3, 20, 30), (3, 40, 60)]
    assert all(torch.equal(a.flip(-1), b) for a, b in zip(model.seen[::2], model.seen[1::2], strict=True))
    assert torch.equal(model.seen[2], image)
    assert result["sem_seg"].shape == (2, 20, 30)
    assert result["sgr"] == 3  # the third call: the view of the image's own size


def test_mirror_images_are_turned_back():
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    image[..., :4] = 255
    (result,) = augmented(Recorder(), min_sizes=[8], probabilities=True)([{"image": image}])
    expected = torch.tensor([1.0] * 4 + [0.0] * 4)
    assert torch.equal(result["sem_seg"][0], expected.expand(8, 8))


def test_logits_become_probabilities_before_the_mean():
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    image[..., :4] = 255
    (result,) = augmented(Recorder(), min_sizes=[8], probabilities=False)([{"image": image}])
    assert torch.allclose(result["sem_seg"].sum(0), torch.ones(8, 8))
    assert result["sem_seg"][0, 0, 0].item() == pytest.approx(torch.tensor(1.0).sigmoid().item())


def test_one_view_of_a_real_model_is_its_softmax():
    model = build_model(toy_cfg()).eval()
    randomize_zeros(model)
    x = {"image": torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8), "height": 32, "width": 48}
    with torch.no_grad():
        (expected,) = model([x])
    (result,) = augmented(model, min_sizes=[64], flip=False, probabilities=False)([x])
    assert not result["sem_seg"].requires_grad
    assert torch.allclose(result["sem_seg"], expected["sem_seg"].softmax(0), atol=1e-6)
    assert torch.equal(result["sgr"].regions, expected["sgr"].regions)


def test_longer_edges_are_limited_and_no_size_is_refused():
    assert resize_shortest(torch.zeros(3, 10, 40, dtype=torch.uint8), 20, 60).shape == (3, 15, 60)
    with pytest.raises(ValueError, match=r"MIN_SIZES = \[\]"):
        augmented(Recorder(), min_sizes=[], probabilities=True)


def test_half_precision_scores_are_added_in_float32():
    class Half(Recorder):
        def forward(self, batched_inputs):
            (result,) = super().forward(batched_inputs)
            return [{"sem_seg": result["sem_seg"].bfloat16()}]

    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    (result,) = augmented(Half(), probabilities=False)([{"image": image}])
    assert result["sem_seg"].dtype == torch.float32
    torch.testing.assert_close(result["sem_seg"].sum(0), torch.ones(20, 30))
