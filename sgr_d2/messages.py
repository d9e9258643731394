"""Parts of messages to users."""

import difflib
from collections.abc import Collection, Sequence
from itertools import islice

# Of a model without tokens and regions.
NO_SGR = "has no SGR (MODEL.SGR.ENABLED is False, or a peer is in its place)"


def first_few(values: Collection[object], most: int = 8) -> str:
    """The first values, separated by commas, with ", ..." if there are more than ``most``."""
    return ", ".join(map(str, islice(values, most))) + (", ..." if len(values) > most else "")


def did_you_mean(name: str, known: Sequence[str], most: int = 1) -> str:
    """A sentence, after a space, with up to ``most`` of the known names that are similar; "" if none is."""
    near = difflib.get_close_matches(name, known, n=most)
    return f" Did you mean {' or '.join(near)}?" if near else ""
