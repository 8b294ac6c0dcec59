"""Learning from the noisy partial labels that vision-language models give to images."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `__getattr__` finds
    from . import (
        annotators,
        baselines,
        datasets,
        detection,
        exceptions,
        hub,
        metrics,
        model_selection,
        plot,
    )
    from ._partial_labels import PartialLabels
    from ._versions import show_versions
    from .annotators import VLMPartialAnnotator
    from .coreg import CoRegClassifier

__version__ = "0.1.0.dev0"

__all__ = [
    "CoRegClassifier",
    "PartialLabels",
    "VLMPartialAnnotator",
    "annotators",
    "baselines",
    "datasets",
    "detection",
    "exceptions",
    "hub",
    "metrics",
    "model_selection",
    "plot",
    "show_versions",
]

# Where the names are that are no submodules. Nothing is imported before it is asked for, as torch
# and open_clip take seconds that what needs neither should not pay.
_PLACES = {
    "CoRegClassifier": ".coreg",
    "PartialLabels": "._partial_labels",
    "VLMPartialAnnotator": ".annotators",
    "show_versions": "._versions",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        value = getattr(importlib.import_module(_PLACES[name], __name__), name)
    elif name in __all__:
        value = importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
