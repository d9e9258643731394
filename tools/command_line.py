"""What the command lines of the tools share."""

import argparse
import sys


def positive(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    return _number(text, 1, "a positive number")


def whole(text: str) -> int:
    """A whole number from 0 on, for argparse."""
    return _number(text, 0, "a whole number from 0 on")


def failed(program: str, error: Exception) -> int:
    """Print in one line why the program ends, and return its exit code."""
    print(f"{program}: {error.args[0] if len(error.args) == 1 else error}", file=sys.stderr)
    return 2


def _number(text: str, lowest: int, wanted: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = lowest - 1
    if number < lowest:
        raise argparse.ArgumentTypeError(f"{text} is not {wanted}")
    return number
