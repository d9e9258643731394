"""Imports point down: structures, labels, files, config and so on <- data | modeling | evaluation | ... <- engine."""

import ast
import importlib
from functools import cache
from pathlib import Path

import pytest
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "sgr_d2").rglob("*.py"))
}
BASE = {"sgr_d2", "structures", "labels", "files", "messages", "config", "checks", "yaml_mistakes"}
MIDDLE = {"data", "modeling", "evaluation", "visualization"}
# What each part of the package may import of it. A part that is not listed here fails: decide where it belongs.
ALLOWED = {
    "sgr_d2": set(),
    "structures": set(),
    "labels": set(),
    "files": set(),
    "messages": set(),
    "config": set(),
    "checks": set(),
    "yaml_mistakes": set(),
    **{part: BASE | {part} for part in MIDDLE},
    "engine": BASE | MIDDLE | {"engine"},
    "config_files": set(),
    "collect_env": {"sgr_d2"},
    "__main__": {"collect_env"},
}
SCRIPTS = {"tools", "train_net", "tests"}


def _imported(source: str, module: str, is_package: bool) -> set[str]:
    """Full names of all that ``source`` imports, anywhere in it; ``from a import b`` counts as a.b."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parent = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parent, base]).rstrip(".")
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def _part(name: str) -> str:
    """The part of the package that a full name belongs to: sgr_d2.data.components -> data."""
    parts = name.split(".")
    is_module = len(parts) > 1 and ".".join(parts[:2]) in MODULES
    return parts[1] if is_module else parts[0]


def _violations(source: str, module: str, is_package: bool = False) -> set[str]:
    allowed = ALLOWED[_part(module)]
    names = _imported(source, module, is_package)
    return {
        name
        for name in names
        if name.split(".")[0] in SCRIPTS or (name.split(".")[0] == "sgr_d2" and _part(name) not in allowed)
    }


@pytest.mark.parametrize("module", MODULES)
def test_module_keeps_to_its_layer(module):
    path = MODULES[module]
    assert _part(module) in ALLOWED, f"{module}: say in tests/test_imports.py what it may import"
    assert not _violations(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")


@pytest.mark.parametrize("module", [module for module in MODULES if module != "sgr_d2.__main__"])
def test_module_imports(module):
    importlib.import_module(module)


@cache
def _head_modules() -> set[str]:
    """The modules of the package that register a head, whatever they are called."""
    importlib.import_module("sgr_d2.modeling")
    return {head.__module__ for _, head in SEM_SEG_HEADS_REGISTRY if head.__module__ in MODULES}


def _is_head(name: str) -> bool:
    """Whether a full name is that of a head, of its module or of something in that."""
    of_head = any(name == module or name.startswith(f"{module}.") for module in _head_modules())
    parts = name.lower().split(".")
    return of_head or any(part == "mask2former" or part.rstrip("s").endswith("head") for part in parts)


def _all_heads() -> set[str]:
    return {_below_modeling(module) for module in _head_modules()}


def _below_modeling(name: str) -> str:
    """sgr_d2.modeling.mask2former.points -> sgr_d2.modeling.mask2former"""
    return ".".join(name.split(".")[:3])


def test_every_head_is_known():
    heads = {f"sgr_d2.modeling.{name}" for name in ("deeplab", "mask2former.head", "point_rend")}
    assert _head_modules() == heads and all(map(_is_head, heads))
    assert _is_head("sgr_d2.modeling.deeplab.WindowPool") and not _is_head("sgr_d2.modeling.postprocessing")


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("sgr_d2.modeling.")])
def test_sgr_and_heads_do_not_know_each_other(module):
    path = MODULES[module]
    names = _imported(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
    if module.startswith("sgr_d2.modeling.sgr"):
        assert not {name for name in names if _is_head(name) or "meta_arch" in name or "segmentor" in name}
    elif _is_head(module):
        assert not {name for name in names if name.startswith("sgr_d2.modeling.sgr")}
        assert {_below_modeling(name) for name in names} & _all_heads() <= {_below_modeling(module)}


@pytest.mark.parametrize(
    ("source", "module", "is_package", "bad"),
    [
        ("import sgr_d2.engine.train", "sgr_d2.data", True, {"sgr_d2.engine.train"}),
        ("from sgr_d2 import engine", "sgr_d2.data", True, {"sgr_d2.engine"}),
        ("from ..engine import hooks", "sgr_d2.data.mapper", False, {"sgr_d2.engine.hooks"}),
        ("from ..engine import hooks", "sgr_d2.data", True, {"sgr_d2.engine.hooks"}),
        ("def f():\n    from sgr_d2.modeling import x", "sgr_d2.evaluation", True, {"sgr_d2.modeling.x"}),
        ("from sgr_d2.config import get_sgr_cfg", "sgr_d2.structures", False, {"sgr_d2.config.get_sgr_cfg"}),
        ("import tools.benchmark", "sgr_d2.engine", True, {"tools.benchmark"}),
        ("from sgr_d2 import __version__, structures", "sgr_d2.modeling", True, set()),
        ("from .components import x\nimport torch, toolset", "sgr_d2.data", True, set()),
        ("from sgr_d2.data import x\nfrom sgr_d2.modeling.sgr import y", "sgr_d2.engine", True, set()),
    ],
)
def test_the_check_itself_finds_what_is_forbidden(source, module, is_package, bad):
    assert _violations(source, module, is_package) == bad
