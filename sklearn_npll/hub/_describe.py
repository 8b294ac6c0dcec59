"""What the configuration of a saved classifier says, in the types of JSON."""

import json
import platform
from collections.abc import Mapping

import numpy as np

from .._versions import package_version

# Parameters that are matters of one machine, such as folders, or of a training that is over.
PRIVATE = (
    "accelerator",
    "cache_dir",
    "callbacks",
    "checkpoint_dir",
    "checkpoint_every",
    "device",
    "init",
    "verbose",
    "vlm",
    "warm_start",
)
_PACKAGES = ("sklearn-npll", "scikit-learn", "torch", "skorch", "numpy")


def plain_parameters(estimator):
    """Split the parameters of an estimator.

    Returns
    -------
    plain : dict
        Those that JSON can hold.
    omitted : list of str
        Names of those that it cannot, such as objects and functions.
    """
    plain, omitted = {}, []
    for name, value in estimator.get_params(deep=False).items():
        if name in PRIVATE:
            continue
        try:
            plain[name] = json.loads(json.dumps(_in_json(value), allow_nan=False))
        except (TypeError, ValueError):
            omitted.append(name)
    return plain, omitted


def read_parameter(value):
    """Return the value of a parameter that `plain_parameters` has written.

    Examples
    --------
    >>> read_parameter({"pairs": [[0, 0.2], [1, 0.8]]})
    {0: 0.2, 1: 0.8}
    """
    if isinstance(value, dict) and isinstance(value.get("pairs"), list):
        return dict(value["pairs"])
    return value


def _in_json(value):
    """Put a parameter in types of JSON, whose objects have no keys but strings."""
    if hasattr(value, "to_dict"):  # a pandas Series, whose index counts
        value = value.to_dict()
    if isinstance(value, Mapping):
        pairs = [[_in_json(key), _in_json(own)] for key, own in value.items()]
        return dict(pairs) if all(isinstance(key, str) for key in value) else {"pairs": pairs}
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def describe_training(clf, annotator, labels):
    """Return how a classifier was trained, as far as it is known."""
    training = {"epochs": clf.n_iter_}
    if annotator is not None:
        plain, omitted = plain_parameters(annotator)
        training["annotator"] = {
            "estimator": type(annotator).__name__,
            "templates": list(getattr(annotator, "templates_", [])),
            "parameters": plain,
            "omitted_parameters": omitted,
        }
    if labels is not None:
        summary = labels.summary()
        # NaN, which JSON has not, where there is nothing to count
        training["candidates"] = {k: v if v == v else None for k, v in summary.items()}
    return training


def describe_versions():
    """Return the versions that a classifier was saved with."""
    versions = {"python": platform.python_version()}
    return versions | {name: package_version(name) for name in _PACKAGES}
