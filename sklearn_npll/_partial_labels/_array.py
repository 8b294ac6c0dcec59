"""Candidates as an array of rows: found when first needed, indexed and pickled."""

import numbers

import numpy as np
from scipy import sparse as sp

from .._evidence import as_dense
from .._rows import length, take
from ._checks import check_class_names, check_parts, check_shape


class CandidateArray:
    """Samples and their candidates as an array-like of shape (n_samples, n_classes).

    Parameters and attributes are those of :class:`PartialLabels`, which says how one is made.
    """

    ndim = 2
    dtype = np.dtype(bool)

    def __init__(
        self, data, classes, candidates=None, *, scores=None, votes=None, known=None, plan=None
    ):
        self.classes = check_class_names(classes)
        self._data = data
        self._rows = None  # rows of _data still to be taken
        self._plan = plan
        if plan is None:
            if candidates is None:
                raise ValueError("PartialLabels needs candidates or a plan that finds them.")
            self._n_samples = length(candidates, "candidates")
            self._set(candidates, scores, votes, known)
        else:
            if not callable(plan):
                raise TypeError(f"plan must be callable as plan(data); got {type(plan).__name__}.")
            if any(part is not None for part in (candidates, scores, votes, known)):
                raise ValueError(
                    "candidates, scores, votes and known come from the plan; give them or a plan."
                )
            if data is None:
                raise ValueError("A plan needs data to find candidates for; data is None.")
            self._n_samples = length(data, "data")
        if data is not None and length(data, "data") != self._n_samples:
            raise ValueError(
                f"data has {length(data, 'data')} samples but candidates has {self._n_samples}"
                " rows; they must describe the same samples in the same order."
            )

    @property
    def shape(self):
        """tuple of int: (n_samples, n_classes)."""
        return self._n_samples, len(self.classes)

    @property
    def data(self):
        """indexable of length n_samples or None: The samples."""
        if self._rows is not None:
            self._data = take(self._data, self._rows)
            self._rows = None
        return self._data

    @property
    def is_materialized(self):
        """bool: Whether the candidates are there, so that using them costs nothing."""
        return self._plan is None

    @property
    def candidates(self):
        """ndarray, or csr_array from 64 classes on, of bool: The candidates of each sample."""
        self._materialize()
        return self._candidates

    @property
    def scores(self):
        """ndarray or csr_array of float32 (n_samples, n_classes), or None: Probabilities."""
        self._materialize()
        return self._scores

    @property
    def votes(self):
        """ndarray of int of shape (n_samples, n_prompts) or None: Class chosen by each prompt."""
        self._materialize()
        return self._votes

    @property
    def known(self):
        """ndarray of bool of shape (n_samples,) or None: Rows a human vouched for."""
        self._materialize()
        return self._known

    def toarray(self):
        """Return the candidates as a dense array.

        Returns
        -------
        candidates : ndarray of bool of shape (n_samples, n_classes)
            The candidates.
        """
        return as_dense(self.candidates)

    def tocsr(self):
        """Return the candidates as a sparse array.

        Returns
        -------
        candidates : csr_array of bool of shape (n_samples, n_classes)
            The candidates.
        """
        return sp.csr_array(self.candidates)

    def __array__(self, dtype=None, copy=None):
        return self.toarray().astype(dtype or bool, copy=bool(copy))

    def __len__(self):
        return self._n_samples

    def __getitem__(self, key):
        """Select rows by a slice, integers or a mask; one integer gives that row's candidates."""
        if isinstance(key, tuple):  # scikit-learn indexes arrays as X[key, ...]
            if len(key) != 2 or key[1] is not Ellipsis:
                raise IndexError("PartialLabels can only be indexed by row; its columns are fixed.")
            key = key[0]
        if isinstance(key, numbers.Integral) and not isinstance(key, (bool, np.bool_)):
            self._materialize()  # or a loop over rows would call the plan for each
            row = range(len(self))[key]
            return self[row : row + 1].toarray()[0]
        rows = _check_rows(key, len(self))
        part = object.__new__(type(self))
        vars(part).update(vars(self))
        part._n_samples = len(range(len(self))[rows] if isinstance(rows, slice) else rows)
        if self._rows is not None:
            part._rows = self._rows[rows]
        elif isinstance(rows, slice):
            part._data = take(self._data, rows)
        else:
            part._rows = rows
        if self.is_materialized:
            for name in ("_candidates", "_scores", "_votes", "_known"):
                value = getattr(self, name)
                setattr(part, name, None if value is None else value[rows])
        return part

    def __getstate__(self):
        self._materialize()
        return {**vars(self), "_data": self.data, "_rows": None}

    def _materialize(self):
        if self._plan is not None:
            self._set(**self._plan(self.data))
            self._plan = None

    def _set(self, candidates, scores=None, votes=None, known=None):
        parts = check_parts(self.shape, candidates, scores, votes, known)
        self._candidates, self._scores, self._votes, self._known = parts


def _check_rows(key, n_samples):
    """A row selection as a slice or an array of non-negative integers."""
    if isinstance(key, slice) and (key.step or 1) > 0:
        return key
    # Tensors, for one, cannot be sliced backwards.
    rows = np.arange(n_samples)[key] if isinstance(key, slice) else np.asarray(key)
    if rows.dtype == bool:
        check_shape(rows, "The mask", (n_samples,))
        return np.flatnonzero(rows)
    if rows.size == 0:
        rows = rows.astype(np.intp)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise IndexError(
            "PartialLabels is indexed by a slice, integers or a mask of its rows; got"
            f" {type(key).__name__}."
        )
    wrong = (rows < -n_samples) | (rows >= n_samples)
    if wrong.any():
        raise IndexError(f"row {rows[wrong][0]} is out of range for {n_samples} samples.")
    return np.where(rows < 0, rows + n_samples, rows)
