"""The command line: ``sklearn-npll annotate``, ``fit``, ``predict`` and ``report``."""

from ._main import main

__all__ = ["main"]
