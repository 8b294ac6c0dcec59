"""Samples of any accepted kind: told apart, counted and fetched, but not yet decoded."""

import io
import mmap
import os
import sys
from collections.abc import Iterator, Mapping, Set

import joblib
import numpy as np
from PIL import Image

from ._error import ImageReadError

_FIELDS = ("image", "img")


def is_image_data(X):
    """Tell images from a feature matrix, without reading any.

    Parameters
    ----------
    X : object
        Samples.

    Returns
    -------
    bool
        True for arrays and tensors of 3 or 4 dimensions, for lists, 1-D arrays and series of
        paths, PIL images, encoded bytes or arrays, and for datasets; False for anything else, a
        2-D array of numbers among it.

    Examples
    --------
    >>> import numpy as np
    >>> is_image_data(np.zeros((5, 28, 28))), is_image_data(np.zeros((5, 28)))
    (True, False)
    >>> is_image_data(["cat.jpg", "dog.png"])
    True
    """
    ndim = _ndim(X)
    if ndim is not None and ndim != 1:
        return ndim in (3, 4) and (is_tensor(X) or X.dtype.kind in "buif")
    if isinstance(X, (str, bytes, dict)) or not hasattr(X, "__getitem__"):
        return False
    if ndim is None and not isinstance(X, (list, tuple)):
        return hasattr(X, "__len__") and not hasattr(X, "__array__")  # a dataset
    first = _first(X)
    if isinstance(first, list):  # nested lists of numbers are images only if they nest deeply
        return np.ndim(first) in (2, 3)
    return (
        isinstance(first, (str, bytes, os.PathLike, Image.Image, dict))
        or getattr(first, "ndim", 0) >= 2
    )


def _ndim(X):
    """Number of dimensions; None for what is no array. A series of polars only has a shape."""
    if hasattr(X, "__array__") and hasattr(X, "shape"):
        return len(X.shape)
    return getattr(X, "ndim", None)


def check_collection(X):
    """Refuse what is no collection of samples, though it may be one sample.

    Parameters
    ----------
    X : object
        Samples, as a user gave them.

    Raises
    ------
    ValueError
        If X is a single path or image, or a list of open files or byte arrays.
    TypeError
        If its samples have no order, or can be seen once only.

    Examples
    --------
    >>> check_collection("cat.jpg")
    Traceback (most recent call last):
    ...
    ValueError: X is a single path or image; put it in a list.
    """
    if isinstance(X, (str, bytes, bytearray, os.PathLike, Image.Image, io.IOBase)):
        raise ValueError("X is a single path or image; put it in a list.")
    # a sparse matrix of SciPy may be a mapping
    if isinstance(X, (Set, Mapping, Iterator)) and not hasattr(X, "shape"):
        raise TypeError(
            f"X of type {type(X).__name__} has no numbered samples; put them in a list or an array."
        )
    first = _first(X)
    if isinstance(first, (bytearray, memoryview, io.IOBase)):
        raise ValueError(
            f"X holds samples of type {type(first).__name__}; encoded images must be bytes."
        )


def check_not_empty(X):
    """Refuse an empty list, and images or a dataset of which there are none.

    Parameters
    ----------
    X : object
        Samples.

    Raises
    ------
    ValueError
        If there are none. Empty feature matrices are left to scikit-learn.

    Examples
    --------
    >>> check_not_empty([])
    Traceback (most recent call last):
    ...
    ValueError: Found array with 0 sample(s) while a minimum of 1 is required.
    """
    if (isinstance(X, (list, tuple)) or is_image_data(X)) and n_images(X) == 0:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")


def _first(X):
    """First sample of a list, 1-D array or series, out of its tuple; None if there is none."""
    one_dimensional = isinstance(X, (list, tuple)) or _ndim(X) == 1
    if not one_dimensional or not hasattr(X, "__getitem__") or not len(X):
        return None
    first = X.iloc[0] if hasattr(X, "iloc") else X[0]
    return (first[0] if first else None) if isinstance(first, tuple) else first


def n_images(X):
    """Count samples.

    Parameters
    ----------
    X : images
        Samples of any kind that `is_image_data` accepts.

    Returns
    -------
    int
        Their number.

    Examples
    --------
    >>> n_images(["cat.jpg", "dog.png"])
    2
    """
    return X.shape[0] if hasattr(X, "shape") else len(X)


