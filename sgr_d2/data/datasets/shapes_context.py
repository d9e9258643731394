"""The data set ``shapes_context``: the class of rings depends on an object elsewhere; generated on first use.

    <root>/shapes_context/{images,labels}/{train,val}/0000.png     RGB strips; label-id PNGs, every pixel labelled
    <root>/shapes_context/rings_{train,val}.json                   per image the rings: class, box, distance to the key
    <root>/shapes_context/generator.json                           the stamp: what made these files, written last

The registered names are ``shapes_context_train`` and ``shapes_context_val``. ``shapes_context_scene`` draws the scenes
and explains why no local model can be right. Each of the two keys is in half of the scenes of a split.
"""

from pathlib import Path

import numpy as np

from sgr_d2.data.datasets.generated_splits import GeneratedSplits, SceneNotes
from sgr_d2.data.datasets.shapes import COLORS
from sgr_d2.data.datasets.shapes_context_scene import CLASSES, KEYS, RINGS, ContextScene, draw_context_scene

# Increase this whenever draw_context_scene or the layout changes.
VERSION = 1
NUM_TRAIN, NUM_VAL, SEED = 600, 120, 0
HEIGHT, WIDTH = 64, 516
NAME = "shapes_context"


def register_shapes_context(
    root: Path, *, num_train: int = NUM_TRAIN, num_val: int = NUM_VAL, seed: int = SEED
) -> None:
    """Register ``shapes_context_train`` and ``shapes_context_val``, see `GeneratedSplits.register`.

    Each record also has ``context_objects``: a list of {"label", "box", "distance"}, see ``ContextObject``. The
    metadata has ``context_labels``, the possible classes of such objects.
    """
    _splits().register(root, num_train=num_train, num_val=num_val, seed=seed)


def generate_shapes_context(
    root: Path, *, num_train: int = NUM_TRAIN, num_val: int = NUM_VAL, seed: int = SEED
) -> Path:
    """Generate it unless it exists, and return ``<root>/shapes_context``, see `GeneratedSplits.generate`."""
    return _splits().generate(root, num_train=num_train, num_val=num_val, seed=seed)


def _splits() -> GeneratedSplits:
    return GeneratedSplits(
        NAME,
        CLASSES,
        COLORS,
        (HEIGHT, WIDTH),
        VERSION,
        _draw,
        SceneNotes("rings", "context_objects", _rings),
        metadata={"evaluator_type": NAME, "extra": {"context_labels": list(RINGS)}},
    )


def _draw(generator: np.random.Generator, index: int) -> ContextScene:
    return draw_context_scene(generator, HEIGHT, WIDTH, key=index % len(KEYS))


def _rings(scene: ContextScene) -> list[dict]:
    return [ring._asdict() for ring in scene.rings]
