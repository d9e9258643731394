"""Finds image files that do not exist, before a training that would end at the first of them."""

import os
from collections.abc import Sequence
from typing import Any

from sgr_d2.messages import first_few


def require_images(records: Sequence[dict[str, Any]], name: str) -> None:
    """Raise FileNotFoundError if image files do not exist; ``name`` is that of the data sets.

    Each folder is listed once, which is faster than to ask for every file. Addresses ("s3://...") are not checked.
    """
    files = [str(record["file_name"]) for record in records if "://" not in str(record["file_name"])]
    folders = {os.path.dirname(file) for file in files}
    listed = {os.path.join(folder, entry) for folder in filter(os.path.isdir, folders) for entry in os.listdir(folder)}
    absent = [file for file in files if file not in listed and not os.path.isfile(file)]
    if absent:
        raise FileNotFoundError(
            f"{name}: {len(absent)} of {len(files)} image files do not exist: {first_few(absent, 3)}. Put them there, "
            "or remove their images from the annotations."
        )
