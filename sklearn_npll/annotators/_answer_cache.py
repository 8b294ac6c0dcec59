"""A cache of answers on disk, safe to share between processes and to interrupt."""

import hashlib
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path

_KEYS_PER_QUERY = 500  # older SQLite allows 999 variables


class AnswerCache:
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

    def __init__(self, cache_dir, backend_id):
        folder = Path(cache_dir).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.blake2b(backend_id.encode(), digest_size=16).hexdigest()
        self.path = folder / f"answers-{name}.sqlite"
        with self._connect() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS answer (key TEXT PRIMARY KEY, text TEXT)"
            )

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
        keys = list(keys)
        found = {}
        with self._connect() as connection:
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                part = keys[start : start + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, text FROM answer WHERE key IN ({marks})"
                found.update(connection.execute(query, part))
        return found

    def put(self, answers):
        """Store answers; they are on the disk when this returns.

        Parameters
        ----------
        answers : dict of str to str
            Answer of each key.
        """
        with self._connect() as connection:
            connection.executemany("INSERT OR REPLACE INTO answer VALUES (?, ?)", answers.items())

    @contextmanager
    def _connect(self):
        # A connection belongs to one thread; opening one costs less than a millisecond.
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
                yield connection
        except sqlite3.DatabaseError as error:
            raise OSError(
                f"The answer cache {self.path} cannot be used ({error}). If it is damaged, delete"
                " it; its answers are then asked for, and paid for, again."
            ) from error
