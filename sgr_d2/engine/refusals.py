"""Reports invalid input, and Ctrl-C, in one line instead of a traceback."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

from detectron2.utils import comm

from sgr_d2.data.bad_record import BadRecordError

# Environment variable that shows the traceback.
TRACEBACK = "SGR_D2_TRACEBACK"
# Exit code after Ctrl-C, as that of a shell.
INTERRUPTED = 130
_PACKAGE = "sgr_d2."
_STEPS = "sgr_d2.engine.loop"
# The logger with Detectron2's handlers, and that with which it logs the error that ends a training.
_DETECTRON = logging.getLogger("detectron2")
_TRAINING = logging.getLogger("detectron2.engine.train_loop")


@contextmanager
def refusals_in_a_line(program: str) -> Iterator[None]:
    """Print only the message of errors that sgr_d2 itself raises outside of training steps, and exit with code 2.

    The same for files of a data set that cannot be used, at any time. Errors of other packages, of your own modules
    and in a training step keep their traceback, as do all errors if the environment variable SGR_D2_TRACEBACK is set.
    Ctrl-C exits with code 130; the first process tells where a training was, see `sgr_d2.engine.train`.

    Args:
        program: name of the program, for the message.

    Raises:
        SystemExit: instead of such a FileNotFoundError, KeyError or ValueError, and of KeyboardInterrupt.
    """
    if os.environ.get(TRACEBACK):
        yield
        return
    _TRAINING.addFilter(_briefly_to_files)
    try:
        yield
    except Exception as error:
        if not _is_refusal(error):
            raise
        sys.stderr.write(f"{program}: error: {_message(error)} ({TRACEBACK}=1 shows where this comes from.)\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt as error:
        if comm.is_main_process():
            sys.stderr.write(f"\n{program}: {_message(error) or 'Interrupted.'}\n")
        raise SystemExit(INTERRUPTED) from None
    finally:
        _TRAINING.removeFilter(_briefly_to_files)


def _is_refusal(error: BaseException) -> bool:
    if isinstance(error, BadRecordError):
        return True
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__)]
    known = isinstance(error, FileNotFoundError | ConnectionError | KeyError | ValueError)
    return known and modules[-1].startswith(_PACKAGE) and _STEPS not in modules


def _message(error: BaseException) -> str:
    return str(error.args[0] if len(error.args) == 1 else error)  # str puts quotes around that of a KeyError


def _briefly_to_files(record: logging.LogRecord) -> bool:
    """A filter that logs a refusal without its traceback, and not on the terminal, which gets the line at the end."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None or not _is_refusal(error):
        return True
    record.msg, record.args, record.exc_info = f"{record.getMessage()} {_message(error)}", (), None
    for handler in _DETECTRON.handlers:
        if getattr(handler, "stream", None) is not sys.stdout:
            handler.handle(record)
    return False
