"""Writing files that are whole or absent."""

import os

import pytest

from sgr_d2.files import appearing_whole


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
