"""Shared by the command lines of the tools."""

import argparse
import signal
import sys
import time
from pathlib import Path

import sgr_d2  # noqa: F401  # before Detectron2: silences a warning of its imports


def positive(text: str) -> int:
    """Parse a whole number of at least 1, for argparse."""
    return _number(text, 1, "a positive number")


def whole(text: str) -> int:
    """Parse a whole number of at least 0, for argparse."""
    return _number(text, 0, "a whole number of at least 0")


def directory(text: str) -> Path:
    """Parse a folder that exists or can be made, for argparse."""
    path = Path(text)
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise argparse.ArgumentTypeError(f"{place} is a file; give a folder")
    return path


def failed(program: str, error: Exception) -> int:
    """Print the error in one line, and return the exit code of the program."""
    print(f"{program}: {error.args[0] if len(error.args) == 1 else error}", file=sys.stderr)
    return 2


def say(text: str) -> None:
    """Write a line of progress with the time of day to stderr, beside the results on stdout."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def quiet_in_pipes() -> None:
    """End without a message when the reader of the output does, as ``head``; where the system has that signal."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def _number(text: str, lowest: int, wanted: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = lowest - 1
    if number < lowest:
        raise argparse.ArgumentTypeError(f"{text} is not {wanted}")
    return number
