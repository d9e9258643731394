"""Conversion: what is written, kept, repaired and refused; a kill; several processes."""

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from miniatures import ade20k
from PIL import Image

from sgr_d2.data.prepare import LabelRule, LabelTask, Plan, Split, carry_out, format_summary, is_complete, plan_ade20k
from sgr_d2.data.prepare.convert import convert
from sgr_d2.data.prepare.files import place_copy, remove_leftovers, write_label_png
from sgr_d2.data.reading import read_values
from sgr_d2.files import appearing_whole

RULE = LabelRule(read=read_values, meaning="0 to 2", indices={0: 255, 1: 0, 2: 1}, num_classes=2)
RAW = np.array([[0, 1, 2], [2, 2, 1]], np.uint8)
LABELS = np.array([[255, 0, 1], [1, 1, 0]], np.uint8)


@pytest.fixture
def task(tmp_path) -> LabelTask:
    Image.fromarray(RAW).save(tmp_path / "raw.png")
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / "image.jpg")
    return LabelTask(tmp_path / "raw.png", tmp_path / "label.png", tmp_path / "image.jpg", tmp_path / "copy.jpg")


def test_written_then_kept(task):
    first = convert(task, rule=RULE)
    assert first.state == "written"
    assert first.pixels[[0, 1, 255]].tolist() == [2, 3, 1]
    assert first.pixels.sum() == 6
    assert np.array_equal(read_values(task.target), LABELS)
    assert task.image_target.read_bytes() == task.image.read_bytes()
    before = task.target.stat().st_mtime_ns
    assert convert(task, rule=RULE).state == "kept"
    assert task.target.stat().st_mtime_ns == before


def test_a_target_cut_short_is_repaired(task):
    convert(task, rule=RULE)
    task.target.write_bytes(task.target.read_bytes()[:30])
    assert convert(task, rule=RULE).state == "repaired"
    assert np.array_equal(read_values(task.target), LABELS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (RAW, r"label\.png: exists and is one too high everywhere: 0 for 'not labelled' was never removed"),
        (np.zeros((2, 3), np.uint8), r"differs from the result of its source in 66\.7 % of the pixels"),
        (np.zeros((3, 2), np.uint8), r"has 2x3 pixels instead of 3x2"),
    ],
)
def test_another_target_is_an_error_unless_it_is_to_be_replaced(task, wrong, message):
    write_label_png(wrong, task.target)
    outcome = convert(task, rule=RULE)
    assert outcome.state == "failed"
    with pytest.raises(ValueError, match=message):
        raise ValueError(outcome.message)
    assert np.array_equal(read_values(task.target), wrong)
    assert convert(task, rule=RULE, overwrite=True).state == "replaced"
    assert np.array_equal(read_values(task.target), LABELS)


def test_sizes_that_differ(task):
    Image.fromarray(np.zeros((3, 2, 3), np.uint8)).save(task.image)
    outcome = convert(task, rule=RULE)
    assert (outcome.state, task.target.exists(), task.image_target.exists()) == ("failed", False, False)
    assert "raw.png: the label map has 3x2 pixels (width x height), its image" in outcome.message
    assert outcome.message.endswith("2x3.")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_photograph_cut_short_is_named(task, tmp_path, suffix):
    task = replace(task, image=tmp_path / f"photo{suffix}")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)).save(task.image)
    Image.fromarray(np.zeros((60, 90), np.uint8)).save(task.source)
    whole = task.image.read_bytes()
    task.image.write_bytes(whole + b"\0" * 100)  # as some cameras do
    assert convert(task, rule=RULE).state == "written"
    task.image.write_bytes(whole[: len(whole) // 2])
    outcome = convert(task, rule=RULE)
    assert outcome.state == "failed" and f"Cannot read image file {task.image}" in outcome.message


def test_an_upright_image_may_be_stored_on_its_side(task):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((3, 2, 3), np.uint8)).save(task.image, exif=exif)
    assert convert(task, rule=RULE).state == "written"


def test_a_copy_is_a_link_where_links_work_and_is_mended(tmp_path, monkeypatch):
    source, linked, copied = (tmp_path / name for name in ("a.jpg", "deep/b.jpg", "c.jpg"))
    source.write_bytes(b"12345")
    assert place_copy(source, linked) == "written"
    assert os.path.samefile(source, linked)
    assert place_copy(source, linked) == "kept"
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    copied.write_bytes(b"123")
    assert place_copy(source, copied) == "repaired"
    assert copied.read_bytes() == b"12345"
    assert not os.path.samefile(source, copied)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "c.jpg", "deep"]


def test_another_image_is_an_error_unless_it_is_to_be_replaced(task):
    Image.fromarray(np.full((2, 3, 3), 200, np.uint8)).save(task.image_target)
    before = task.image_target.read_bytes()
    outcome = convert(task, rule=RULE)
    assert outcome.state == "failed" and not task.target.exists()
    assert f"{task.image_target}: exists and is not {task.image}. --overwrite replaces such files." in outcome.message
    assert task.image_target.read_bytes() == before
    assert convert(task, rule=RULE, overwrite=True).state == "replaced"
    assert task.image_target.read_bytes() == task.image.read_bytes()


