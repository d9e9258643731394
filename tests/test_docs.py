"""Promises of the documentation that a machine can check."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
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


@pytest.mark.parametrize("piece", quotes())
def test_the_program_says_what_troubleshooting_quotes(piece):
    text = said_by_the_program()
    sentences = [sentence for sentence in re.split(r"(?<=[.?]) (?=[A-Z])", piece) if len(sentence) > 8]
    for sentence in sentences:
        assert sentence.strip(" .:,()") in text, f"No source says {sentence!r}"


@pytest.mark.parametrize("page", ["extend.md"])
def test_code_of_a_page_runs(page):
    scope: dict = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL):
        exec(block, scope)


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_commands_name_files_that_exist(page):
    text = page.read_text(encoding="utf-8")
    for script in re.findall(r"python (?:-W ignore )?((?:tools|datasets|examples)/\S+\.py|train_net\.py)", text):
        assert (ROOT / script).is_file(), f"{page.name}: {script} does not exist"
    for config in re.findall(r"(configs/[\w/]+\.yaml)", text):
        assert (ROOT / config).is_file(), f"{page.name}: {config} does not exist"
