"""Train SGR on a folder of ten images, predict them, and look at the tokens. About a minute on one core of a CPU.

python examples/ten_images.py                                           ten generated scenes
python examples/ten_images.py --images photos --labels labels --classes soil crop weed

The parts between "# %%" are cells for editors that know them (VS Code, PyCharm, Spyder, Jupytext).
"""

# %% What to train on: ten images and, under the same names, PNGs with the class of each pixel (255: unknown).
import argparse
from pathlib import Path

import numpy as np
import torch
import yaml
from detectron2.utils.env import seed_all_rng
from PIL import Image

from sgr_d2 import SGRPredictor
from sgr_d2.data.datasets import load_image_label_folder
from sgr_d2.data.datasets.shapes import CLASSES, generate_shapes
from sgr_d2.data.reading import read_image, read_label
from sgr_d2.engine import load_config, train
from sgr_d2.evaluation import token_semantics
from sgr_d2.visualization import Classes, draw_sheet
from sgr_d2.visualization.palette import class_colors

ROOT = Path(__file__).resolve().parents[1]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--images", type=Path, metavar="DIR", help="folder of images; default: generated scenes")
parser.add_argument("--labels", type=Path, metavar="DIR", help="folder of label PNGs")
parser.add_argument("--classes", nargs="+", default=CLASSES, metavar="NAME", help="names of the labels 0, 1, 2 ...")
parser.add_argument("--steps", type=int, default=60, metavar="N", help="of training; default 60")
parser.add_argument("--output", type=Path, default=Path("output/ten_images"), metavar="DIR")
args = parser.parse_args()
if (args.images is None) != (args.labels is None):
    parser.error("--images and --labels need each other; without both, scenes are generated")
if args.images is None:
    shapes = generate_shapes(args.output, num_train=10, num_val=1)
    args.images, args.labels = shapes / "images/train", shapes / "labels/train"
ignore_label = 255
try:
    pairs = load_image_label_folder(args.images, args.labels)
    images = [read_image(pair["file_name"]) for pair in pairs]
    labels = [
        read_label(pair["sem_seg_file_name"], num_classes=len(args.classes), ignore_label=ignore_label)
        for pair in pairs
    ]
except (OSError, ValueError) as error:  # told in one line, before the training
    own = (
        " (--classes names the classes; keys of DATASETS.FOLDERS are for train_net.py.)"
        if "FOLDERS" in str(error)
        else ""
    )
    parser.exit(2, f"{parser.prog}: {error}{own}\n")

# %% The config: SGR in a small FPN, as configs/shapes/fpn_sgr.yaml has it, on this folder.
args.output.mkdir(parents=True, exist_ok=True)
folder = {"IMAGE_DIR": str(args.images), "LABEL_DIR": str(args.labels), "CLASSES": list(args.classes)}
settings = {
    "_BASE_": str(ROOT / "configs/shapes/fpn_sgr.yaml"),
    "DATASETS": {"FOLDERS": {"ten_images": folder}, "TRAIN": ["ten_images"], "TEST": ["ten_images"]},
    "SOLVER": {
        "MAX_ITER": args.steps,
        "WARMUP_ITERS": args.steps // 6,
        "IMS_PER_BATCH": 4,
        "CHECKPOINT_PERIOD": args.steps,
    },
    "TEST": {"EVAL_PERIOD": 0, "NUM_PICTURES": 0},
    "MODEL": {"DEVICE": "cuda" if torch.cuda.is_available() else "cpu"},
    "SEED": 0,
    "OUTPUT_DIR": str(args.output),
}
config_file = args.output / "ten_images.yaml"  # train_net.py takes this file, too
config_file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
cfg = load_config(str(config_file))

# %% Train. On ten images this learns them by heart, which is what a first try should show.
print(f"training {args.steps} steps ...", flush=True)
seed_all_rng(cfg.SEED)
results = train(cfg)
print(f"{args.steps} steps: mIoU {results['sem_seg']['mIoU']:.1f} on the images trained on")

# %% Predict. The checkpoint carries config and classes, so that nothing else is needed.
predict = SGRPredictor.from_checkpoint(args.output / "model_final.pth")
predictions = predict(images)
first = predictions[0]
print("first image:", ", ".join(f"{name} {share:.0%}" for name, share in first.class_areas().items()))
print(f"{len(first.tokens)} tokens of {first.tokens.shape[1]} channels, regions of {first.regions.shape[1:]} cells")

# %% Are the tokens semantic? S_C: entropy of the classes under a token, low; D_C: of all tokens together, high.
for pair, prediction, label in zip(pairs, predictions, labels, strict=True):
    figures = token_semantics(prediction.regions, label, ignore_label=ignore_label, extent=prediction.extent)
    print(f"{pair['image_id']:>12}: S_C {figures.S:.2f}  D_C {figures.D:.2f} nats")

# %% Look at them: a picture an image, with the strongest tokens, the regions one by one and the classes they hold.
colors = class_colors(len(predict.classes), predict.metadata.colors)
classes = Classes(predict.classes, colors, ignore_label)
pictures = args.output / "pictures"
pictures.mkdir(exist_ok=True)
for pair, image, label, prediction in zip(pairs, images, labels, predictions, strict=True):
    sheet = draw_sheet(image, label, prediction.labels, classes, prediction.image_tokens())
    Image.fromarray(sheet).save(pictures / f"{pair['image_id'].replace('/', '_')}.png")
similarity = np.corrcoef(first.tokens)
np.fill_diagonal(similarity, -1)
a, b = np.unravel_index(similarity.argmax(), similarity.shape)
print(f"most alike in the first image: tokens {a} and {b}, correlation {similarity[a, b]:.2f}")
print(f"pictures: {pictures}")
