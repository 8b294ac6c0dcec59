"""Learning from the noisy partial labels that vision-language models give to images."""

import importlib

__version__ = "0.1.0.dev0"

# Where the names are. Nothing is imported before it is asked for, as torch and open_clip take
# seconds that what needs neither should not pay.
_NAMES = {
    "CoRegClassifier": ".coreg",
    "PartialLabels": "._partial_labels",
    "VLMPartialAnnotator": ".annotators",
    "show_versions": "._versions",
}
_SUBMODULES = (
    "annotators",
    "baselines",
    "datasets",
    "detection",
    "hub",
    "metrics",
    "model_selection",
    "plot",
)

__all__ = [*_NAMES, *_SUBMODULES]


def __getattr__(name):
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name], __name__), name)
    elif name in _SUBMODULES:
        value = importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return [*globals(), *__all__]
