import explore_tokens
import numpy as np
import pytest
from PIL import Image
from toy_checkpoint import CLASSES, write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("run") / "model.pth")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(5):
        pixels = np.random.default_rng(index).integers(0, 255, (40, 56, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def run(*arguments):
    return explore_tokens.main([*map(str, arguments), "--device", "cpu"])


def test_photographs_of_a_folder(checkpoint, photos, tmp_path, capsys):
    output = tmp_path / "out"
    assert run("--weights", checkpoint, "--images", photos, "--output", output, "--max-images", 3) == 0
    assert "3 images" in capsys.readouterr().out
    index = (output / "data/index.js").read_text()
    assert [f"{i}.png" in index for i in range(5)] == [True, False, True, False, True]  # evenly spread
    assert (output / "index.html").is_file() and len(list((output / "photos").iterdir())) == 6
    assert run("--weights", checkpoint, "--images", photos, "--output", output) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run("--weights", checkpoint, "--images", photos / "0.png", "--output", output, "--overwrite") == 0
    assert len(list((output / "photos").iterdir())) == 2


def test_two_checkpoints_of_one_folder_get_different_names(checkpoint, photos, tmp_path):
    output = tmp_path / "out"
    baseline = write_checkpoint(checkpoint.with_name("baseline.pth"), sgr=False)
    assert run("--weights", checkpoint, "--compare", baseline, "--images", photos / "0.png", "--output", output) == 0
    text = (output / "data/index.js").read_text()
    assert "(A)" in text and "(B)" in text and "baseline.pth" in text


def test_what_cannot_work_is_said_in_one_line(checkpoint, photos, tmp_path, capsys):
    output = tmp_path / "out"
    other = tmp_path / "mine"
    other.mkdir()
    (other / "letter.txt").write_text("keep me")
    baseline = write_checkpoint(tmp_path / "baseline.pth", sgr=False)
    cases = [
        (["--weights", "none.pth", "--images", photos, "--output", output], "none.pth: no such checkpoint"),
        (["--weights", checkpoint, "--images", "none", "--output", output], "none: no such file or folder"),
        (["--weights", checkpoint, "--output", output], "names no test set"),
        (["--weights", checkpoint, "--dataset", "nothing", "--output", output], "Unknown data set 'nothing'"),
        (["--weights", checkpoint, "--dataset", "shapes_val", "--output", output], "its classes are not those"),
        (["--weights", checkpoint, "--images", photos, "--output", other, "--overwrite"], "holds other files"),
        (["--weights", baseline, "--images", photos, "--output", output], "no SGR"),
    ]
    for arguments, text in cases:
        assert run(*arguments) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert text in error[-1] and error[-1].startswith(explore_tokens.build_parser().prog)
    assert (other / "letter.txt").read_text() == "keep me"


@pytest.mark.parametrize("extra", [["--dataset", "x", "--images", "y"], ["--names", "a", "b"]])
def test_arguments_that_contradict(checkpoint, tmp_path, extra):
    with pytest.raises(SystemExit):
        run("--weights", checkpoint, "--output", tmp_path / "out", *extra)


def test_the_data_set_of_the_checkpoint_needs_no_config(photos, tmp_path):
    """Folders that the run was trained on travel in the checkpoint, too."""
    labels = tmp_path / "labels"
    labels.mkdir()
    for index in range(5):
        Image.fromarray(np.full((40, 56), index, np.uint8)).save(labels / f"{index}.png")
    folder = {"IMAGE_DIR": str(photos), "LABEL_DIR": str(labels), "CLASSES": CLASSES}

    def change(config):
        config["DATASETS"] |= {"FOLDERS": {"explored_val": folder}, "TEST": ["explored_val"]}

    checkpoint = write_checkpoint(tmp_path / "model.pth", change=change)
    assert run("--weights", checkpoint, "--output", tmp_path / "out") == 0
    text = (tmp_path / "out/data/index.js").read_text()
    assert '"hasTruth":true' in text and '"mIoU"' in text
