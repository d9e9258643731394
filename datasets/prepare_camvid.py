"""Create CamVid's images/ and labels/ (0-10, 255 not labelled) from the folders of the SegNet tutorial (0-10, 11).

python datasets/prepare_camvid.py [--root DIR] [--num-workers N]

Run it again after an interruption, or to check: it only writes what is missing. datasets/README.md shows the expected
tree.
"""

import sys

from _command import main

from sgr_d2.data.prepare import plan_camvid

if __name__ == "__main__":
    sys.exit(main(plan_camvid, __doc__))
