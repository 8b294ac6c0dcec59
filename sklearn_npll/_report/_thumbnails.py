"""Images as small JPEG data URIs."""

import base64
import io
from html import escape

from .._images import ImageReadError, read_images

SIDE = 112  # pixels


def thumbnail(path, description):
    """Return a small copy of an image, as an element of a page.

    Parameters
    ----------
    path : str
        The image.
    description : str
        What to read in its place.

    Returns
    -------
    str
        An ``<img>`` with the image in it; a text if it cannot be read.

    Examples
    --------
    >>> thumbnail("no such file.png", "a cat")
    '<span class="missing">cannot be read</span>'
    """
    (image,) = read_images([path], mode="RGB", on_error="return")
    if isinstance(image, ImageReadError):
        return '<span class="missing">cannot be read</span>'
    image.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80, optimize=True)
    data = base64.b64encode(content.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(description)}">'
