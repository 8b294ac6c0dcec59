"""Keys of samples for caches, which change when an image does."""

import hashlib
import os

import numpy as np

from ._decoding import decode_sample
from ._error import ImageReadError
from ._samples import as_samples, fetch_samples, n_images


def image_keys(X, indices=None):
    """Keys that change when an image changes, for caches.

    Parameters
    ----------
    X : images
        Samples of any kind.
    indices : sequence of int, default=None
        Rows to look at; all by default.

    Returns
    -------
    list of str or None
        For a path, the file's absolute path, size and modification time; for anything else a
        hash of the content. None for what cannot be read.

    Examples
    --------
    >>> import numpy as np
    >>> a, b, c = image_keys(np.array([[[1]], [[1]], [[2]]], dtype=np.uint8))
    >>> a == b, a == c
    (True, False)
    """
    samples = as_samples(X)
    rows = range(n_images(X)) if indices is None else indices
    return [sample_key(item) for item in fetch_samples(samples, rows)]


def sample_key(item):
    """Key of one fetched sample, as `image_keys` describes it.

    Parameters
    ----------
    item : array, PIL image, path, bytes or ImageReadError
        The sample.

    Returns
    -------
    str or None
        Its key, or None if it cannot be read.

    Examples
    --------
    >>> sample_key("no such file.png") is None
    True
    """
    if isinstance(item, (str, os.PathLike)):
        try:
            status = os.stat(item)
        except (OSError, ValueError):
            return None
        path = os.path.abspath(os.fsdecode(item)).encode(errors="backslashreplace").decode()
        return f"{path}:{status.st_size}:{status.st_mtime_ns}"
    if isinstance(item, bytes):
        header, content = "bytes", item
    elif isinstance(item, np.ndarray):
        header, content = f"{item.dtype.str}{item.shape}", np.ascontiguousarray(item)
    else:
        image = decode_sample(item, 0)
        if isinstance(image, ImageReadError):
            return None
        header, content = f"{image.mode}{image.size}", image.tobytes()
    digest = hashlib.blake2b(header.encode(), digest_size=16)
    digest.update(content)
    return digest.hexdigest()
