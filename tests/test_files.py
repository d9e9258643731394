"""Writing files that are whole or absent."""

import os

import pytest

from sgr_d2.files import appearing_whole, walk_files, write_json


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "a/file.txt"
    with appearing_whole(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new" and os.listdir(path.parent) == ["file.txt"]


def test_an_interrupted_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), appearing_whole(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.txt"]


def test_json_is_whole_or_absent(tmp_path):
    path = tmp_path / "a/b.json"
    write_json({"name": "é", "value": 1.5}, path, indent=1, ensure_ascii=False)
    assert path.read_bytes() == '{\n "name": "é",\n "value": 1.5\n}\n'.encode()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json({"value": float("nan")}, path, allow_nan=False)
    with pytest.raises(TypeError, match="serializable"):
        write_json({"value": {1}}, tmp_path / "c/d.json")
    assert '"é"' in path.read_text(encoding="utf-8") and not (tmp_path / "c").exists()


def test_files_below_links_that_lead_in_circles(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("a/b/2", "a/1", ".hidden", "3"):
        (tmp_path / name).touch()
    (tmp_path / "a/b/up").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "c").symlink_to(tmp_path / "a/b", target_is_directory=True)
    found = [path.relative_to(tmp_path).as_posix() for path in walk_files(tmp_path)]
    assert found == ["3", "a/1", "a/b/2", "c/2"]


def test_folders_that_link_to_each_other(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
        (tmp_path / name / "other").symlink_to(tmp_path / other, target_is_directory=True)
    found = [path.relative_to(tmp_path).as_posix() for path in walk_files(tmp_path)]
    assert found == ["a/file", "a/other/file", "b/file", "b/other/file"]
