"""Images that a learner reads from where they are, a batch at a time."""

import hashlib

import numpy as np

from ._images import (
    as_image_array,
    as_samples,
    has_layout,
    image_keys,
    image_layout,
    n_images,
    read_image_array,
)

# Bytes from which on images are not all read into memory.
STREAM_FROM = 2**30


def open_images(X, *, image_size=None, channels=None):
    """Read images into one array; read them only when they are asked for if there are very many.

    Parameters
    ----------
    X : images
        Samples of any kind.
    image_size, channels
        As in `as_image_array`.

    Returns
    -------
    ndarray of uint8 or StreamedImages of shape (n_samples, height, width, channels)
        A view of X if that is an array of this kind already, such as a memory map.
    """
    samples = as_samples(X)
    layout = image_layout(samples, image_size, channels)
    n_bytes = n_images(X) * int(np.prod([*layout[0], layout[1]]))
    if has_layout(samples, *layout) or n_bytes < STREAM_FROM:
        return as_image_array(X, image_size=image_size, channels=channels)
    return StreamedImages(samples, *layout, resize=image_size is not None)


class StreamedImages:
    """Images that look like one array, of which only the rows that are asked for are read.

    Memory is that of the last rows asked for, which are kept: a step of training asks for views of
    the same rows several times.

    Parameters
    ----------
    samples : ndarray, list or dataset
        What `as_samples` returned.
    image_size : tuple of int (height, width)
    channels : {1, 3}
    resize : bool
        Whether images of another size are resized. Otherwise one is an error when it is read.
    """

    ndim = 4
    dtype = np.dtype(np.uint8)

    def __init__(self, samples, image_size, channels, *, resize):
        self.samples = samples
        self.resize = resize
        self.shape = (n_images(samples), *image_size, channels)
        self._last = np.empty(0, dtype=np.intp), np.empty((0, *self.shape[1:]), dtype=np.uint8)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        """Return rows, given by a slice or integers that are not negative, as an array."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        wanted, where = np.unique(rows, return_inverse=True)
        if not np.array_equal(wanted, self._last[0]):
            size, channels = self.shape[1:3], self.shape[3]
            images = read_image_array(self.samples, wanted, size, channels, resize=self.resize)
            self._last = wanted, images
        return self._last[1][where]

    def content_to_hash(self):
        """Return what changes when an image does, for a hash."""
        digest = hashlib.blake2b(digest_size=16)
        for start in range(0, len(self), 1024):
            rows = range(start, min(start + 1024, len(self)))
            digest.update(repr(image_keys(self.samples, rows)).encode())
        return [self.shape, digest.hexdigest()]
