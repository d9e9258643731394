"""Reports files that cannot be read."""

import sys

from tqdm import tqdm


def report(error: Exception) -> str:
    """Write the error to stderr, above any progress bar; returns its text."""
    text = str(error)
    tqdm.write(f"failed: {text}", file=sys.stderr)
    return text
