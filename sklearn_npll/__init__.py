"""Learning from the noisy partial labels that vision-language models give to images."""

import importlib

__version__ = "0.1.0.dev0"

# Where the classes are. Nothing is imported before it is asked for, as torch and open_clip take
# seconds that what needs neither should not pay.
_CLASSES = {
    "CoRegClassifier": ".coreg",
    "PartialLabels": "._partial_labels",
    "VLMPartialAnnotator": ".annotators",
}
_SUBMODULES = (
    "annotators",
    "baselines",
    "datasets",
    "detection",
    "metrics",
    "model_selection",
    "plot",
)

__all__ = [*_CLASSES, *_SUBMODULES]


def __getattr__(name):
    if name in _CLASSES:
        value = getattr(importlib.import_module(_CLASSES[name], __name__), name)
    elif name in _SUBMODULES:
        value = importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return [*globals(), *__all__]
