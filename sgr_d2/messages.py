"""Parts of messages to users."""

from collections.abc import Collection
from itertools import islice


def first_few(values: Collection[object], most: int = 8) -> str:
    """The first values, separated by commas, with ", ..." if there are more than ``most``."""
    return ", ".join(map(str, islice(values, most))) + (", ..." if len(values) > most else "")