@pytest.mark.parametrize(("content", "state"), [(b"cut short", "repaired"), (None, "replaced"), (b"", "written")])
def test_an_image_counts_where_its_label_is_kept(task, content, state):
    convert(task, rule=RULE)
    task.image_target.unlink()
    if content:
        task.image_target.write_bytes(content)
    elif content is None:
        Image.fromarray(np.full((2, 3, 3), 200, np.uint8)).save(task.image_target)
    plan = Plan("Toy", task.target.parent, [Split("train", [task], 1)], RULE)
    (report,) = carry_out(plan, overwrite=True, progress=False)
    assert dict(report.states) == {state: 1} and report.num_ready == 1
    headers, _, row = (line.split() for line in format_summary(plan, [report]).splitlines()[1:4])
    assert row[headers.index(state)] == "1" and convert(task, rule=RULE).state == "kept"


def test_an_equal_copy_is_kept_and_one_of_equal_length_is_compared(tmp_path):
    for name, content in (("a.jpg", b"12345"), ("equal.jpg", b"12345"), ("other.jpg", b"12340")):
        (tmp_path / name).write_bytes(content)
    assert place_copy(tmp_path / "a.jpg", tmp_path / "equal.jpg") == "kept"
    assert place_copy(tmp_path / "a.jpg", tmp_path / "other.jpg") == "repaired"  # no image
    assert (tmp_path / "other.jpg").read_bytes() == b"12345"


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_label_png(LABELS, tmp_path / "label.png")
    assert list(tmp_path.iterdir()) == []


def _die_while_writing(task):
    def save_half(image, file, **_):
        file.write(b"\x89PNG half a file")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    Image.Image.save = save_half
    convert(task, rule=RULE)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_leaves_no_half_written_label(task):
    process = multiprocessing.get_context("fork").Process(target=_die_while_writing, args=(task,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not task.target.exists()
    assert any(path.name.endswith(".tmp") for path in task.target.parent.iterdir())
    carry_out(Plan("Toy", task.target.parent, [Split("train", [task], 1)], RULE), progress=False)
    assert np.array_equal(read_values(task.target), LABELS)
    assert not any(path.name.endswith(".tmp") for path in task.target.parent.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_runs_at_once_do_not_take_each_others_files(tmp_path):
    path = tmp_path / "label.png"
    with appearing_whole(path) as temporary:
        temporary.write_bytes(b"of the first run")
        remove_leftovers(tmp_path)
        other = multiprocessing.get_context("fork").Process(target=write_label_png, args=(LABELS, path))
        other.start()
        other.join()
        assert np.array_equal(read_values(path), LABELS)
    assert path.read_bytes() == b"of the first run"
    assert list(tmp_path.iterdir()) == [path]


def _labels(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.png")}


def test_two_processes_do_what_one_does_and_go_on_where_a_run_stopped(tmp_path):
    one, two = (ade20k(tmp_path / name, train=5, val=2) for name in ("one", "two"))
    carry_out(plan_ade20k(one.parent), progress=False)
    first = plan_ade20k(two.parent).splits[0].tasks[2]
    write_label_png(read_values(one / "annotations_detectron2/training" / first.target.name), first.target)
    reports = carry_out(plan_ade20k(two.parent), num_workers=2, progress=False)
    assert [dict(report.states) for report in reports] == [{"written": 4, "kept": 1}, {"written": 2}]
    assert _labels(one / "annotations_detectron2") == _labels(two / "annotations_detectron2")
    again = carry_out(plan_ade20k(two.parent), num_workers=2, progress=False)
    assert [dict(report.states) for report in again] == [{"kept": 5}, {"kept": 2}]


def test_summary_counts_and_lists_every_broken_file(task, tmp_path):
    bad = LabelTask(tmp_path / "gone.png", tmp_path / "gone_label.png", task.image)
    plan = Plan("Toy", tmp_path, [Split("train", [task, bad], 2, ["x.jpg: has no label map."])], RULE)
    (report,) = carry_out(plan, progress=False)
    assert (report.num_ready, report.unlabelled) == (1, pytest.approx(1 / 6))
    assert not is_complete([report])
    text = format_summary(plan, [report])
    assert text.startswith(f"Toy in {tmp_path}\n")
    assert "2 of 2" in text and "16.7 %" in text
    assert "train: 1 label maps are ready, the release has 2." in text
    broken = text.split("2 files are broken:\n")[1].splitlines()
    assert broken[0] == "  x.jpg: has no label map."
    assert broken[1].startswith(f"  No label file {tmp_path}/gone.png.")


def test_no_workers(task, tmp_path):
    with pytest.raises(ValueError, match="num_workers must be at least 1; got 0"):
        carry_out(Plan("Toy", tmp_path, [Split("train", [task], 1)], RULE), num_workers=0, progress=False)
