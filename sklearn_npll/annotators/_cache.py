"""Caches on disk, safe to share between processes and to interrupt."""

import hashlib
import sqlite3
import warnings
import zlib
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from .._files import make_folder

_KEYS_PER_QUERY = 500  # older SQLite allows 999 variables


def entry_checksum(key, value):
    """CRC-32 of a key and its value, which changes with any bit of either.

    Parameters
    ----------
    key : str
    value : bytes

    Returns
    -------
    int

    Examples
    --------
    >>> hex(entry_checksum("1234", b"56789"))
    '0xcbf43926'
    """
    return zlib.crc32(value, zlib.crc32(key.encode()))


class _Cache:
    """Values by key in one SQLite file for each model.

    A disk that is full or cannot be written to is no reason to stop: there is one warning, and what
    can still be read is. A file that is no cache is an error, since deleting it is up to its owner.

    A subclass says what it keeps, and what to do about a damaged file.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    is_writable : bool
        Whether what is put is kept, as far as is known.
    """

    _kind: str
    _if_damaged: str

    def __init__(self, cache_dir, model_id):
        folder = Path(cache_dir).expanduser()
        name = hashlib.blake2b(model_id.encode(), digest_size=16).hexdigest()
        self.path = folder / f"{self._kind}s-{name}.db"
        self.is_writable = self._is_readable = True
        error = make_folder(folder)
        if error is not None:
            self._is_readable = False
            self._give_up(error)
            return
        columns = "key TEXT PRIMARY KEY, value BLOB, checksum INTEGER"
        try:
            with self._connect() as connection:
                connection.execute(f"CREATE TABLE IF NOT EXISTS {self._kind} ({columns})")
        except sqlite3.OperationalError as error:
            self._give_up(error)

    def _get(self, keys):
        """Return a dict of the values that are there and undamaged, by key."""
        if not self._is_readable:
            return {}
        keys, rows = list(keys), []
        try:
            with self._connect() as connection:
                for start in range(0, len(keys), _KEYS_PER_QUERY):
                    part = keys[start : start + _KEYS_PER_QUERY]
                    marks = ",".join("?" * len(part))
                    rows += connection.execute(
                        f"SELECT key, value, checksum FROM {self._kind} WHERE key IN ({marks})",
                        part,
                    )
        except sqlite3.OperationalError as error:
            self._is_readable = False
            self._give_up(error)
        return {
            key: value
            for key, value, checksum in rows
            if isinstance(value, bytes) and entry_checksum(key, value) == checksum
        }

    def _put(self, items):
        """Store pairs of key and bytes; they are on the disk when this returns."""
        if not self.is_writable:
            return
        rows = [(key, value, entry_checksum(key, value)) for key, value in items]
        try:
            with self._connect() as connection:
                connection.executemany(
                    f"INSERT OR REPLACE INTO {self._kind} VALUES (?, ?, ?)", rows
                )
        except sqlite3.OperationalError as error:
            self._give_up(error)

    def _give_up(self, error):
        """Write no more, and say so once."""
        if self.is_writable:
            self.is_writable = False
            warnings.warn(
                f"The {self._kind} cache {self.path} cannot be used ({error}). The work goes on,"
                f" but new {self._kind}s are not kept. Give cache_dir a folder that can be written"
                " to, on a disk that has room.",
                stacklevel=4,
            )

    @contextmanager
    def _connect(self):
        # A connection belongs to one thread; opening one costs less than a millisecond.
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
                # A damaged text is for the checksum to find.
                connection.text_factory = lambda text: text.decode(errors="replace")
                yield connection
        except sqlite3.OperationalError:  # a matter of the disk, not of the file
            raise
        except sqlite3.DatabaseError as error:
            raise OSError(
                f"The {self._kind} cache {self.path} cannot be used ({error}). If it is damaged,"
                f" delete it{self._if_damaged}"
            ) from error


class EmbeddingCache(_Cache):
    """Embeddings of one encoder, by key.

    One SQLite file for each encoder: several processes may read and write it at once, and a killed
    one leaves it whole. An embedding whose checksum is wrong counts as missing.

    Parameters
    ----------
    cache_dir : str or path-like
        Folder of the file; made if missing.
    encoder_id : str
        Whatever the embeddings depend on besides the sample: weights, preprocessing, precision.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    is_writable : bool
        Whether what is put is kept, as far as is known. If the disk is full or the folder cannot be
        written to, there is one warning, and the cache is no longer written.

    Raises
    ------
    OSError
        If `cache_dir` is no folder, or the file is no cache or is damaged.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = EmbeddingCache(folder, "my encoder")
    ...     cache.put(["a", "b"], np.eye(2, dtype=np.float32))
    ...     cache.get(["b", "c"])
    {'b': array([0., 1.], dtype=float32)}
    """

    _kind = "embedding"
    _if_damaged = ": it only holds what can be computed again."

    def get(self, keys):
        """Look up embeddings.

        Parameters
        ----------
        keys : sequence of str
            The keys.

        Returns
        -------
        dict of str to ndarray of float32 of shape (n_dimensions,)
            Those that are there.
        """
        return {key: np.frombuffer(vector, dtype="<f4") for key, vector in self._get(keys).items()}

    def put(self, keys, vectors):
        """Store embeddings.

        Parameters
        ----------
        keys : sequence of str
            The keys.
        vectors : array-like of shape (len(keys), n_dimensions)
            Their embeddings, stored as float32.
        """
        vectors = np.asarray(vectors, dtype="<f4")
        self._put((key, vector.tobytes()) for key, vector in zip(keys, vectors))


class AnswerCache(_Cache):
    """Answers of one chat model, by key.

    One SQLite file for each model and its settings: several threads and processes may read and
    write it at once, and a killed one leaves in it all that was put. An answer whose checksum is
    wrong counts as missing.

    Parameters
    ----------
    cache_dir : str or path-like
        Folder of the file; made if missing.
    backend_id : str
        Whatever the answers depend on besides image and prompt: model, settings.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    is_writable : bool
        Whether what is put is kept, as far as is known. If the disk is full or the folder cannot be
        written to, there is one warning, and the cache is no longer written.

    Raises
    ------
    OSError
        If `cache_dir` is no folder, or the file is no cache or is damaged.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = AnswerCache(folder, "my model")
    ...     cache.put({"a": "shirt"})
    ...     cache.get(["a", "b"])
    {'a': 'shirt'}
    """

    _kind = "answer"
    _if_damaged = "; its answers are then asked for, and paid for, again."

    def get(self, keys):
        """Look up answers.

        Parameters
        ----------
        keys : sequence of str
            The keys.

        Returns
        -------
        dict of str to str
            Those that are there.
        """
        found = self._get(keys)
        return {key: text.decode(errors="surrogatepass") for key, text in found.items()}

    def put(self, answers):
        """Store answers; they are on the disk when this returns.

        Parameters
        ----------
        answers : dict of str to str
            Answer of each key.
        """
        # Half of a surrogate pair is what a model cut short in an emoji leaves.
        self._put((k, text.encode(errors="surrogatepass")) for k, text in answers.items())
