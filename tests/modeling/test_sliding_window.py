import pytest
import torch
from detectron2.modeling import build_model
from torch import nn
from toys import randomize_zeros, toy_cfg

from sgr_d2.modeling.sliding_window import SlidingWindow, window_starts
from sgr_d2.structures import ImageTokens


class PixelModel(nn.Module):
    """Scores and regions are functions of each pixel alone, so that windows must give what the whole image gives."""

    def __init__(self, stride: int = 4):
        super().__init__()
        self.size_divisibility = stride

    def forward(self, batched_inputs):
        results = []
        for x in batched_inputs:
            image, stride = x["image"].float(), self.size_divisibility
            height, width = image.shape[-2:]
            cells = image[:2, ::stride, ::stride] / 255
            tokens = ImageTokens(cells, torch.tensor([[1.0], [2.0]]), (height / stride, width / stride))
            results.append({"sem_seg": image * 2 + 1, "sgr": tokens})
        return results


@pytest.mark.parametrize(
    ("length", "window", "step", "divisor", "starts"),
    [
        (10, 4, 3, 1, [0, 3, 6]),
        (11, 4, 3, 1, [0, 3, 6, 7]),
        (4, 4, 2, 1, [0]),
        (3, 4, 2, 1, [0]),
        (100, 32, 30, 16, [0, 16, 32, 48, 64]),
    ],
)
def test_window_starts(length, window, step, divisor, starts):
    assert window_starts(length, window, step, divisor) == starts