def as_samples(X):
    """View samples as one array (n, H, W[, channels]) or as a sequence of single samples.

    Parameters
    ----------
    X : images
        Samples of any kind that `is_image_data` accepts.

    Returns
    -------
    ndarray, list or dataset
        The same samples, not copied.

    Raises
    ------
    ValueError
        If an array has its channels first, or its shape is not one of images.

    Examples
    --------
    >>> import numpy as np
    >>> as_samples(np.zeros((2, 3, 32, 32)))
    Traceback (most recent call last):
    ...
    ValueError: Images of shape (n, H, W, channels) need 1, 3 or 4 channels, got shape \
(2, 3, 32, 32). The channels seem to come first: pass X.transpose(0, 2, 3, 1).
    """
    if is_tensor(X):
        X = X.detach().cpu()
        X = (X.permute(0, 2, 3, 1) if X.ndim == 4 else X).numpy()
    if not isinstance(X, np.ndarray):
        return list(X) if _ndim(X) == 1 else X  # a series, or else a list or a dataset
    if X.ndim == 1:
        return X.tolist() if X.dtype.kind in "US" else list(X)
    if X.ndim == 4 and X.shape[3] not in (1, 3, 4):
        hint = ""
        if X.shape[1] in (1, 3, 4):
            hint = " The channels seem to come first: pass X.transpose(0, 2, 3, 1)."
        raise ValueError(
            "Images of shape (n, H, W, channels) need 1, 3 or 4 channels, got shape"
            f" {X.shape}.{hint}"
        )
    if X.ndim == 3 and X.shape[2] in (3, 4) and X.shape[1] > X.shape[2]:
        raise ValueError(
            f"Shape {X.shape} looks like one colour image; pass X[np.newaxis] for a single image,"
            " or add a channel axis if these are grey images."
        )
    return X


def fetch_samples(samples, rows):
    """Take rows out of the samples, errors among them.

    Parameters
    ----------
    samples : ndarray, list or dataset
        What `as_samples` returned.
    rows : range or sequence of int
        The rows.

    Returns
    -------
    ndarray or list
        A copy of the rows of an array. Otherwise one item a row: the image itself, freed of the
        dictionary or tuple of a dataset, or the `ImageReadError` met on the way.

    Examples
    --------
    >>> fetch_samples([{"image": "cat.jpg", "label": 0}, ("dog.png", 1)], range(2))
    ['cat.jpg', 'dog.png']
    """
    if isinstance(samples, np.ndarray):
        if isinstance(rows, range) and rows.step == 1:
            rows = slice(rows.start, rows.stop)
        batch = np.array(samples[rows])
        release_pages(samples)
        return batch
    return [fetch_one(samples, int(row)) for row in rows]


def n_reading_threads(samples):
    """How many threads may read these samples.

    Parameters
    ----------
    samples : ndarray, list or dataset
        What `as_samples` returned.

    Returns
    -------
    int
        One for arrays, which are copied in whole batches, and for datasets, which may keep an
        open file and are seldom safe to share; up to 8 for lists.

    Examples
    --------
    >>> import numpy as np
    >>> n_reading_threads(np.zeros((2, 4, 4)))
    1
    """
    return min(8, joblib.cpu_count()) if isinstance(samples, (list, tuple)) else 1


def fetch_one(samples, row):
    try:
        return _image_of(samples[row])
    except Exception as error:  # a dataset reads files here, and raises as decoders do
        return ImageReadError(row, None, f"{type(error).__name__}: {error}")


def _image_of(sample):
    """Take the image out of an item of a dataset: a tuple begins with it, a dictionary names it."""
    if isinstance(sample, tuple):
        sample = sample[0]
    if isinstance(sample, dict):
        if sample.get("bytes") is not None or sample.get("path") is not None:
            return sample.get("bytes") or sample["path"]
        name = next((field for field in _FIELDS if field in sample), None)
        if name is None:
            images = (key for key, value in sample.items() if isinstance(value, Image.Image))
            name = next(images, None)
        if name is None:
            raise ValueError(f"no image among the columns {list(sample)}; call one 'image'")
        return _image_of(sample[name])
    return np.asarray(sample) if isinstance(sample, list) else sample


def is_tensor(X):
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(X, torch.Tensor)


def release_pages(array):
    """Give back the pages of a memory map, which would otherwise all stay in memory once read."""
    while isinstance(array, np.ndarray):
        # Pages of a copy-on-write map may hold the only copy of a change.
        if isinstance(array, np.memmap) and array.mode != "c" and array._mmap is not None:
            if hasattr(array._mmap, "madvise"):
                array._mmap.madvise(mmap.MADV_DONTNEED)
            return
        array = array.base
