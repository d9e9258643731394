"""Write docs/keys.md: every config key of sgr_d2 with its default and description, from sgr_d2/config.py."""

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADER = """# Config keys

The keys that sgr_d2 adds to Detectron2's, and those whose default it changes. All others (`SOLVER.*`, `INPUT.*`,
`MODEL.RESNETS.*`, ...) are [Detectron2's own](https://detectron2.readthedocs.io/en/latest/modules/config.html) and keep
their meaning. Any key can be set in a YAML file or, as `KEY value`, at the end of a command.

Generated from `sgr_d2/config.py` by `python tools/list_keys.py`.
"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "docs/keys.md", help="default: docs/keys.md")
    path = parser.parse_args().output
    path.write_text(page((ROOT / "sgr_d2/config.py").read_text(encoding="utf-8")), encoding="utf-8")


def page(source: str) -> str:
    """Markdown with one table per group of keys."""
    groups: dict[str, list[str]] = {}
    for key, default, meaning in keys(source):
        meaning = re.sub(r"docs/(\w+\.md)", r"[\1](\1)", meaning)
        groups.setdefault(key.rpartition(".")[0] or "top level", []).append(
            f"| `{key}` | `{default}` | {meaning} |".replace("``", "")
        )
    tables = [f"## {name}\n\n| key | default | |\n|---|---|---|\n" + "\n".join(rows) for name, rows in groups.items()]
    return HEADER + "\n" + "\n\n".join(tables) + "\n"


def keys(source: str) -> list[tuple[str, str, str]]:
    """(key, default, meaning) in the order of the file; a comment applies to the keys after it up to an empty line."""
    names, found, comment, fresh = {"cfg": ""}, [], "", False
    for line in source.splitlines():
        text = line.strip()
        if text.startswith("# "):
            comment = f"{comment} {text[2:]}" if fresh else text[2:]
            fresh = True
            continue
        fresh = False
        if not text or text.startswith("def "):
            comment = ""
        aliases = re.fullmatch(r"(\w+(?:, \w+)*) = (cfg(?:\.\w+)*(?:, cfg(?:\.\w+)*)*)", text)
        if aliases:
            values = [value.removeprefix("cfg").lstrip(".") for value in aliases[2].split(", ")]
            names |= dict(zip(aliases[1].split(", "), values, strict=True))
            continue
        match = re.fullmatch(r"(\w+)((?:\.\w+)+) = (.+)", text)
        if match and match[1] in names and match[3] != "CN()":
            key = f"{names[match[1]]}{match[2]}".lstrip(".")
            default = "{}" if match[3].startswith("CN(") else match[3]
            found.append((key, default, comment.replace("|", "\\|")))
    return found


if __name__ == "__main__":
    main()
