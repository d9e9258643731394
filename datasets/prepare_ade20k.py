"""Convert the labels of ADE20K: annotations/ (0-150) to annotations_detectron2/ (0-149, 255 not labelled).

python datasets/prepare_ade20k.py [--root DIR] [--num-workers N]

Run it again after an interruption, or to check: it only writes what is missing. datasets/README.md shows the expected
tree.
"""

import sys

from _command import main

from sgr_d2.data.prepare import plan_ade20k

if __name__ == "__main__":
    sys.exit(main(plan_ade20k, __doc__))
