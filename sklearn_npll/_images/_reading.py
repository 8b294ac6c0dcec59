"""Samples read as a list of PIL images, or as one array of a layout."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from ._decoding import array_to_pil, decode_sample, to_uint8
from ._error import ImageReadError
from ._samples import as_samples, fetch_one, fetch_samples, n_images, n_reading_threads

_MODES = {1: "L", 3: "RGB"}


def read_images(X, indices=None, *, mode="RGB", on_error="raise"):
    """Read samples of any kind as PIL images.

    Turned upright by their EXIF orientation; transparency laid on white; 16-bit values scaled to
    8 bits; floats taken as [0, 1] if no value of the image exceeds 1, else as [0, 255]. PIL's mode
    "I" is taken as 8 bits if no value of the image exceeds 255, else as 16 bits, and always as 16
    bits from a PNG or PPM file. Of an animation the first frame is read.

    An image of more pixels than ``PIL.Image.MAX_IMAGE_PIXELS`` counts as one that cannot be read,
    and so do EPS and WMF files, which Pillow has another program draw.

    Parameters
    ----------
    X : images
        Samples of any kind.
    indices : sequence of int, default=None
        Rows to read; all by default.
    mode : {"RGB", "L", None}, default="RGB"
        Mode of the images; None keeps grey images grey and makes all others RGB.
    on_error : {"raise", "return"}, default="raise"
        Whether to raise on an image that cannot be read, or to return the error in its place.

    Returns
    -------
    list of PIL.Image.Image
        The images.

    Raises
    ------
    ImageReadError
        If an image cannot be read; it has the index and the path.

    Examples
    --------
    >>> import numpy as np
    >>> read_images(np.full((3, 4, 6), 0.5), [2], mode="L")[0].size
    (6, 4)
    """
    samples = as_samples(X)
    rows = range(n_images(X)) if indices is None else indices
    images = []
    for image in _each_image(samples, rows, mode):
        if on_error == "raise" and isinstance(image, ImageReadError):
            raise image
        images.append(image)
    return images


def as_image_array(X, *, image_size=None, channels=None, n_jobs=None):
    """Read samples of any kind into one array.

    Parameters
    ----------
    X : images
        Samples of any kind.
    image_size : tuple of int (height, width), default=None
        Size to resize to, not keeping the aspect ratio. By default the size the images have,
        which must then be the same for all.
    channels : {1, 3}, default=None
        Number of channels. By default 1 for an array of grey images and 3 otherwise.
    n_jobs : int, default=None
        Number of threads; one per core by default.

    Returns
    -------
    ndarray of uint8 of shape (n_samples, height, width, channels)
        The images; a view of X if that is an array of this kind already.

    Raises
    ------
    ImageReadError
        If an image cannot be read.
    ValueError
        If the sizes differ and no `image_size` is given.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.zeros((2, 8, 8), dtype=np.uint8)
    >>> as_image_array(X).shape, as_image_array(X, image_size=(4, 4), channels=3).shape
    ((2, 8, 8, 1), (2, 4, 4, 3))
    """
    samples = as_samples(X)
    wanted, channels = image_layout(samples, image_size, channels)
    if has_layout(samples, wanted, channels):
        return samples.reshape(*samples.shape[:3], channels)
    rows, resize = range(n_images(X)), image_size is not None
    return read_image_array(samples, rows, wanted, channels, resize=resize, n_jobs=n_jobs)


def image_layout(samples, image_size=None, channels=None):
    """Size and number of channels of the array that samples are read into.

    Parameters
    ----------
    samples : ndarray, list or dataset
        What `as_samples` returned.
    image_size : tuple of int (height, width), default=None
        By default the size of the first image.
    channels : {1, 3}, default=None
        By default 1 for an array of grey images and 3 otherwise.

    Returns
    -------
    image_size : tuple of int (height, width)
    channels : int
    """
    if isinstance(samples, np.ndarray):
        given = 1 if samples.ndim == 3 or samples.shape[3] == 1 else 3
        return tuple(image_size or samples.shape[1:3]), channels or given
    channels = channels or 3
    if image_size is None:
        image_size = read_images(samples, [0], mode=_MODES[channels])[0].size[::-1]
    return tuple(image_size), channels


def has_layout(samples, image_size, channels):
    """Tell whether samples are an array of uint8 of a size and number of channels already."""
    if not isinstance(samples, np.ndarray) or samples.dtype != np.uint8:
        return False
    return samples.shape[1:3] == image_size and (*samples.shape, 1)[3] == channels


def read_image_array(samples, rows, image_size, channels, *, resize, n_jobs=None):
    """Read rows of samples into one array.

    Parameters
    ----------
    samples : ndarray, list or dataset
        What `as_samples` returned.
    rows : range or sequence of int
        The rows.
    image_size : tuple of int (height, width)
    channels : {1, 3}
    resize : bool
        Whether images of another size are resized, or an error.
    n_jobs : int, default=None
        Number of threads; one per core by default.

    Returns
    -------
    ndarray of uint8 of shape (n_rows, height, width, channels)

    Raises
    ------
    ImageReadError
        If an image cannot be read.
    ValueError
        If an image has another size and is not to be resized.
    """
    result = np.empty((len(rows), *image_size, channels), dtype=np.uint8)

    def read(start):
        part = rows[start : start + 64]
        images = _each_image(samples, part, _MODES[channels])
        for position, (row, image) in enumerate(zip(part, images), start):
            if isinstance(image, ImageReadError):
                raise image
            size = image.size[::-1]
            if size != image_size and not resize:
                raise ValueError(
                    f"Image {row} has height and width {size}, image 0 has {image_size}; give an"
                    " image_size to bring them to one size."
                )
            if size != image_size:
                image = image.resize(image_size[::-1], Image.Resampling.BILINEAR)
            result[position] = np.asarray(image).reshape(*image_size, channels)

    with ThreadPoolExecutor(n_jobs or n_reading_threads(samples)) as pool:
        list(pool.map(read, range(0, len(rows), 64)))
    return result


def _each_image(samples, rows, mode):
    """Yield images, or why there is none, one at a time: a photo is large until it is resized."""
    if isinstance(samples, np.ndarray):
        batch = to_uint8(fetch_samples(samples, rows), rows)
        yield from (array_to_pil(image, mode) for image in batch)
    else:
        yield from (decode_sample(fetch_one(samples, int(row)), row, mode) for row in rows)
