"""Errors in the files of a record, told apart from bugs, also when they come from the worker of a data loader."""

from collections.abc import Callable
from typing import Any

Record = dict[str, Any]
Mapper = Callable[[Record], Record]


class BadRecordError(ValueError):
    """A file of a data set is missing or invalid; the message names it.

    torch raises an error of a worker again with a text that begins with the traceback there. That text becomes the
    cause, so that the message remains what it was.
    """

    def __init__(self, text: str):
        traceback, _, message = text.rpartition(f"{__name__}.{type(self).__name__}: ")
        super().__init__(message.strip())
        if traceback:
            self.__cause__ = RuntimeError(text)


class CheckedMapper:
    """Calls a mapper; its errors that name a file of the record become a `BadRecordError`, others stay as they are."""

    def __init__(self, mapper: Mapper):
        self.mapper = mapper

    def __call__(self, record: Record) -> Record:
        """Raises `BadRecordError`."""
        try:
            return self.mapper(record)
        except (FileNotFoundError, ValueError) as error:
            if any(str(path) in str(error) for key, path in record.items() if key.endswith("file_name") and path):
                raise BadRecordError(str(error)) from error
            raise
