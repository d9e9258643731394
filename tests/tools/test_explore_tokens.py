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


def test_a_photo_that_cannot_be_read_is_passed_over(checkpoint, photos, tmp_path, capsys):
    output = tmp_path / "out"
    (photos / "2.png").write_bytes(b"not a picture")
    assert run("--weights", checkpoint, "--images", photos, "--output", output) == 1
    text = capsys.readouterr()
    assert "failed: Cannot read image file" in text.err and "2.png" in text.err
    assert "4 images, 1 failed" in text.out
    index = (output / "data/index.js").read_text()
    assert [f'"{i}.png"' in index for i in range(5)] == [True, True, False, True, True]
    assert (output / "index.html").is_file() and len(list((output / "photos").iterdir())) == 8
    assert sorted(path.name for path in (output / "data/run0").glob("0*.js")) == [f"000{i}.js" for i in range(4)]
    # none is readable: an error, and what was there stays
    assert run("--weights", checkpoint, "--images", photos / "2.png", "--output", output, "--overwrite") == 2
    assert "None of the 1 images can be read" in capsys.readouterr().err
    assert (output / "data/index.js").read_text() == index
    assert run("--weights", checkpoint, "--images", photos / "2.png", "--output", tmp_path / "new") == 2
    assert not (tmp_path / "new").exists()


def test_an_interrupted_run_leaves_the_explorer_that_was_there(checkpoint, photos, tmp_path, monkeypatch):
    output = tmp_path / "out"
    arguments = ["--weights", checkpoint, "--images", photos, "--output", output]
    assert run(*arguments, "--max-images", 2) == 0
    (output / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}

    def stop(models, records, folder, **_):
        (folder / "photos").mkdir()
        (folder / "photos/0000.webp").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(explore_tokens, "explore", stop)
        with pytest.raises(KeyboardInterrupt):
            run(*arguments, "--overwrite")
        with pytest.raises(KeyboardInterrupt):
            run(*arguments[:-1], tmp_path / "new")
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "new").exists()
    assert run(*arguments, "--overwrite") == 0
    assert len(list((output / "photos").iterdir())) == 10 and (output / "notes.txt").read_text() == "mine"


def test_what_a_killed_run_leaves_is_replaced(checkpoint, photos, tmp_path, capsys):
    output = tmp_path / "out"
    (output / ".unfinished/new/photos").mkdir(parents=True)
    (output / ".unfinished/new/photos/0000.webp").write_bytes(b"half")
    arguments = ["--weights", checkpoint, "--images", photos / "0.png", "--output", output]
    assert run(*arguments) == 2
    assert "already there; give --overwrite" in capsys.readouterr().err
    assert run(*arguments, "--overwrite") == 0
    assert (output / "index.html").is_file() and not (output / ".unfinished").exists()


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


def test_a_broken_image_of_a_data_set_is_an_error(photos, tmp_path, capsys):
    checkpoint = write_folder_checkpoint(photos, tmp_path)
    (photos / "2.png").write_bytes(b"not a picture")
    assert run("--weights", checkpoint, "--output", tmp_path / "out") == 2
    assert "Cannot read image file" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("extra", [["--dataset", "x", "--images", "y"], ["--names", "a", "b"]])
def test_arguments_that_contradict(checkpoint, tmp_path, extra):
    with pytest.raises(SystemExit):
        run("--weights", checkpoint, "--output", tmp_path / "out", *extra)


def write_folder_checkpoint(photos, tmp_path, more=lambda config: None):
    """A checkpoint whose test set is the photographs with labels."""
    labels = tmp_path / "labels"
    labels.mkdir()
    for index in range(5):
        Image.fromarray(np.full((40, 56), index, np.uint8)).save(labels / f"{index}.png")
    folder = {"IMAGE_DIR": str(photos), "LABEL_DIR": str(labels), "CLASSES": CLASSES}

    def change(config):
        config["DATASETS"] |= {"FOLDERS": {"explored_val": folder}, "TEST": ["explored_val"]}
        more(config)

    return write_checkpoint(tmp_path / "model.pth", change=change)


def test_the_data_set_of_the_checkpoint_needs_no_config(photos, tmp_path):
    """Folders that the run was trained on travel in the checkpoint, too."""
    checkpoint = write_folder_checkpoint(photos, tmp_path)
    assert run("--weights", checkpoint, "--output", tmp_path / "out") == 0
    text = (tmp_path / "out/data/index.js").read_text()
    assert '"hasTruth":true' in text and '"mIoU"' in text


def test_a_checkpoint_of_another_machine(photos, tmp_path):
    """The class file of the training set is not here."""
    gone = {"IMAGE_DIR": "/gone/images", "LABEL_DIR": "/gone/labels", "CLASSES": "/gone/classes.txt"}

    def change(config):
        config["DATASETS"]["FOLDERS"]["explored_train"] = gone

    checkpoint = write_folder_checkpoint(photos, tmp_path, change)
    assert run("--weights", checkpoint, "--images", photos / "0.png", "--output", tmp_path / "photos_out") == 0
    assert run("--weights", checkpoint, "--output", tmp_path / "out", "--max-images", 1) == 0


def test_options_override_the_config_of_the_checkpoint(checkpoint, photos, tmp_path, monkeypatch):
    settings = []
    with monkeypatch.context() as patch:
        patch.setattr(explore_tokens, "explore", lambda *_, **options: settings.append(options["settings"]))
        options = ["--opts", "TEST.TOKEN_SEMANTICS.MIN_MASS", 0.05, "INPUT.COMPONENTS.MIN_AREA", 7]
        run("--weights", checkpoint, "--images", photos, "--output", tmp_path / "out", *options)
    assert (settings[0].min_mass, settings[0].limits.min_area) == (0.05, 7)
