"""A file that cannot be read is named, and passed over."""

import sys

from tqdm import tqdm


def report(error: Exception) -> str:
    """Write what went wrong to stderr, above any progress bar; returns the text."""
    text = str(error)
    tqdm.write(f"failed: {text}", file=sys.stderr)
    return text
