"""One fetched sample, or a batch of arrays, made 8-bit, upright and opaque."""

import contextlib
import io
import os
import stat
import threading

import numpy as np
from PIL import Image, ImageOps

from ._error import ImageReadError
from ._samples import is_tensor

_PROGRAMS = ("EPS", "WMF")  # formats that Pillow hands to another program to draw
_LARGE = 2**24  # pixels
_ONE_LARGE_AT_A_TIME = threading.Lock()  # or each of many threads would need a gigabyte


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


def _channels_last(item):
    if is_tensor(item):
        item = item.detach().cpu()
        if item.ndim == 3 and item.shape[0] in (1, 3, 4):  # torch's convention
            item = item.permute(1, 2, 0)
        return item.numpy()
    if not isinstance(item, np.ndarray):
        raise TypeError(f"{type(item).__name__} is no array, PIL image, path or bytes")
    return item