@pytest.mark.parametrize("size", [(40, 52), (37, 50), (16, 20), (9, 11), (16, 70)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_windows_of_a_pixelwise_model_are_the_whole_image(size, batch_size):
    model = PixelModel()
    slide = SlidingWindow(model, size=(16, 20), stride=(12, 13), batch_size=batch_size)
    x = {"image": torch.randint(0, 256, (3, *size), dtype=torch.uint8)}
    (whole,), (result,) = model([x]), slide([x])
    assert torch.allclose(result["sem_seg"], whole["sem_seg"])
    assert torch.allclose(result["sgr"].regions, whole["sgr"].regions)
    assert torch.allclose(result["sgr"].tokens, whole["sgr"].tokens)
    assert result["sgr"].extent == whole["sgr"].extent


def test_windows_of_a_stride_that_is_no_power_of_two():
    """As that of patches of 14 pixels: 476 / (450 / (450 / 14)) cells is a little more than 34."""
    x = {"image": torch.randint(0, 256, (3, 476, 476), dtype=torch.uint8)}
    model = PixelModel(14)
    (whole,), (result,) = model([x]), SlidingWindow(model, size=(450, 450), stride=(448, 448))([x])
    assert result["sgr"].extent == (34, 34)
    assert torch.allclose(result["sgr"].regions, whole["sgr"].regions)


class WindowNumber(nn.Module):
    """All scores and tokens of the n-th window are n; its region is the first column of its cells."""

    size_divisibility = 4

    def __init__(self):
        super().__init__()
        self.number = 0

    def forward(self, batched_inputs):
        results = []
        for x in batched_inputs:
            self.number += 1
            height, width = x["image"].shape[-2:]
            region = torch.zeros(1, -(-height // 4), -(-width // 4))
            region[..., :1] = 1.0 if self.number == 1 else 0.25
            tokens = ImageTokens(region, torch.full((1, 2), float(self.number)), (height / 4, width / 4))
            results.append({"sem_seg": torch.full((2, height, width), float(self.number)), "sgr": tokens})
        return results


def test_overlapping_windows_are_averaged_by_hand():
    """Windows of 8 columns at 0 and 4 of 12: the columns 4 to 7 are the mean of both."""
    slide = SlidingWindow(WindowNumber(), size=(8, 8), stride=(8, 4))
    (result,) = slide([{"image": torch.zeros(3, 8, 12, dtype=torch.uint8)}])
    assert torch.equal(result["sem_seg"][0, 0], torch.tensor([1.0] * 4 + [1.5] * 4 + [2.0] * 4))
    # cells: 1 and 0 of the first window, 0.25 and 0 of the second; one of each in the middle
    assert torch.equal(result["sgr"].regions[0, 0], torch.tensor([1.0, 0.125, 0.0]))
    # masses 2 and 0.5, two rows each
    assert torch.allclose(result["sgr"].tokens, torch.full((1, 2), (2 * 1.0 + 0.5 * 2.0) / 2.5))


def test_a_longer_last_window_has_no_say_by_its_cells():
    """Windows of 8 and of 10 columns: what counts of a token is the mass of its region, not its mean."""
    slide = SlidingWindow(WindowNumber(), size=(8, 8), stride=(8, 8))
    (result,) = slide([{"image": torch.zeros(3, 8, 18, dtype=torch.uint8)}])
    assert torch.equal(result["sgr"].regions[0, 0], torch.tensor([1.0, 0.0, 0.25, 0.0, 0.0]))
    assert torch.allclose(result["sgr"].tokens, torch.full((1, 2), (2 * 1.0 + 0.5 * 2.0) / 2.5))


def test_half_precision_scores_are_added_in_float32():
    class Half(PixelModel):
        def forward(self, batched_inputs):
            return [result | {"sem_seg": result["sem_seg"].bfloat16()} for result in super().forward(batched_inputs)]

    model, x = Half(), {"image": torch.randint(0, 256, (3, 16, 40), dtype=torch.uint8)}
    (whole,), (result,) = model([x]), SlidingWindow(model, size=(16, 20), stride=(16, 4))([x])
    torch.testing.assert_close(result["sem_seg"], whole["sem_seg"].float())


def test_output_has_the_size_of_the_file():
    slide = SlidingWindow(PixelModel(), size=(16, 20), stride=(16, 20))
    image = torch.full((3, 30, 41), 7, dtype=torch.uint8)
    (result,) = slide([{"image": image, "height": 61, "width": 83}])
    assert torch.allclose(result["sem_seg"], torch.full((3, 61, 83), 15.0))


@pytest.mark.parametrize("head", ["SemSegFPNHead", "PointRendSemSegHead"])
def test_one_window_is_the_model(head):
    cfg = toy_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NAME = head
    cfg.MODEL.POINT_HEAD.IN_FEATURES, cfg.MODEL.POINT_HEAD.SUBDIVISION_STEPS = ["res2"], 2  # from stride 4 to pixels
    model = build_model(cfg).eval()
    randomize_zeros(model)
    x = {"image": torch.randint(0, 256, (3, 70, 90), dtype=torch.uint8), "height": 35, "width": 44}
    with torch.no_grad():
        (expected,) = model([x])
        (result,) = SlidingWindow(model, size=(96, 96), stride=(64, 64))([x])
        (several,) = SlidingWindow(model, size=(64, 64), stride=(32, 32))([x])
    assert torch.allclose(result["sem_seg"], expected["sem_seg"], atol=1e-5)
    assert torch.allclose(result["sgr"].regions, expected["sgr"].regions)
    assert several["sem_seg"].shape == (5, 35, 44)
    assert several["sgr"].regions.shape == expected["sgr"].regions.shape
    assert several["sem_seg"].isfinite().all()


def test_gaps_and_tiny_steps_are_refused():
    with pytest.raises(ValueError, match=r"STRIDE = \[20, 8\].*at most.*SIZE = \[16, 16\]"):
        SlidingWindow(PixelModel(), size=(16, 16), stride=(20, 8))
    with pytest.raises(ValueError, match=r"SIZE = \[16\], STRIDE = \[8\]: give two numbers each"):
        SlidingWindow(PixelModel(), size=[16], stride=[8])
    with pytest.raises(ValueError, match=r"multiples of 4 pixels"):
        SlidingWindow(PixelModel(), size=(16, 16), stride=(2, 8))
