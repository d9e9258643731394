"""The token explorer: a folder of web pages that shows what tokens mean; opens from disk, without a server."""

from sgr_d2.visualization.explorer.structures import ExploredImage, ExploredRun, Photograph
from sgr_d2.visualization.explorer.writer import ExplorerWriter, RunWriter

__all__ = ["ExploredImage", "ExploredRun", "ExplorerWriter", "Photograph", "RunWriter"]
