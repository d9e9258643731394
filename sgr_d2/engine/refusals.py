"""Reports invalid input in one line instead of a traceback."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

# Environment variable that shows the traceback.
TRACEBACK = "SGR_D2_TRACEBACK"
_PACKAGE = "sgr_d2."
_STEPS = "sgr_d2.engine.loop"


@contextmanager
def refusals_in_a_line(program: str) -> Iterator[None]:
    """Print only the message of errors that sgr_d2 itself raises outside of training steps, and exit with code 2.

    Errors of other packages, of your own modules and in a training step keep their traceback, as do all errors if the
    environment variable SGR_D2_TRACEBACK is set.

    Args:
        program: name of the program, for the message.

    Raises:
        SystemExit: instead of such a FileNotFoundError, KeyError or ValueError.
    """
    try:
        yield
    except (FileNotFoundError, KeyError, ValueError) as error:
        if os.environ.get(TRACEBACK) or not _is_refusal(error):
            raise
        message = error.args[0] if len(error.args) == 1 else error
        sys.stderr.write(f"{program}: error: {message} ({TRACEBACK}=1 shows where this comes from.)\n")
        raise SystemExit(2) from None


def _is_refusal(error: Exception) -> bool:
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__)]
    return modules[-1].startswith(_PACKAGE) and _STEPS not in modules
