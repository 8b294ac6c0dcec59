"""Samples of any accepted kind, read as images.

A sample is an array, a PIL image, a path, encoded bytes, a tensor, or an item of a dataset that
holds one of these. Whatever it was, it becomes 8-bit: upright, without transparency, grey or RGB.
"""

import contextlib
import hashlib
import io
import mmap
import os
import stat
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
from PIL import Image, ImageOps

_FIELDS = ("image", "img")
_PROGRAMS = ("EPS", "WMF")  # formats that Pillow hands to another program to draw
_LARGE = 2**24  # pixels
_ONE_LARGE_AT_A_TIME = threading.Lock()  # or each of many threads would need a gigabyte
_MODES = {1: "L", 3: "RGB"}


class ImageReadError(ValueError):
    """An image that cannot be read.

    Parameters
    ----------
    index : int
        Row of the image in the samples.
    path : str or None
        Its file, if it came from one.
    reason : str
        What went wrong.

    Attributes
    ----------
    index, path, reason
        The parameters.
    """

    def __init__(self, index, path, reason):
        super().__init__(index, path, reason)
        self.index = index
        self.path = path
        self.reason = reason

    def __str__(self):
        where = f" ({self.path!r})" if self.path else ""  # a name may hold anything
        return f"Image {self.index}{where} cannot be read: {self.reason}"


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
    ndim = getattr(X, "ndim", None)
    if ndim is not None and ndim != 1:
        return ndim in (3, 4) and (_is_tensor(X) or X.dtype.kind in "buif")
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

    Examples
    --------
    >>> check_collection("cat.jpg")
    Traceback (most recent call last):
    ...
    ValueError: X is a single path or image; put it in a list.
    """
    if isinstance(X, (str, bytes, bytearray, os.PathLike, Image.Image, io.IOBase)):
        raise ValueError("X is a single path or image; put it in a list.")
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
    one_dimensional = getattr(X, "ndim", 1 if isinstance(X, (list, tuple)) else 0) == 1
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
    if _is_tensor(X):
        X = X.detach().cpu()
        X = (X.permute(0, 2, 3, 1) if X.ndim == 4 else X).numpy()
    if hasattr(X, "iloc"):
        return list(X)
    if not isinstance(X, np.ndarray):
        return X
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
    return [_fetch_one(samples, int(row)) for row in rows]


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


def decode_sample(item, row, mode=None):
    """Read one fetched sample.

    Parameters
    ----------
    item : array, PIL image, path, bytes or ImageReadError
        The sample.
    row : int
        Its row, for error messages.
    mode : {"RGB", "L", None}, default=None
        What to convert to; None keeps grey images grey ("L") and makes all others "RGB".

    Returns
    -------
    PIL.Image.Image or ImageReadError
        The upright 8-bit image, or why there is none.

    Examples
    --------
    >>> from PIL import Image
    >>> decode_sample(Image.new("RGBA", (2, 1)), 0).getpixel((0, 0))
    (255, 255, 255)
    """
    if isinstance(item, ImageReadError):
        return item
    path = os.fsdecode(item) if isinstance(item, (str, os.PathLike)) else None
    try:
        if isinstance(item, Image.Image):
            image = _eight_bit(item)
        elif isinstance(item, (str, os.PathLike, bytes)):
            with _open(item) as opened:
                if opened.format in _PROGRAMS:
                    raise ValueError(f"another program would have to draw {opened.format} images")
                image = _eight_bit(opened)
        else:
            image = array_to_pil(to_uint8(_channels_last(item)[np.newaxis], rows=[row])[0])
    except ImageReadError as error:
        return error
    # Decoders raise anything on a damaged file: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        return ImageReadError(row, path, f"{type(error).__name__}: {error}")
    return image if mode in (None, image.mode) else image.convert(mode)


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


def to_uint8(images, rows=None):
    """Scale a batch of arrays to 8 bits and lay transparency on white.

    Parameters
    ----------
    images : ndarray of shape (n, H, W) or (n, H, W, channels)
        1, 3 or 4 channels. Booleans are black and white, uint16 the full 16-bit range; other
        integers must be in [0, 255]; an image of floats is in [0, 1] if none exceeds 1, else in
        [0, 255].
    rows : sequence of int, default=None
        Rows of the images in the samples, for error messages.

    Returns
    -------
    ndarray of uint8 of shape (n, H, W, 1) or (n, H, W, 3)
        The images.

    Raises
    ------
    ValueError
        If the shape or dtype is no image's.
    ImageReadError
        If a value is out of range or not a number.

    Examples
    --------
    >>> import numpy as np
    >>> to_uint8(np.array([[[0.0, 1.0]], [[0.0, 51.0]]])).ravel().tolist()
    [0, 255, 0, 51]
    """
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[3] not in (1, 3, 4) or 0 in images.shape[1:3]:
        raise ValueError(f"an image has shape (H, W) or (H, W, 1|3|4), got {images.shape[1:]}")
    kind = images.dtype.kind
    if kind == "b":
        images = images * np.uint8(255)
    elif images.dtype == np.uint16:
        images = ((images.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    elif images.dtype != np.uint8:
        images = _scale_to_uint8(images, rows)
    if images.shape[3] == 4:
        alpha = images[..., 3:].astype(np.float32) / 255
        images = np.rint(images[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return images


def array_to_pil(image, mode=None):
    """View an 8-bit array as a PIL image.

    Parameters
    ----------
    image : ndarray of uint8 of shape (H, W, 1) or (H, W, 3)
        The image.
    mode : {"RGB", "L", None}, default=None
        What to convert to; None keeps grey images grey.

    Returns
    -------
    PIL.Image.Image
        The image.

    Examples
    --------
    >>> import numpy as np
    >>> array_to_pil(np.zeros((2, 3, 1), dtype=np.uint8)).mode
    'L'
    """
    image = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    return image if mode in (None, image.mode) else image.convert(mode)


def _scale_to_uint8(images, rows):
    if images.dtype.kind not in "iuf":
        raise ValueError(f"images of dtype {images.dtype} are not understood; use uint8 or float")
    low = images.min(axis=(1, 2, 3))
    high = images.max(axis=(1, 2, 3))
    wrong = ~((low >= 0) & (high <= 255))  # also true of NaN
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        row = i if rows is None else rows[i]
        raise ImageReadError(
            row,
            None,
            f"it has values from {low[i]:g} to {high[i]:g}; they must be in [0, 1] or [0, 255]."
            " Undo any normalisation, and use dtype uint16 for 16-bit images.",
        )
    if images.dtype.kind == "f":
        images = np.rint(images * np.where(high <= 1, 255, 1)[:, None, None, None])
    return images.astype(np.uint8)


def _open(item):
    """Open an encoded image, a path or bytes, of which nothing but the head is read yet."""
    if isinstance(item, bytes):
        return Image.open(io.BytesIO(item))
    # Opening a pipe waits for ever, and a device never ends.
    if not stat.S_ISREG(os.stat(item).st_mode):
        raise ValueError("it is no file, but a folder, a pipe or a device")
    return Image.open(item)


def _eight_bit(image):
    """Upright "L" or "RGB" copy of a PIL image of any mode."""
    n_pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
    if not n_pixels:
        raise ValueError(f"it has no pixels: width and height are {image.size}")
    if limit is not None and n_pixels > limit:
        raise ValueError(
            f"it has {image.width} x {image.height} pixels; if it may take this much memory, raise"
            f" PIL.Image.MAX_IMAGE_PIXELS, which is {limit}"
        )
    with _ONE_LARGE_AT_A_TIME if n_pixels > _LARGE else contextlib.nullcontext():
        return _convert(image)


def _convert(image):
    # Of these files older Pillow makes an "I" of 16 bits, newer an "I;16".
    is_deep = image.mode != "I" or image.format in ("PNG", "PPM")
    image = ImageOps.exif_transpose(image)
    image.load()
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        if values.dtype.kind in "iu":
            low, high = values.min(), values.max()
            if low < 0 or high > 65535:
                raise ValueError(f"values from {low} to {high} are neither 8-bit nor 16-bit")
            values = values.astype(np.uint16 if is_deep or high > 255 else np.uint8)
        return array_to_pil(to_uint8(values[np.newaxis])[0])
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _each_image(samples, rows, mode):
    """Yield images, or why there is none, one at a time: a photo is large until it is resized."""
    if isinstance(samples, np.ndarray):
        batch = to_uint8(fetch_samples(samples, rows), rows)
        yield from (array_to_pil(image, mode) for image in batch)
    else:
        yield from (decode_sample(_fetch_one(samples, int(row)), row, mode) for row in rows)


def _fetch_one(samples, row):
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


def _is_tensor(X):
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(X, torch.Tensor)


def _channels_last(item):
    if _is_tensor(item):
        item = item.detach().cpu()
        if item.ndim == 3 and item.shape[0] in (1, 3, 4):  # torch's convention
            item = item.permute(1, 2, 0)
        return item.numpy()
    if not isinstance(item, np.ndarray):
        raise TypeError(f"{type(item).__name__} is no array, PIL image, path or bytes")
    return item


def release_pages(array):
    """Give back the pages of a memory map, which would otherwise all stay in memory once read."""
    while isinstance(array, np.ndarray):
        # Pages of a copy-on-write map may hold the only copy of a change.
        if isinstance(array, np.memmap) and array.mode != "c" and array._mmap is not None:
            if hasattr(array._mmap, "madvise"):
                array._mmap.madvise(mmap.MADV_DONTNEED)
            return
        array = array.base
