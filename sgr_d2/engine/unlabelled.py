"""Tells early of a training without labels, whose losses are all 0."""

import logging
from collections.abc import Sequence

logger = logging.getLogger(__name__)

# After so many steps without a labelled pixel there is a warning; crops of sparse labels can be empty, too.
STEPS = 20


class LabelWatch:
    """Looks at the labels of each step until one pixel is labelled, and warns once if none is in the first ones.

    In several processes each one looks at its own images.
    """

    def __init__(self, ignore_label: int, names: Sequence[str], steps: int = STEPS):
        """
        Args:
            ignore_label: MODEL.SEM_SEG_HEAD.IGNORE_VALUE.
            names: DATASETS.TRAIN, for the message.
            steps: after how many there is a warning.
        """
        self.ignore_label = ignore_label
        self.names = names
        self.steps = steps
        self._seen = 0

    def __call__(self, images: Sequence[dict]) -> None:
        """
        Args:
            images: of one step; without "sem_seg", as those of detectors, they count as labelled.
        """
        if self._seen >= self.steps:
            return
        if any("sem_seg" not in image or (image["sem_seg"] != self.ignore_label).any() for image in images):
            self._seen = self.steps
            return
        self._seen += 1
        if self._seen == self.steps:
            logger.warning(
                "DATASETS.TRAIN = %s: no pixel is labelled in the images of the first %d steps: nothing is learnt. "
                "Labels of %d are ignored. Check the files: python tools/check_dataset.py %s",
                *(tuple(self.names), self.steps, self.ignore_label, " ".join(self.names)),
            )
