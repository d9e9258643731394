"""What a program refuses, told in one line instead of below a traceback."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

# Set it to see where a refusal comes from.
TRACEBACK = "SGR_D2_TRACEBACK"
_PACKAGE = "sgr_d2."
_STEPS = "sgr_d2.engine.loop"


@contextmanager
def refusals_in_a_line(program: str) -> Iterator[None]:
    """Print the message of what sgr_d2 itself raises before the first training step, and leave with exit code 2.

    All else keeps its traceback: errors of other packages and of modules of your own, and what happens in a training
    step. So does everything where the environment variable SGR_D2_TRACEBACK is set.

    Args:
        program: its name, for the line.

    Raises:
        SystemExit: instead of a FileNotFoundError, KeyError or ValueError of that kind.
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
