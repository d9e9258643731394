"""Semantically aware global reasoning: the module, its targets and its losses."""

from .criterion import SGRCriterion
from .sgr import SGR

__all__ = ["SGR", "SGRCriterion"]
