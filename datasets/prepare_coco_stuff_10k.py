"""Convert the labels of COCO-Stuff 10K from the .mat files of release 1.1 or 1.0, which it recognises by itself.

python datasets/prepare_coco_stuff_10k.py [--root DIR] [--num-workers N]

Images and labels (0-170, 255 not labelled) go to images_detectron2/ and annotations_detectron2/, by split. Run it again
after an interruption, or to check: it only writes what is missing. datasets/README.md shows the expected tree.
"""

import sys

from _command import parser, run

from sgr_d2.data.prepare import plan_coco_stuff_10k

if __name__ == "__main__":
    command = parser(__doc__)
    command.add_argument("--release", choices=("1.1", "1.0"), help="require this release (default: accept either)")
    args = command.parse_args()
    sys.exit(run(plan_coco_stuff_10k, args, release=args.release))
