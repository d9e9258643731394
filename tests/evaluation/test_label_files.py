import numpy as np
import pytest

from sgr_d2.evaluation import LastFileCache


def test_cache_reads_a_file_once_in_a_row():
    reads = []

    def read(path):
        reads.append(path)
        return np.full((2, 2), len(reads))

    cached = LastFileCache(read)
    assert [int(cached(path)[0, 0]) for path in "aabba"] == [1, 1, 2, 2, 3]
    assert reads == ["a", "b", "a"]


def test_cached_array_cannot_be_written_to():
    source = np.zeros((2, 2), dtype=np.uint8)
    labels = LastFileCache(lambda path: source)("a")
    with pytest.raises(ValueError, match="read-only"):
        labels[0, 0] = 1
    source[0, 0] = 1  # the reader's own array stays free


def test_a_read_that_fails_is_not_remembered():
    def read(path):
        raise FileNotFoundError(path)

    cached = LastFileCache(read)
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="gone"):
            cached("gone.png")
