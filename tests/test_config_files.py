"""Configs by name, in the clone and in what setup.py builds."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sgr_d2
from sgr_d2.engine import load_config

ROOT = Path(__file__).parents[1]
NAME = "camvid/fpn_sgr_effnet_lite0"


@pytest.mark.parametrize("name", [NAME, f"{NAME}.yaml"])
def test_in_a_clone(name):
    assert sgr_d2.config_file(name) == str(ROOT / f"configs/{NAME}.yaml")


def test_an_unknown_name_tells_similar_ones():
    with pytest.raises(ValueError, match=r"config_file\('camvid/fpn_sgr'\).*camvid/fpn_sgr_effnet_lite0"):
        sgr_d2.config_file("camvid/fpn_sgr")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The packages as a wheel has them."""
    clone = tmp_path_factory.mktemp("clone")
    for name in ("sgr_d2", "configs", "requirements"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "MANIFEST.in"):
        shutil.copy(ROOT / name, clone)
    built = clone.parent / f"{clone.name}_built"
    command = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(built)]
    subprocess.run(command, cwd=clone, check=True, capture_output=True, timeout=120)
    return built


def names(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*.yaml"))


def run(built: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=built, capture_output=True, text=True, timeout=120, env={"PYTHONPATH": "."}
    )
    return done.stdout + done.stderr


def test_a_wheel_brings_its_configs(built):
    path = run(built, "-c", f"import sgr_d2; print(sgr_d2.config_file({NAME!r}))").strip()
    assert path == str(built / f"sgr_d2/configs/{NAME}.yaml")
    assert load_config(path) == load_config(sgr_d2.config_file(NAME))
    assert names(built / "sgr_d2/configs") == names(ROOT / "configs")


def test_a_wheel_without_packages_says_how_pip_brings_them(built):
    lines = run(built, "-S", "-m", "sgr_d2").splitlines()  # -S: Python without its site-packages
    start = lines.index("Missing or too old, and the command that installs it:") + 1
    missing = {line.split()[0]: line for line in lines[start:]}
    assert missing["cv2"].endswith(f'{sys.executable} -m pip install "opencv-python>=4.8"')
    assert "git+https://github.com/facebookresearch/detectron2" in missing["detectron2"]
    assert not any("make install" in line for line in lines)
