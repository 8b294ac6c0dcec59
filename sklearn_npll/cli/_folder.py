"""What is in the folder that `annotate` makes and the other commands read."""

import hashlib
import json
import os
import warnings
from pathlib import Path

from .._files import atomic_write
from .._partial_labels import PartialLabels

LABELS = "labels.npz"  # candidate labels, with the absolute paths of the images
ANNOTATION = "annotation.json"  # how they were made
CACHE = "cache"  # embeddings of the images
LEARNED = "learned.npz"  # the same, with the learner's labels as scores
TRAINING = "training.json"  # how these were made, and of which labels


def load_labels(folder):
    """Read the labels of a folder, and how they were made.

    Parameters
    ----------
    folder : str
        What `annotate` has written.

    Returns
    -------
    labels : PartialLabels
        Its data are absolute paths, its classes sorted.
    annotation : dict
        The settings.

    Raises
    ------
    FileNotFoundError
        If the folder holds no labels.
    ValueError
        If they are damaged, or not of images in files.
    """
    path = Path(folder, LABELS)
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no {LABELS}. Give the folder that sklearn-npll annotate has written,"
            " its --output."
        )
    labels = PartialLabels.load(path)
    if not isinstance(labels.data, list):
        raise ValueError(f"{path} holds no paths of images.")
    return labels.sort_classes(), read_json(Path(folder, ANNOTATION))


def load_learned(folder):
    """Read the learner's labels of a folder, and how they were made.

    Parameters
    ----------
    folder : str
        What `annotate` and perhaps `fit` have written.

    Returns
    -------
    learned : PartialLabels or None
        Its scores are those of the learner, its classes sorted. None if there was no `fit`, and,
        with a warning, if it did not finish or the labels of the folder have changed since.
    training : dict or None
        The settings.
    """
    path = Path(folder, LEARNED)
    if not path.is_file():
        return None, None
    if not Path(folder, TRAINING).is_file():
        warnings.warn(f"{path} is left out, as fit did not finish; run it again.", stacklevel=2)
        return None, None
    training = read_json(Path(folder, TRAINING))
    if training["labels"] != digest(folder):
        warnings.warn(
            f"{path} is of other labels than {LABELS}, which has changed since, and is left out."
            " Run fit again to see what the learner makes of the new ones.",
            stacklevel=2,
        )
        return None, None
    return PartialLabels.load(path).sort_classes(), training


def digest(folder):
    """Return a checksum of the labels of a folder."""
    return hashlib.sha256(Path(folder, LABELS).read_bytes()).hexdigest()


def write_json(path, value):
    """Write a dict as a file of JSON."""
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=1).encode())


def read_json(path):
    """Read a dict from a file of JSON; an error names the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def relative(paths, folder):
    """Return paths relative to a folder, with slashes, as tables show them."""
    return [os.path.relpath(path, folder).replace(os.sep, "/") for path in paths]
