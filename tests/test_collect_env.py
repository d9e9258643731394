"""The report of ``python -m sgr_d2``, also where nothing is installed."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from sgr_d2.collect_env import DATA_SETS, REQUIRED, Row, _package_row, collect_env, main

ROOT = Path(__file__).parents[1]


def _python(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *args], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_a_complete_installation_misses_nothing(monkeypatch, capsys):
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    assert main() == 0
    text = capsys.readouterr().out
    for name in (*REQUIRED, "sgr_d2", "Python", "CUDA", "DETECTRON2_DATASETS"):
        assert any(line.startswith(name + " ") for line in text.splitlines()), name


def test_all_that_an_installation_brings_is_looked_at():
    lines = (ROOT / "requirements/runtime.in").read_text().splitlines()
    wanted = {line for line in lines if not line.startswith("#")}
    assert {names[0] for names in REQUIRED.values()} - {"detectron2"} == wanted


def test_versions_are_those_of_the_modules():
    import numpy
    import torch

    values = {row.name: row.value for row in collect_env()}
    assert values["numpy"] == numpy.__version__
    assert values["torch"] == torch.__version__.split("+")[0]
    assert values["CUDA"].startswith("not available") != torch.cuda.is_available()


def test_an_empty_installation_is_reported_part_by_part():
    done = _python("-S", "-E", "-m", "sgr_d2")  # -S: Python without its site-packages
    assert done.returncode == 1, done.stderr
    missing = done.stdout.split("Missing or too old, and the command that installs it:")[1]
    listed = {line.split()[0]: line for line in missing.splitlines() if line.strip()}
    assert set(listed) == set(REQUIRED)
    assert all("make install" in line for line in listed.values())
    assert not done.stderr


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("raise OSError('libfoo.so: cannot open\\nsecond line')", "does not import: libfoo.so: cannot open"),
        ("import a_package_that_nobody_has", "does not import: No module named 'a_package_that_nobody_has'"),
    ],
)
def test_a_broken_package_is_told_from_a_missing_one(tmp_path, monkeypatch, source, value):
    (tmp_path / "broken_package_of_a_test.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert _package_row("broken_package_of_a_test", ("nothing",)) == Row(
        "broken_package_of_a_test", value, "make install"
    )
    assert _package_row("absent_package_of_a_test", ("nothing",)).value == "missing"


@pytest.mark.parametrize(
    ("version", "fits"),
    [("2.5.1", False), ("2.6.0", True), ("2.10.0", True), ("2.6.0a0+ab12.nv25.1", True), ("x", True)],
)
def test_a_version_that_is_too_old_is_told(monkeypatch, version, fits):
    monkeypatch.setattr(metadata, "version", lambda name: version)
    row = _package_row("torch", ("torch>=2.6",))
    told = Row("torch", version) if fits else Row("torch", "2.5.1, but torch>=2.6 is needed", "make install")
    assert row == told


def test_known_data_sets_are_found(tmp_path, monkeypatch):
    (tmp_path / DATA_SETS["camvid"]).mkdir(parents=True)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    row = next(row for row in collect_env() if row.name == "DETECTRON2_DATASETS")
    assert row.value == f"{tmp_path}: holds camvid"
    assert not row.fix


def test_a_data_folder_that_does_not_exist_counts_as_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    row = next(row for row in collect_env() if row.name == "DETECTRON2_DATASETS")
    assert "nowhere: no such folder" in row.value
    assert row.fix


def test_importing_the_package_imports_no_torch():
    done = _python("-c", "import sys, sgr_d2.collect_env; print('torch' in sys.modules, 'detectron2' in sys.modules)")
    assert done.stdout.split() == ["False", "False"], done.stderr
