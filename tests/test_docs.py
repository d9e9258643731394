"""Promises of the documentation that a machine can check."""

import importlib.util
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "datasets/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
SOURCE = "\n".join(
    path.read_text(encoding="utf-8") for folder in ("sgr_d2", "tools") for path in sorted((ROOT / folder).rglob("*.py"))
)


def said_by_the_program() -> str:
    """The text of all string literals, neighbours joined, with what is filled in as a gap."""
    joined = re.sub(r'"\s*\n\s*(?:\+ )?[frb]*"', "", SOURCE)
    return re.sub(r"\{[^{}]*\}|%[sd]|%\.\df", "\0", joined)


def quotes() -> list[str]:
    """Every piece between the "..." of a quoted message."""
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    lines = re.findall(r"^> (.+)$", text, re.MULTILINE)
    pieces = [piece.strip(" .:,()") for line in lines for piece in line.split("...")]
    return [piece for piece in pieces if len(piece) > 8]


def test_troubleshooting_quotes_messages():
    assert len(quotes()) > 30, "quote a message on lines that begin with '> '"


@pytest.mark.parametrize("piece", quotes())
def test_the_program_says_what_troubleshooting_quotes(piece):
    text = said_by_the_program()
    sentences = [sentence for sentence in re.split(r"(?<=[.?]) (?=[A-Z])", piece) if len(sentence) > 8]
    for sentence in sentences:
        assert sentence.strip(" .:,()") in text, f"No source says {sentence!r}"


def code_of(page: str) -> list[str]:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks, f"{page}: no block begins with ```python"
    return blocks


@pytest.mark.parametrize("page", ["extend.md"])
def test_code_of_a_page_runs(page):
    scope: dict = {}
    for block in code_of(page):
        exec(block, scope)


def write_tiny_coco(folder: Path, pixels: np.ndarray) -> None:
    """One training image with a square dog."""
    from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

    (folder / "annotations").mkdir(parents=True)
    (folder / "train2017").mkdir()
    cv2.imwrite(str(folder / "train2017/a.png"), pixels)
    dog = {"id": 1, "image_id": 1, "category_id": 18, "iscrowd": 0, "bbox": [8, 8, 40, 40]}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": pixels.shape[0], "width": pixels.shape[1]}],
        "annotations": [dog | {"segmentation": [[8, 8, 48, 8, 48, 48, 8, 48]]}],
        "categories": [{"id": c["id"], "name": c["name"]} for c in COCO_CATEGORIES if c["isthing"]],
    }
    (folder / "annotations/instances_train2017.json").write_text(json.dumps(content))


def test_code_for_detectors_runs(tmp_path, monkeypatch):
    """On a toy detector and one image, in the places that the page names."""
    from toy_detectors import write_detector

    from sgr_d2.data.datasets import register_all

    use, look = code_of("detection.md")
    pixels = np.full((72, 96, 3), 90, np.uint8)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    cv2.imwrite("street.jpg", pixels)
    write_detector(Path(re.search(r'run = "(.+)"', use)[1]))
    write_tiny_coco(tmp_path / "tiny_coco", pixels)
    scope: dict = {}
    exec(use, scope)
    found = scope["out"]["instances"]
    assert len(found) and scope["masks"].shape == (len(found), 72, 96) and found.scores.min() >= 0.5
    assert scope["boxes"].tensor.shape == (len(found), 4)
    assert scope["regions"].shape[0] == scope["tokens"].shape[0] == 6
    assert scope["classes"].thing_classes == ["a", "b", "c"]
    exec(look, scope)
    for name in ("detections.png", "annotations.png"):
        drawn = cv2.imread(name).astype(int)
        assert drawn.shape == (72, 96, 3) and np.abs(drawn - pixels).mean() > 5
    monkeypatch.undo()
    register_all()


def test_code_for_predictions_runs(tmp_path, monkeypatch):
    """On a toy model, in a folder with the files that the page names."""
    from toy_checkpoint import CLASSES, write_checkpoint

    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "model_final.pth")
    rng = np.random.default_rng(0)
    Path("photos").mkdir()
    for name in ("street.jpg", "square.jpg", "photos/a.jpg", "photos/b.jpg"):
        cv2.imwrite(name, rng.integers(0, 256, (45, 63, 3), np.uint8))
    cv2.imwrite("street_label.png", rng.integers(0, len(CLASSES), (45, 63), np.uint8))
    clip = cv2.VideoWriter("clip.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (64, 48))
    for frame in rng.integers(0, 256, (3, 48, 64, 3), np.uint8):
        clip.write(frame)
    clip.release()
    scope: dict = {}
    for block in code_of("inference.md"):
        exec(block, scope)
    assert scope["path"] == "photos/b.jpg" and scope["number"] == 2
    assert scope["predictor"].test_size[0] == 360 and scope["where"].shape == (45, 63)
    assert scope["figures"].num_tokens == len(scope["out"].tokens) and scope["figures"].S > 0
    for name in ("classes.png", "overlay.png"):
        assert cv2.imread(name).shape == (45, 63, 3)


def test_the_page_of_keys_is_that_of_the_config():
    spec = importlib.util.spec_from_file_location("list_keys", ROOT / "tools/list_keys.py")
    list_keys = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(list_keys)
    page = list_keys.page((ROOT / "sgr_d2/config.py").read_text(encoding="utf-8"))
    assert page == (ROOT / "docs/keys.md").read_text(encoding="utf-8"), "run python tools/list_keys.py"


def test_the_page_of_keys_has_every_key_with_its_default():
    from detectron2.config import CfgNode, get_cfg
    from detectron2.projects.deeplab import add_deeplab_config
    from detectron2.projects.point_rend import add_pointrend_config

    from sgr_d2.config import get_sgr_cfg

    def flat(node, prefix=""):
        for key, value in node.items():
            yield from flat(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else [(f"{prefix}{key}", value)]

    known = get_cfg()
    add_deeplab_config(known)
    add_pointrend_config(known)
    page = (ROOT / "docs/keys.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([A-Z0-9_.]+)` \| `(.+?)` \|", page, re.MULTILINE))
    ours = dict(flat(get_sgr_cfg()))
    for key in ours.keys() - dict(flat(known)).keys():
        assert eval(rows[key]) == ours[key], key


def anchors_of(page: Path) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name} links to {target}, which does not exist"
        assert not anchor or anchor in anchors_of(file), f"{page.name}: {file.name} has no heading #{anchor}"


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_name_files_that_exist(page):
    text = page.read_text(encoding="utf-8")
    for script in re.findall(r"python (?:-W ignore )?((?:tools|datasets|examples)/\S+\.py|train_net\.py)", text):
        assert (ROOT / script).is_file(), f"{page.name}: {script} does not exist"
    for config in re.findall(r"(configs/[\w/]+\.yaml)", text):
        assert (ROOT / config).is_file(), f"{page.name}: {config} does not exist"
