"""Files that are written whole or not at all."""

import contextlib
import errno
import glob
import os
import time
import uuid

_ABANDONED_AFTER = 600  # seconds without a write
_FULL_OR_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def make_folder(path):
    """Make a folder and those above it, if they are missing and the disk permits.

    Parameters
    ----------
    path : str or path-like
        The folder.

    Returns
    -------
    OSError or None
        Why there is none: the disk is full or cannot be written to.

    Raises
    ------
    OSError
        If it cannot be a folder, such as where a file has that name.

    Examples
    --------
    >>> make_folder(".") is None
    True
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        if error.errno not in _FULL_OR_CLOSED:
            raise
        return error
    return None


@contextlib.contextmanager
def atomic_write(path):
    """Open a file for writing that takes the place of another one at the end.

    Whatever happens on the way, the file at `path` is the old or the new one, never a part. What
    killed processes left of earlier attempts is removed.

    Parameters
    ----------
    path : str or path-like
        The file; the one a link points to, if it is a link.

    Yields
    ------
    file : binary file
        What to write to, and to read again.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a")
    ...     with atomic_write(path) as file:
    ...         _ = file.write(b"new")
    ...         before = path.exists()
    ...     before, path.read_bytes(), len(list(path.parent.iterdir()))
    (False, b'new', 1)
    """
    path = os.path.realpath(path)
    _remove_abandoned(path)
    partial = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(partial, "x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the error that led here matters more
            os.unlink(partial)
        raise


def _remove_abandoned(path):
    """Remove what processes that were killed while writing this file have left."""
    for partial in glob.glob(f"{glob.escape(path)}.{'[0-9a-f]' * 8}.tmp"):
        with contextlib.suppress(OSError):  # another process may be just as quick
            # Another process may be writing the same file at this moment.
            if time.time() - os.stat(partial).st_mtime > _ABANDONED_AFTER:
                os.unlink(partial)
