"""Caches on disk, safe to share between processes and to interrupt."""

import hashlib
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

_KEYS_PER_QUERY = 500  # older SQLite allows 999 variables


class _Cache:
    """Values by key in one SQLite file for each model.

    A subclass says what it keeps, and in a column of what name and type, and what to do about a
    damaged file.
    """

    _kind: str
    _column: tuple
    _if_damaged: str

    def __init__(self, cache_dir, model_id):
        folder = Path(cache_dir).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.blake2b(model_id.encode(), digest_size=16).hexdigest()
        self.path = folder / f"{self._kind}s-{name}.sqlite"
        with self._connect() as connection:
            columns = f"key TEXT PRIMARY KEY, {' '.join(self._column)}"
            connection.execute(f"CREATE TABLE IF NOT EXISTS {self._kind} ({columns})")

    def _get(self, keys):
        """Return a dict of the values that are there, by key."""
        keys, found = list(keys), {}
        with self._connect() as connection:
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                part = keys[start : start + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, {self._column[0]} FROM {self._kind} WHERE key IN ({marks})"
                found.update(connection.execute(query, part))
        return found

    def _put(self, items):
        """Store pairs of key and value; they are on the disk when this returns."""
        with self._connect() as connection:
            connection.executemany(f"INSERT OR REPLACE INTO {self._kind} VALUES (?, ?)", items)

    @contextmanager
    def _connect(self):
        # A connection belongs to one thread; opening one costs less than a millisecond.
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
                yield connection
        except sqlite3.DatabaseError as error:
            raise OSError(
                f"The {self._kind} cache {self.path} cannot be used ({error}). If it is damaged,"
                f" delete it{self._if_damaged}"
            ) from error


class EmbeddingCache(_Cache):
    """Embeddings of one encoder, by key.

    One SQLite file for each encoder: several processes may read and write it at once, and a killed
    one leaves it whole.

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

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = EmbeddingCache(folder, "my encoder")
    ...     cache.put(["a", "b"], np.eye(2, dtype=np.float32))
    ...     cache.get(["b", "c"])
    {'b': array([0., 1.], dtype=float32)}
    """

    _kind, _column = "embedding", ("vector", "BLOB")
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
    write it at once, and a killed one leaves in it all that was put.

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

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = AnswerCache(folder, "my model")
    ...     cache.put({"a": "shirt"})
    ...     cache.get(["a", "b"])
    {'a': 'shirt'}
    """

    _kind, _column = "answer", ("text", "TEXT")
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
        return self._get(keys)

    def put(self, answers):
        """Store answers; they are on the disk when this returns.

        Parameters
        ----------
        answers : dict of str to str
            Answer of each key.
        """
        self._put(answers.items())
