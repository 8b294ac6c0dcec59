"""What the answers of a fitted annotator depend on, as plain data that can be compared and kept."""

import hashlib
import json
import os
from dataclasses import fields, is_dataclass

import numpy as np
from sklearn.base import BaseEstimator

from .._images import as_samples, fetch_samples, is_image_data, n_images, sample_key
from .._rows import take
from ._base import BasePartialAnnotator
from ._chat_backends import ChatBackend, FunctionChat, Settings
from ._plan import PromptedModel

# Where and how talkatively an annotator works, not what it answers.
_IRRELEVANT = {"cache_dir", "device", "usage", "verbose"}
_LARGE = 1000  # elements of an array, from where on its hash stands for it


def describe(value):
    """Describe an annotator, or a part of one, in the types of JSON.

    Models count with the hash of their weights, a user's own with its ``cache_key`` if it has
    one, and all else that cannot be looked into with its type or name.

    Parameters
    ----------
    value : object

    Returns
    -------
    dict, list, str, int, float, bool or None

    Examples
    --------
    >>> from sklearn.preprocessing import MaxAbsScaler
    >>> describe(MaxAbsScaler().fit([[2.0], [4.0]]))["scale_"]
    [4.0]
    """
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        small = value.dtype.hasobject or value.size < _LARGE
        return describe(value.tolist()) if small else sample_key(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, dict):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    if isinstance(value, FunctionChat):
        return describe(value.function)
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return _named(value, value)
    named = {"type": _named(type(value), value)}
    return named | {name: describe(own) for name, own in _parts(value).items()}


def _parts(value):
    """What an object's answers depend on, by name."""
    if isinstance(value, BasePartialAnnotator):
        output = getattr(value, "output", None)
        return {"classes": value.classes_, "output": output, **_parts(value._plan())}
    if isinstance(value, ChatBackend):
        return {"key": value._cache_key(Settings(0, 0.0, 0))}  # the true ones are described, too
    if isinstance(value, BaseEstimator):
        learned = {name: own for name, own in vars(value).items() if name.endswith("_")}
        parts = value.get_params(deep=False) | learned
    elif is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        if isinstance(value, PromptedModel):
            parts["weights"] = value.encoder.cache_key
    elif type(value).__module__.startswith("sklearn_npll."):
        parts = vars(value)
    else:
        return {}
    return {
        name: own
        for name, own in parts.items()
        if name not in _IRRELEVANT and not name.startswith("_")
    }


def _named(kind, value):
    key = getattr(value, "cache_key", None)
    return f"{kind.__module__}.{kind.__qualname__}" + (f" {key}" if isinstance(key, str) else "")


def fingerprint(description):
    """Hash what `describe` returned.

    Parameters
    ----------
    description : dict

    Returns
    -------
    str

    Examples
    --------
    >>> fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    True
    """
    text = json.dumps(description, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def first_difference(old, new, name=""):
    """Find where two descriptions differ.

    Parameters
    ----------
    old, new : objects of the types of JSON
    name : str, default=""
        What they describe.

    Returns
    -------
    (str, object, object) or None
        The name of what differs, and its two values; None if nothing does.

    Examples
    --------
    >>> first_difference({"a": 1, "b": [2, 3]}, {"a": 1, "b": [2, 4]})
    ('b[1]', 3, 4)
    """
    if isinstance(old, dict) and isinstance(new, dict):
        prefix = f"{name}." if name else ""
        pairs = [(f"{prefix}{key}", old.get(key), new.get(key)) for key in {**old, **new}]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(f"{name}[{i}]", *pair) for i, pair in enumerate(zip(old, new))]
    else:
        # As text, in which NaN equals itself.
        return None if json.dumps(old) == json.dumps(new) else (name, old, new)
    found = (first_difference(*pair, where) for where, *pair in pairs)
    return next((difference for difference in found if difference), None)


def as_paths(X):
    """Return samples that are all paths as a list of str; None for any other samples.

    Parameters
    ----------
    X : samples

    Returns
    -------
    list of str or None

    Examples
    --------
    >>> from pathlib import Path
    >>> as_paths([Path("a.jpg"), "b.jpg"]), as_paths([b"..."])
    (['a.jpg', 'b.jpg'], None)
    """
    if not isinstance(X, (list, tuple)) and getattr(X, "ndim", 0) != 1:
        return None
    paths = list(X)
    if not all(isinstance(path, (str, os.PathLike)) for path in paths):
        return None
    return [str(os.fspath(path)) for path in paths]


def samples_key(X):
    """Return a key that tells samples from others, without reading all of them.

    Parameters
    ----------
    X : samples
        At least one.

    Returns
    -------
    str
        A hash of all paths, if these are paths, and else of the first and the last sample.

    Examples
    --------
    >>> samples_key(["a.jpg", "b.jpg"]) == samples_key(["b.jpg", "a.jpg"])
    False
    """
    paths = as_paths(X)
    ends = [0, n_images(X) - 1]
    if paths is not None:
        keys = paths
    elif is_image_data(X):
        keys = map(sample_key, fetch_samples(as_samples(X), ends))
    else:
        rows = np.asarray(take(X, np.array(ends)))
        keys = [repr(rows.tolist()) if rows.dtype.hasobject else sample_key(rows)]
    digest = hashlib.blake2b(digest_size=16)
    for key in keys:
        digest.update(f"{key}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()
