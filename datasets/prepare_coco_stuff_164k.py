"""Convert the labels of COCO-Stuff 164K: stuffthingmaps/ (0-181) to stuffthingmaps_detectron2/ (0-170, 255).

python datasets/prepare_coco_stuff_164k.py [--root DIR] [--num-workers N]

Run it again after an interruption, or to check: it only writes what is missing. datasets/README.md shows the expected
tree.
"""

import sys

from _command import main

from sgr_d2.data.prepare import plan_coco_stuff_164k

if __name__ == "__main__":
    sys.exit(main(plan_coco_stuff_164k, __doc__))
