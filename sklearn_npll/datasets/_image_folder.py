"""Read a folder of images: one subfolder a class, or flat and unlabelled."""

import os
import warnings
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from .._typing import PathLike

IMAGE_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# Images too, but of types that are not read by default.
OTHER_EXTENSIONS = frozenset(
    ".arw .avif .cr2 .dng .heic .heif .jfif .jp2 .jxl .nef .orf .psd .raw .svg .tga".split()
)


def load_image_folder(
    path: PathLike,
    *,
    extensions: str | Collection[str] = IMAGE_EXTENSIONS,
    return_X_y: bool = False,
) -> Any:
    """List the images of a folder, with their classes where subfolders give them.

    A folder with subfolders is labelled: each subfolder is a class, and the images at any depth
    below it are its samples. A folder with images of its own and no subfolders is unlabelled.
    Images are not opened, only listed; hidden files and folders are left out. Links are followed,
    but no folder is entered twice below a class folder, so that links in a circle end.

    Parameters
    ----------
    path : path-like
        The folder.
    extensions : str or sequence of str, default=('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.tif', \
'.tiff', '.webp')
        File name endings, in any case, that count as images.
    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With the attributes

        data : list of str, length n_samples
            Paths in sorted order, class by class.
        target : ndarray of shape (n_samples,), dtype int64, or None
            Class codes, None for an unlabelled folder.
        target_names : ndarray of shape (n_classes,), or None
            Subfolder names in sorted order.
    (data, target) : tuple
        Only with ``return_X_y=True``.

    Warns
    -----
    UserWarning
        If a class folder has no image, or files such as ``.heic`` are left out as their type is
        not read.

    Raises
    ------
    ValueError
        If there is no image, or if images lie both beside the class folders and in them.

    See Also
    --------
    load_fashion_mnist : A data set that needs no files of one's own.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn_npll.datasets import load_image_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat/1.png", "dog/1.png", "dog/2.png"):
    ...         file = Path(folder, name)
    ...         file.parent.mkdir(exist_ok=True)
    ...         file.touch()
    ...     images = load_image_folder(folder)
    >>> images.target_names.tolist(), images.target.tolist()
    (['cat', 'dog'], [0, 1, 1])
    """
    root = _check_folder(path)
    endings = set(as_endings(extensions))
    visible = _visible(root)
    folders = [p for p in visible if p.is_dir()]
    files = [[p for p in visible if p.is_file()], *map(_files_below, folders)]
    top_level, *per_class = _images_among(files, endings)

    data = [file for files in per_class for file in files]
    if not data and not top_level:
        raise _no_image(root, endings)
    if data and top_level:
        raise ValueError(
            f"{root} holds images beside its class folders, for example {top_level[0]}: move "
            "them into a class folder, or away."
        )
    if top_level:
        data, target, target_names = top_level, None, None
    else:
        sizes = [len(files) for files in per_class]
        if empty := [folder.name for folder, size in zip(folders, sizes) if not size]:
            warnings.warn(f"No image in the class folders {', '.join(empty)}.", stacklevel=2)
        target = np.repeat(np.arange(len(folders), dtype=np.int64), sizes)
        target_names = np.array([folder.name for folder in folders])
    if return_X_y:
        return data, target
    return Bunch(data=data, target=target, target_names=target_names)


def find_images(path):
    """List the images of a folder at any depth, whatever its subfolders mean.

    Hidden files and folders are left out. Links are followed, but no folder is entered twice.

    Parameters
    ----------
    path : path-like
        The folder.

    Returns
    -------
    list of str
        Paths in sorted order, folder by folder.

    Warns
    -----
    UserWarning
        If files such as ``.heic`` are left out, as their type is not read.

    Raises
    ------
    NotADirectoryError
        If it is no folder.
    ValueError
        If there is no image in it.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("1.png", "notes.txt", "2024/2.jpg"):
    ...         file = Path(folder, name)
    ...         file.parent.mkdir(exist_ok=True)
    ...         file.touch()
    ...     [Path(path).name for path in find_images(folder)]
    ['1.png', '2.jpg']
    """
    root = _check_folder(path)
    [data] = _images_among([_files_below(root)], set(IMAGE_EXTENSIONS))
    if not data:
        raise _no_image(root, IMAGE_EXTENSIONS)
    return data


def as_endings(extensions):
    """Return endings of file names in lower case, with a dot; a str is one of them.

    Examples
    --------
    >>> as_endings("PNG"), as_endings([".jpg", "jpeg"])
    (('.png',), ('.jpg', '.jpeg'))
    """
    extensions = [extensions] if isinstance(extensions, str) else extensions
    return tuple(f".{e.lower().lstrip('.')}" for e in extensions)


def _check_folder(path):
    root = Path(path)
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder.")
    return root


def _no_image(root, endings):
    return ValueError(f"{root} holds no file ending in {', '.join(sorted(endings))}.")


def _visible(folder):
    return sorted(p for p in folder.iterdir() if not p.name.startswith("."))


def _files_below(folder, seen=None):
    """Sorted files at any depth below a folder."""
    seen = set() if seen is None else seen
    found: list[Path] = []
    real = os.path.realpath(folder)
    if real in seen:
        return found
    seen.add(real)
    for path in _visible(folder):
        if path.is_dir():
            found += _files_below(path, seen)
        elif path.is_file():
            found.append(path)
    return found


def _images_among(groups, endings):
    """Paths of each group that are images; a warning tells of images of other types."""
    counts = Counter(p.suffix.lower() for files in groups for p in files)
    left_out = {e: n for e, n in sorted(counts.items()) if e in OTHER_EXTENSIONS - endings}
    if left_out:
        types = ", ".join(f"{n} {ending}" for ending, n in left_out.items())
        warnings.warn(
            f"Left out {sum(left_out.values())} files of types that are not read: {types}. Convert"
            " those that are wanted, to JPEG or PNG for example.",
            stacklevel=3,  # this function, the one that reads the folder, the caller
        )
    return [[str(p) for p in files if p.suffix.lower() in endings] for files in groups]
