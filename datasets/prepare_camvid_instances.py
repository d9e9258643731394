"""Write the instances of camvid_instances to files in COCO's format; training also works without these files.

python datasets/prepare_camvid_instances.py
python datasets/prepare_camvid_instances.py --splits train val --output ~/data/camvid_instances
"""

import argparse
from pathlib import Path

from sgr_d2.data.datasets import camvid, dataset_root, register_all
from sgr_d2.data.datasets.camvid_instances import annotation_file, write_annotations


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", nargs="+", default=["train", "val"], choices=[*camvid.PUBLISHED])
    parser.add_argument(
        "--output",
        type=Path,
        help="folder to write to (default: $DETECTRON2_DATASETS/camvid_instances, where training looks for it)",
    )
    args = parser.parse_args(arguments)
    folder = (args.output or dataset_root() / "camvid_instances").expanduser()
    register_all()
    for split in args.splits:
        try:
            counts = write_annotations(split, folder)
        except (OSError, ValueError) as error:
            parser.exit(1, f"{split}: {error}\n")
        numbers = ", ".join(f"{count} {name}" for name, count in counts.items())
        print(f"{annotation_file(folder, split)}: {sum(counts.values())} instances ({numbers})")


if __name__ == "__main__":
    main()
