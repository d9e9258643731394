"""Writes the comparison as Markdown with separate pictures, and as one self-contained HTML file."""

import base64
import html
import re
from pathlib import Path

import markdown
from experiments.plots import draw_dots
from experiments.summary import Collected, to_markdown

from .classes import class_tables, draw_classes
from .grouping import data_sets

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { border-bottom: 2px solid #888; }
img { max-width: 100%; height: auto; }
code { background: #f3f3f3; padding: .1rem .25rem; overflow-wrap: anywhere; }
"""
PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>{style}</style></head>
<body>
{body}
</body>
</html>
"""
NEVER_PLOTTED = ("fwIoU", "mACC", "pACC", "I_C", "I_I", "active_rate", "overlap")


def write_page(collected: Collected, folder: Path) -> str:
    """Write ``comparison.md``, ``comparison.html`` and the pictures; returns the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = to_markdown(collected, _draw(collected, folder))
    tables = class_tables(collected)
    text = text.replace("\n## Costs\n", f"\n{tables}\n\n## Costs\n", 1) if tables else text
    (folder / "comparison.md").write_text(text, encoding="utf-8")
    (folder / "comparison.html").write_text(to_html(text, folder, collected.plan.title), encoding="utf-8")
    return text


def to_html(text: str, folder: Path, title: str) -> str:
    """The page as HTML with embedded pictures, which needs neither other files nor a network."""
    converter = markdown.Markdown(extensions=["tables", "sane_lists"])
    converter.preprocessors.deregister("html_block")  # names of runs and classes are text, not markup
    for pattern in ("html", "link", "reference", "short_reference", "autolink", "automail"):
        converter.inlinePatterns.deregister(pattern)
    body = converter.convert(text)

    def embed(match: re.Match) -> str:
        data = base64.b64encode((folder / html.unescape(match[1])).read_bytes()).decode()
        return f'src="data:image/png;base64,{data}"'

    body = re.sub(r'src="([^":]+\.png)"', embed, body)
    return PAGE.format(title=html.escape(title), style=STYLE, body=body)


def _draw(collected: Collected, folder: Path) -> list[str]:
    names = []
    for metric in collected.plan.metrics:
        there = any(collected.values(variant, metric) for variant in collected.plan.variants)
        if there and metric.rsplit("/", 1)[1] not in NEVER_PLOTTED:
            names.append(f"{metric.replace('/', '_')}.png")
            draw_dots(collected, metric, folder / names[-1])
    for data_set in data_sets(collected.results):
        name = f"classes_{data_set}.png"
        if draw_classes(collected, data_set, folder / name):
            names.append(name)
    return names
