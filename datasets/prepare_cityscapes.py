"""Convert the labels of Cityscapes: *_labelIds.png to *_labelTrainIds.png (0-18, 255 not evaluated).

python datasets/prepare_cityscapes.py [--root DIR] [--num-workers N]

Run it again after an interruption, or to check: it only writes what is missing. datasets/README.md shows the expected
tree.
"""

import sys

from _command import main

from sgr_d2.data.prepare import plan_cityscapes

if __name__ == "__main__":
    sys.exit(main(plan_cityscapes, __doc__))
