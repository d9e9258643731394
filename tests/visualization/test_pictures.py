import numpy as np
import pytest
import torch
from PIL import Image

from sgr_d2.structures import ComponentMap, ImageTokens
from sgr_d2.visualization.layout import GAP, MARGIN, TITLE_HEIGHT
from sgr_d2.visualization.pictures import PictureWriter, picture_names
from sgr_d2.visualization.sheet import PANEL_WIDTH

SHAPE = (20, 30)


def _read_image(path):
    return np.array(Image.open(path).convert("RGB"))


def _read_label(path):
    return np.array(Image.open(path))


def _components_of(labels):
    return ComponentMap(labels.astype(np.int32) + 1, np.unique(labels).astype(np.int64), 0, 0)


@pytest.fixture
def files(tmp_path):
    """Seven images and their labels: {image path: label path}."""
    pairs = {}
    for i in range(7):
        image, label = tmp_path / f"frame_{i}.jpg", tmp_path / f"frame_{i}_label.png"
        Image.fromarray(np.full((*SHAPE, 3), 30 * i, dtype=np.uint8)).save(image)
        Image.fromarray(np.full(SHAPE, i % 2, dtype=np.uint8)).save(label)
        pairs[str(image)] = str(label)
    return pairs


def _writer(output_dir, files, number, **changes):
    arguments = {
        "output_dir": output_dir,
        "num_images": number,
        "read_image": _read_image,
        "read_label": _read_label,
        "components_of": _components_of,
        "label_files": files,
        "class_names": ["sky", "car"],
        "class_colors": [(200, 0, 0), (0, 0, 200)],
        "ignore_label": 255,
    }
    return PictureWriter(**{**arguments, **changes})


def _process(writer, file_names, size=SHAPE, num_tokens=3):
    for file_name in file_names:
        output = {"sem_seg": torch.rand(2, *size)}
        if num_tokens:
            tokens = torch.rand(num_tokens, 5, 8)
            output["sgr"] = ImageTokens(tokens, torch.zeros(num_tokens, 4), (5.0, 7.5))
        writer.process([{"file_name": file_name, "height": size[0], "width": size[1]}], [output])


def _written(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_exactly_the_chosen_images_are_drawn(tmp_path, files):
    writer = _writer(tmp_path / "out", files, 3)
    writer.reset()
    _process(writer, files)
    assert not writer.evaluate()
    assert _written(tmp_path / "out") == ["frame_1.png", "frame_3.png", "frame_5.png"]
    picture = np.array(Image.open(tmp_path / "out" / "frame_3.png"))
    assert picture.ndim == 3
    assert picture.shape[1] == 1282


def test_each_picture_has_its_image_its_truth_and_its_prediction(tmp_path, files):
    seen = []

    def components_of(labels):
        seen.append(np.unique(labels).tolist())
        return _components_of(labels)

    writer = _writer(tmp_path / "out", files, 7, components_of=components_of)
    names = list(files)[1:3]  # of the class 1 and 0; predicted the other way round
    scores = torch.stack([torch.ones(SHAPE), torch.zeros(SHAPE)])
    writer.process([{"file_name": name} for name in names], [{"sem_seg": scores}, {"sem_seg": scores.flip(0)}])
    red, blue = [200, 0, 0], [0, 0, 200]
    for number, truth, prediction in ((1, blue, red), (2, red, blue)):
        sheet = np.array(Image.open(tmp_path / f"out/frame_{number}.png"))
        row = sheet[MARGIN + TITLE_HEIGHT + 20, MARGIN + PANEL_WIDTH // 2 :: PANEL_WIDTH + GAP]
        assert row[0] == pytest.approx([30 * number] * 3, abs=2)
        assert row[1:3].tolist() == [truth, prediction]
    assert seen == [[1], [0]]


def test_pictures_of_an_earlier_evaluation_go(tmp_path, files):
    for number in (7, 3):
        writer = _writer(tmp_path / "out", files, number)
        writer.reset()
        _process(writer, files)
    (tmp_path / "out" / "notes.txt").touch()
    assert _written(tmp_path / "out") == ["frame_1.png", "frame_3.png", "frame_5.png", "notes.txt"]


def test_two_processes_draw_together_what_one_draws(tmp_path, files):
    names = list(files)
    for part in (names[0::2], names[1::2]):
        _process(_writer(tmp_path / "out", files, 4), part)
    alone = _writer(tmp_path / "alone", files, 4)
    _process(alone, names)
    assert _written(tmp_path / "out") == _written(tmp_path / "alone")
    assert len(_written(tmp_path / "out")) == 4


def test_no_pictures_asked_for_leave_no_folder(tmp_path, files):
    _process(_writer(tmp_path / "out", files, 0), files)
    assert not (tmp_path / "out").exists()


def test_more_pictures_than_images(tmp_path, files):
    _process(_writer(tmp_path / "out", files, 100), files, num_tokens=0)
    assert len(_written(tmp_path / "out")) == 7


def test_scores_of_another_size_than_the_files(tmp_path, files):
    _process(_writer(tmp_path / "out", files, 1), files, size=(37, 55))
    assert _written(tmp_path / "out") == ["frame_3.png"]


def test_images_without_truth(tmp_path, files):
    unlabelled = dict.fromkeys(files)
    _process(_writer(tmp_path / "out", unlabelled, 1), files, num_tokens=0)
    picture = np.array(Image.open(tmp_path / "out" / "frame_3.png"))
    assert picture.shape[1] == 654  # image and prediction only


@pytest.mark.parametrize(
    ("total", "number", "positions"), [(7, 3, [1, 3, 5]), (4, 4, [0, 1, 2, 3]), (9, 1, [4]), (2, 5, [0, 1]), (0, 3, [])]
)
def test_chosen_images_are_evenly_spread(total, number, positions):
    names = [f"a/{i}.jpg" for i in range(total)]
    assert picture_names(names, number) == {f"a/{i}.jpg": f"{i}.png" for i in positions}


def test_files_of_one_stem_do_not_overwrite_each_other():
    names = ["x/frame.jpg", "y/frame.jpg", "y/other.jpg"]
    assert list(picture_names(names, 3).values()) == ["0_frame.png", "1_frame.png", "other.png"]


def test_bad_arguments(tmp_path, files):
    with pytest.raises(ValueError, match="num_images"):
        _writer(tmp_path, files, -1)
    with pytest.raises(ValueError, match="2 classes need 2 RGB triples"):
        _writer(tmp_path, files, 1, class_colors=[(0, 0, 0)])
