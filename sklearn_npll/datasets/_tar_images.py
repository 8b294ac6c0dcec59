"""Images in tar archives, read where they lie."""

import copy
import os
import tarfile
from collections.abc import Collection, Sequence
from operator import index
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import ArrayLike

from .._typing import PathLike, Self
from ._image_folder import IMAGE_EXTENSIONS, as_endings


class TarImages:
    """Images in tar archives, such as the shards of a WebDataset, read one by one on demand.

    The archives are walked through once, to note where each image begins. Nothing is extracted, and
    no file stays open, so that the images can be read from several threads and processes. They are
    passed as X wherever images are: annotators and learners read those of a batch.

    Parameters
    ----------
    paths : path-like or sequence of path-like
        The archives, which must not be compressed.
    extensions : str or sequence of str, default=('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.tif', \
'.tiff', '.webp')
        File name endings, in any case, that count as images. Every such file is a sample; hidden
        ones are left out.

    Attributes
    ----------
    paths : list of str
        The archives.
    names : ndarray of str of shape (n_samples,)
        Names of the images in their archives, in the order of the archives.
    target : ndarray of int64 of shape (n_samples,) or None
        Class codes, for images beside which a WebDataset has a file of the same name up to its
        first dot that ends in ``.cls``; -1 for others. None if there is no such file.

    Raises
    ------
    ValueError
        If an archive is compressed, damaged or cut off, a ``.cls`` file holds no whole number, or
        there is no image.

    See Also
    --------
    load_image_folder : Lists the images of a folder.

    Examples
    --------
    >>> import io, tarfile, tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from sklearn_npll.datasets import TarImages
    >>> png = io.BytesIO()
    >>> Image.new("L", (8, 8)).save(png, "png")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "shard-000.tar")
    ...     with tarfile.open(path, "w") as tar:
    ...         for name, content in {"0.png": png.getvalue(), "0.cls": b"7"}.items():
    ...             member = tarfile.TarInfo(name)
    ...             member.size = len(content)
    ...             tar.addfile(member, io.BytesIO(content))
    ...     images = TarImages(path)
    ...     encoded = images[0]
    >>> len(images), images.names.tolist(), images.target.tolist()
    (1, ['0.png'], [7])
    >>> encoded == png.getvalue()
    True
    """

    def __init__(
        self,
        paths: PathLike | Sequence[PathLike],
        *,
        extensions: str | Collection[str] = IMAGE_EXTENSIONS,
    ) -> None:
        if isinstance(paths, (str, os.PathLike)):
            paths = [paths]
        self.paths = [os.fspath(path) for path in paths]
        endings = as_endings(extensions)
        walks = [_walk(path, endings) for path in self.paths]
        sizes = [len(names) for names, *_ in walks]
        if not sum(sizes):
            raise ValueError(
                f"{', '.join(self.paths) or 'paths is empty:'} holds no file ending in"
                f" {', '.join(endings)}."
            )
        self._archives = np.repeat(np.arange(len(walks)), sizes)
        self.names, self._starts, self._sizes, codes = map(np.concatenate, zip(*walks))
        self.target = codes if (codes >= 0).any() else None

    def __len__(self):
        return len(self.names)

    def __getitem__(self, row):
        """Return an image as the bytes of its file."""
        row = range(len(self))[index(row)]  # of a negative one too, and an IndexError
        with open(self.paths[self._archives[row]], "rb") as file:
            file.seek(self._starts[row])
            return file.read(self._sizes[row])

    def select(self, rows: ArrayLike) -> Self:
        """Return the given rows as another `TarImages`.

        Parameters
        ----------
        rows : array-like of int of shape (n_rows,)

        Returns
        -------
        images : TarImages
        """
        part = copy.copy(self)
        for name in ("names", "target", "_archives", "_starts", "_sizes"):
            value = getattr(self, name)
            setattr(part, name, None if value is None else value[rows])
        return part

    def __repr__(self):
        return f"{type(self).__name__}(n_samples={len(self)}, n_archives={len(self.paths)})"


def _walk(path, endings):
    """Names, starts, sizes and class codes of the images in an archive."""
    names, starts, sizes, labels = [], [], [], {}
    n_bytes = os.path.getsize(path)
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # or all of them stay in memory
                name = PurePosixPath(member.name)
                if not member.isreg() or name.name.startswith("."):
                    continue
                if member.offset_data + member.size > n_bytes:
                    raise tarfile.ReadError(f"it ends within {member.name}")
                if member.issparse():
                    raise tarfile.ReadError(f"{member.name} is stored as a sparse file")
                if name.suffix.lower() == ".cls":
                    labels[_key(name)] = _class_code(archive, member, path)
                elif name.name.lower().endswith(endings):
                    names.append(member.name)
                    starts.append(member.offset_data)
                    sizes.append(member.size)
    except tarfile.TarError as error:
        raise ValueError(
            f"{path} cannot be read as a tar archive: {error}. If it is compressed, decompress it:"
            " single files of a compressed archive cannot be read."
        ) from error
    codes = [labels.get(_key(PurePosixPath(name)), -1) for name in names]
    numbers = (np.array(column, dtype=np.int64) for column in (starts, sizes, codes))
    return np.array(names, dtype=str), *numbers


def _key(name):
    """What the files of one sample have in common in a WebDataset."""
    return str(name.parent / name.name.partition(".")[0])


def _class_code(archive, member, path):
    content = archive.extractfile(member).read()
    if not content.strip().isdigit():
        raise ValueError(f"{member.name} in {path} holds {content[:20]!r}, which is no class code.")
    return int(content)
