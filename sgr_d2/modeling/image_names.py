"""The names of the images of a batch, for log messages from deep inside a model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_names: ContextVar[tuple[str, ...]] = ContextVar("image_names", default=())


@contextmanager
def naming_images(names: Sequence[str]) -> Iterator[None]:
    """Inside the ``with`` block `image_name` returns these names (usually of files), one for each image of a batch."""
    token = _names.set(tuple(names))
    try:
        yield
    finally:
        _names.reset(token)


def image_name(index: int) -> str:
    """Name of image ``index`` of the current batch, or for example "image 3 of the batch" if no names were given."""
    names = _names.get()
    return names[index] if index < len(names) else f"image {index} of the batch"
