"""Reading label files once for several evaluators."""

from collections.abc import Callable

import numpy as np


class LastFileCache:
    """Caches the array of the file that was read last, so that several evaluators share it.

    With test batches of one image, Detectron2's default, every label file is read once.
    """

    def __init__(self, read_label: Callable[[str], np.ndarray]) -> None:
        self._read_label = read_label
        self._path: str | None = None
        self._array = np.empty((0, 0), dtype=np.uint8)

    def __call__(self, path: str) -> np.ndarray:
        """Return the labels of a file as a read-only array."""
        if path != self._path:
            array = np.array(self._read_label(path))
            array.setflags(write=False)
            self._path, self._array = path, array
        return self._array
