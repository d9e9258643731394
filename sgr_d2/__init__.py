"""SGR, semantically aware global reasoning for segmentation (arXiv 2212.03338), as a Detectron2 project."""

__version__ = "0.1.0"
