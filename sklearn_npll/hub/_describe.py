"""What the configuration of a saved classifier says, in the types of JSON."""

import json
import platform

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
        value = value.tolist() if hasattr(value, "tolist") else value
        try:
            plain[name] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            omitted.append(name)
    return plain, omitted


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
