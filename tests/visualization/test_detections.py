import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

from sgr_d2.structures import ComponentMap, ImageTokens
from sgr_d2.visualization import Classes, DetectionPictureWriter, Detections, InstanceTruth, draw_detection_sheet
from sgr_d2.visualization.detection_pictures import MIN_SCORE, shown_detections
from sgr_d2.visualization.detections import detection_panel
from sgr_d2.visualization.layout import GAP, MARGIN, TITLE_HEIGHT
from sgr_d2.visualization.sheet import PANEL_WIDTH

COLORS = np.array([[255, 0, 0], [0, 255, 0]], np.uint8)
CLASSES = Classes(["red", "green"], COLORS, -1)
SIZE = (40, 60)


def rectangle(top, left, bottom, right):
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


def two(scores=None):
    masks = np.stack([rectangle(5, 5, 25, 30), rectangle(15, 20, 35, 50)])
    return Detections(np.array([[5.0, 5, 30, 25], [20, 15, 50, 35]]), np.array([0, 1]), scores, masks)


def test_masks_and_boxes_by_hand():
    image = np.full((*SIZE, 3), 100, np.uint8)
    panel = detection_panel(image, two(), CLASSES, SIZE)
    assert panel[8, 8].tolist() == [178, 50, 50]  # half of the image, half of the colour, to even
    assert panel[30, 45].tolist() == [50, 178, 50]
    assert panel[2, 2].tolist() == [100, 100, 100]
    assert panel[5, 20].tolist() == panel[20, 5].tolist() == [255, 0, 0]
    assert panel[34, 30].tolist() == panel[30, 49].tolist() == [0, 255, 0]


def test_the_surest_lies_on_top():
    image = np.zeros((*SIZE, 3), np.uint8)
    overlap = (22, 25)
    first = detection_panel(image, two(np.array([0.9, 0.6]))._replace(boxes=np.zeros((2, 4))), CLASSES, SIZE)
    second = detection_panel(image, two(np.array([0.6, 0.9]))._replace(boxes=np.zeros((2, 4))), CLASSES, SIZE)
    assert first[overlap][0] > first[overlap][1]
    assert second[overlap][1] > second[overlap][0]


@pytest.mark.parametrize("size", [SIZE, (20, 30), (83, 121), (1, 1)])
def test_sizes_and_nothing_found(size):
    image = np.zeros((*SIZE, 3), np.uint8)
    none = Detections(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0), np.zeros((0, *SIZE), bool))
    assert detection_panel(image, none, CLASSES, size).shape == (*size, 3)
    assert detection_panel(image, two(np.array([1.0, 0.51])), CLASSES, size).shape == (*size, 3)
    assert detection_panel(image, two()._replace(masks=None), CLASSES, size).shape == (*size, 3)


def panel_pixel(sheet, column, y, x):
    """The pixel of the image at (y, x), shown five times as large in a panel of the first row."""
    return sheet[MARGIN + TITLE_HEIGHT + 5 * y, MARGIN + column * (PANEL_WIDTH + GAP) + 5 * x].tolist()


def test_truth_comes_before_what_was_found():
    black, objects = np.zeros((*SIZE, 3), np.uint8), two()
    first, second = (Detections(objects.boxes[[i]], [i], None, objects.masks[[i]]) for i in (0, 1))
    sheet = draw_detection_sheet(black, first, second._replace(scores=np.array([0.9])), CLASSES)
    assert panel_pixel(sheet, 1, 15, 17) == [128, 0, 0] and panel_pixel(sheet, 1, 30, 45) == [0, 0, 0]
    assert panel_pixel(sheet, 2, 30, 45) == [0, 128, 0] and panel_pixel(sheet, 2, 15, 17) == [0, 0, 0]


def test_boxes_follow_the_panel_and_each_has_its_own_score():
    black = np.zeros((*SIZE, 3), np.uint8)
    panel = detection_panel(black, two()._replace(masks=None), CLASSES, (80, 60))  # twice as high
    assert panel[10, 10].tolist() == panel[49, 10].tolist() == [255, 0, 0] and not panel[:10].any()
    assert panel[30, 20:50].tolist() == panel[69, 20:50].tolist() == [[0, 255, 0]] * 30
    low, high = (detection_panel(black, two(np.array([0.9, score])), CLASSES, SIZE) for score in (0.11, 0.88))
    assert (low != high).any()


def test_sheet_with_and_without_tokens():
    image = np.full((*SIZE, 3), 90, np.uint8)
    plain = draw_detection_sheet(image, two(), two(np.array([0.9, 0.8])), CLASSES)
    labels = np.full(SIZE, -1, np.int32)
    labels[two().masks[0]] = 0
    components = ComponentMap((labels + 1).astype(np.int32), np.array([0]), 0, 0)
    tokens = ImageTokens(torch.rand(3, 5, 8), torch.zeros(3, 4), (5.0, 7.5))
    full = draw_detection_sheet(image, two(), two(np.array([0.9, 0.8])), CLASSES, tokens, labels, components)
    assert full.shape[0] > plain.shape[0] and full.shape[1] > plain.shape[1]
    assert draw_detection_sheet(image, None, two(np.array([0.9, 0.8])), CLASSES).shape[1] < plain.shape[1]


def test_writer(tmp_path):
    components = ComponentMap(np.zeros(SIZE, np.int32), np.zeros(0, np.int64), 0, 0)
    truth = InstanceTruth(two(), np.full(SIZE, -1, np.int32), components)
    writer = DetectionPictureWriter(
        output_dir=tmp_path / "pictures",
        num_images=1,
        read_image=lambda _: np.zeros((20, 30, 3), np.uint8),  # smaller than the result: resized
        truth_of=lambda _: truth,
        file_names=["a/x.png", "a/y.png", "a/z.png"],
        class_names=["red", "green"],
        class_colors=COLORS.tolist(),
        ignore_label=-1,
    )
    found = Instances(SIZE, pred_boxes=Boxes(torch.tensor(two().boxes)), scores=torch.tensor([MIN_SCORE, 0.49]))
    found.pred_classes = torch.tensor([0, 1])
    writer.reset()
    writer.process([{"file_name": f"a/{n}.png"} for n in "xyz"], [{"instances": found}] * 3)
    assert writer.evaluate() is None
    assert [p.name for p in (tmp_path / "pictures").iterdir()] == ["y.png"]
    sheet = np.array(Image.open(tmp_path / "pictures/y.png"))
    assert panel_pixel(sheet, 1, 30, 45) == [0, 128, 0] and panel_pixel(sheet, 2, 30, 45) == [0, 0, 0]
    assert len(shown_detections(found).scores) == 1 and MIN_SCORE == 0.5
