"""A cache of embeddings on disk, safe to share between processes and to interrupt."""

import hashlib
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

_KEYS_PER_QUERY = 500  # older SQLite allows 999 variables


class EmbeddingCache:
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

    def __init__(self, cache_dir, encoder_id):
        folder = Path(cache_dir).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.blake2b(encoder_id.encode(), digest_size=16).hexdigest()
        self.path = folder / f"embeddings-{name}.sqlite"
        with self._connect() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS embedding (key TEXT PRIMARY KEY, vector BLOB)"
            )

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
        keys = list(keys)
        found = {}
        with self._connect() as connection:
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                part = keys[start : start + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, vector FROM embedding WHERE key IN ({marks})"
                for key, vector in connection.execute(query, part):
                    found[key] = np.frombuffer(vector, dtype="<f4")
        return found

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
        with self._connect() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO embedding VALUES (?, ?)",
                ((key, vector.tobytes()) for key, vector in zip(keys, vectors)),
            )

    @contextmanager
    def _connect(self):
        # A connection belongs to one thread; opening one costs less than a millisecond.
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
                yield connection
        except sqlite3.DatabaseError as error:
            raise OSError(
                f"The embedding cache {self.path} cannot be used ({error}). If it is damaged,"
                " delete it: it only holds what can be computed again."
            ) from error
