"""The container that carries samples and their candidate labels through scikit-learn."""

import numbers
import os
import warnings

import numpy as np
from scipy import sparse as sp
from sklearn.exceptions import UndefinedMetricWarning

from ._evidence import as_dense, pair_agreement
from ._files import atomic_write
from ._messages import did_you_mean, name_rows
from ._rules import candidates_from_scores, union_candidates

# From this many classes on, candidates are stored as CSR: a few indices a row instead of C bytes.
_SPARSE_FROM = 64


class PartialLabels:
    """Samples with a set of candidate labels each: an array-like of shape (n_samples, n_classes).

    scikit-learn sees a two-dimensional array of candidates and can count, split and pickle it.
    The samples travel along in ``data``, in whatever form they were given, so that a step of a
    :class:`~sklearn.pipeline.Pipeline` can hand both to the next.

    The constructors :meth:`from_candidates`, :meth:`from_sets`, :meth:`from_scores`,
    :meth:`from_votes` and :meth:`from_csr` are the usual way to make one.

    Parameters
    ----------
    data : indexable of length n_samples or None
        The samples: an array (memory maps included) or sparse matrix whose first axis is the
        samples, a pandas object, a list of paths, images or bytes, or a torch or Hugging Face
        dataset. None if the samples are kept elsewhere.
    classes : array-like of shape (n_classes,)
        Names of the classes, in the order of the columns: strings or numbers, but not -1, which
        stands for an unlabelled row.
    candidates : array-like or sparse matrix of shape (n_samples, n_classes), default=None
        True or 1 where a class is a candidate. A row of ones carries no label.
    scores : array-like or sparse matrix of float of shape (n_samples, n_classes), default=None
        The annotator's probabilities. A sparse matrix stays sparse: the classes that it does not
        store have the score 0.
    votes : array-like of int of shape (n_samples, n_prompts), default=None
        Index of the class each prompt chose; -1 where it abstained.
    known : array-like of bool of shape (n_samples,), default=None
        The rows whose label, their one candidate, was vouched for by a human.
    plan : callable, default=None
        Instead of candidates, a way to find them: ``plan(data)`` returns a dict with the key
        ``"candidates"`` and any of ``"scores"``, ``"votes"`` and ``"known"``. It is called once,
        the first time any of them is asked for. A slice of a container that has not called its
        plan yet calls the same plan on its own samples.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        Names of the classes.
    shape : tuple of int
        (n_samples, n_classes); known without calling the plan.
    ndim : int
        Always 2.
    dtype : numpy.dtype
        Always bool.

    Raises
    ------
    ValueError
        If a row has no candidate, the parts disagree in length, or a value is out of range.
    TypeError
        If the samples cannot be indexed or the plan not be called.

    See Also
    --------
    VLMPartialAnnotator : Makes partial labels with a vision-language model.
    CoRegClassifier : Learns from them.

    Notes
    -----
    Candidates of 64 or more classes are stored as a CSR array, so memory is proportional to the
    number of candidates rather than to the number of classes. Scores are stored as they are given:
    a dense array, or a sparse one of the largest scores, which learners use as it is.

    Slicing with integers or a mask copies the samples only when ``data`` is used; slicing an
    array with a ``slice`` is a view. Pickling, copying and ``numpy.asarray`` call the plan first,
    so that a pickle never holds a model.

    Examples
    --------
    >>> from sklearn_npll import PartialLabels
    >>> labels = PartialLabels.from_sets(
    ...     [["cat"], ["cat", "dog"], ["dog", "fox"]], data=["a.jpg", "b.jpg", "c.jpg"]
    ... )
    >>> labels
    PartialLabels(n_samples=3, n_classes=3, mean_set_size=1.67, data=list)
    >>> labels.candidates.astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [0, 1, 1]])
    >>> labels[1:].data
    ['b.jpg', 'c.jpg']
    >>> labels.coverage(["cat", "dog", "cat"])
    0.6666666666666666
    """

    ndim = 2
    dtype = np.dtype(bool)

    def __init__(
        self, data, classes, candidates=None, *, scores=None, votes=None, known=None, plan=None
    ):
        self.classes = _check_classes(classes)
        self._data = data
        self._rows = None  # rows of _data still to be taken
        self._plan = plan
        if plan is None:
            if candidates is None:
                raise ValueError("PartialLabels needs candidates or a plan that finds them.")
            self._n_samples = _length(candidates, "candidates")
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
            self._n_samples = _length(data, "data")
        if data is not None and _length(data, "data") != self._n_samples:
            raise ValueError(
                f"data has {_length(data, 'data')} samples but candidates has {self._n_samples}"
                " rows; they must describe the same samples in the same order."
            )

    @classmethod
    def from_candidates(cls, candidates, data=None, classes=None):
        """Make partial labels from a matrix of candidates.

        Parameters
        ----------
        candidates : array-like or sparse matrix of shape (n_samples, n_classes)
            True or 1 where a class is a candidate.
        data : indexable of length n_samples, default=None
            The samples.
        classes : array-like of shape (n_classes,), default=None
            Names of the columns; 0 to n_classes - 1 by default.

        Returns
        -------
        labels : PartialLabels
            The container.

        Raises
        ------
        ValueError
            If a row has no candidate or a value is neither 0 nor 1.

        Examples
        --------
        >>> from sklearn_npll import PartialLabels
        >>> PartialLabels.from_candidates([[1, 0], [1, 1]], classes=["cat", "dog"])
        PartialLabels(n_samples=2, n_classes=2, mean_set_size=1.50, data=None)
        """
        if not sp.issparse(candidates):
            candidates = _as_matrix(candidates)
        return cls(data, _default_classes(classes, candidates), candidates)

    @classmethod
    def from_csr(cls, candidates, data=None, classes=None):
        """Make partial labels from a sparse matrix of candidates without a dense copy.

        Parameters
        ----------
        candidates : sparse matrix or array of shape (n_samples, n_classes)
            Ones where a class is a candidate, in CSR or a format that converts to it.
        data : indexable of length n_samples, default=None
            The samples.
        classes : array-like of shape (n_classes,), default=None
            Names of the columns; 0 to n_classes - 1 by default.

        Returns
        -------
        labels : PartialLabels
            The container.

        Raises
        ------
        TypeError
            If the candidates are not a sparse matrix.
        ValueError
            If a row has no candidate or a value is neither 0 nor 1.

        Examples
        --------
        >>> from scipy.sparse import csr_array
        >>> from sklearn_npll import PartialLabels
        >>> PartialLabels.from_csr(csr_array([[1, 0], [1, 1]]))
        PartialLabels(n_samples=2, n_classes=2, mean_set_size=1.50, data=None)
        """
        if not sp.issparse(candidates):
            raise TypeError(
                f"from_csr needs a SciPy sparse matrix; got {type(candidates).__name__}. For a"
                " dense matrix use from_candidates."
            )
        return cls.from_candidates(candidates, data, classes)

    @classmethod
    def from_sets(cls, sets, classes=None, data=None):
        """Make partial labels from a set of class names for each sample.

        Parameters
        ----------
        sets : sequence of length n_samples of collections of class names
            The candidates of each sample.
        classes : array-like of shape (n_classes,), default=None
            Names of all classes; by default the names that occur, sorted.
        data : indexable of length n_samples, default=None
            The samples.

        Returns
        -------
        labels : PartialLabels
            The container.

        Raises
        ------
        ValueError
            If a set is empty or names an unknown class, or names and numbers are mixed.
        TypeError
            If an element of ``sets`` is a single name instead of a collection of names.

        Examples
        --------
        >>> from sklearn_npll import PartialLabels
        >>> PartialLabels.from_sets([{"cat"}, {"fox", "cat"}], classes=["cat", "dog", "fox"])
        PartialLabels(n_samples=2, n_classes=3, mean_set_size=1.50, data=None)
        """
        sizes = np.empty(len(sets), dtype=np.int64)
        for row, names in enumerate(sets):
            if isinstance(names, str) or not hasattr(names, "__len__"):
                raise TypeError(
                    f"sets[{row}] is {names!r}; each element must be a collection of class names,"
                    f" such as [{names!r}]."
                )
            sizes[row] = len(names)
        if classes is None:
            classes = {name for names in sets for name in names}
            if len({isinstance(name, str) for name in classes}) > 1:
                raise ValueError("sets mix names and numbers; make all classes strings, or none.")
            classes = sorted(classes)
        classes = _check_classes(classes)
        codes = {name: code for code, name in enumerate(classes.tolist())}
        flat = (codes.get(name, -1) for names in sets for name in names)
        columns = np.fromiter(flat, dtype=np.int32, count=sizes.sum())
        if (columns < 0).any():
            position = np.argmin(columns)
            row = np.searchsorted(np.cumsum(sizes), position, side="right")
            name = next(name for name in sets[row] if name not in codes)
            raise ValueError(
                f"sets[{row}] names {name!r}, which is not a class.{did_you_mean(name, classes)}"
            )
        candidates = sp.csr_array(
            (np.ones(len(columns), dtype=bool), columns, np.concatenate([[0], np.cumsum(sizes)])),
            shape=(len(sets), len(classes)),
        )
        return cls(data, classes, candidates)

    @classmethod
    def from_scores(cls, scores, rule="topk", value=None, data=None, classes=None):
        """Make partial labels from the scores of an annotator and a candidate rule.

        Parameters
        ----------
        scores : array-like or sparse matrix of float of shape (n_samples, n_classes)
            Probabilities of the classes; for rule "topk" any scores. Of a sparse matrix, only
            classes that it stores become candidates, and rule "cpl" takes none.
        rule : {"topk", "threshold", "ratio", "cumulative", "cpl"}, default="topk"
            "topk" takes the k largest, "threshold" all of at least a given probability or else
            the largest, "ratio" all of at least a given share of the largest, "cumulative" the
            smallest set of a given total probability. "cpl", of Candidate Pseudolabel Learning,
            takes the smallest set that sums to the quantile alpha of the largest probabilities
            of all rows, and of it the classes whose probability reaches the quantile beta of
            this class over all rows, or else the largest.
        value : int, float or pair of float, default=None
            The rule's argument; by default k=3, threshold=0.1, ratio=0.5, mass=0.9 or
            (alpha, beta)=(0.6, 0.9).
        data : indexable of length n_samples, default=None
            The samples.
        classes : array-like of shape (n_classes,), default=None
            Names of the columns; 0 to n_classes - 1 by default.

        Returns
        -------
        labels : PartialLabels
            The container, which keeps the scores.

        Raises
        ------
        ValueError
            If the rule is unknown, or cannot use the value or the scores.

        Examples
        --------
        >>> from sklearn_npll import PartialLabels
        >>> labels = PartialLabels.from_scores([[0.6, 0.3, 0.1], [0.95, 0.04, 0.01]], "cumulative")
        >>> labels.candidates.astype(int)
        array([[1, 1, 0],
               [1, 0, 0]])
        """
        candidates = candidates_from_scores(scores, rule, value)
        return cls(data, _default_classes(classes, candidates), candidates, scores=scores)

    @classmethod
    def from_votes(cls, votes, classes, data=None):
        """Make partial labels from votes: the candidates are the classes with any vote.

        Parameters
        ----------
        votes : array-like of int of shape (n_samples, n_prompts)
            Index of the class each prompt, template or human annotator chose; -1 where it
            abstained. Where all abstained every class is a candidate.
        classes : array-like of shape (n_classes,)
            Names of the classes.
        data : indexable of length n_samples, default=None
            The samples.

        Returns
        -------
        labels : PartialLabels
            The container, which keeps the votes.

        Raises
        ------
        ValueError
            If a vote is not -1 or the index of a class.

        Examples
        --------
        >>> from sklearn_npll import PartialLabels
        >>> labels = PartialLabels.from_votes([[0, 0, 2], [1, 1, 1]], ["cat", "dog", "fox"])
        >>> labels.candidates.astype(int)
        array([[1, 0, 1],
               [0, 1, 0]])
        """
        classes = _check_classes(classes)
        sparse = len(classes) >= _SPARSE_FROM
        candidates = union_candidates(votes, len(classes), sparse=sparse)
        return cls(data, classes, candidates, votes=votes)

    @property
    def shape(self):
        """tuple of int: (n_samples, n_classes)."""
        return self._n_samples, len(self.classes)

    @property
    def data(self):
        """indexable of length n_samples or None: The samples."""
        if self._rows is not None:
            self._data = _take(self._data, self._rows)
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

    def __repr__(self):
        size = f"{self.mean_set_size:.2f}" if self.is_materialized else "not annotated yet"
        kind = type(self._data).__name__ if self._data is not None else None
        return (
            f"{type(self).__name__}(n_samples={len(self)}, n_classes={len(self.classes)},"
            f" mean_set_size={size}, data={kind})"
        )

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
            part._data = _take(self._data, rows)
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
        n_samples, n_classes = self.shape
        self._candidates = _check_candidates(candidates, self.shape)
        if scores is not None:
            scores = _check_scores(scores, self.shape)
        if votes is not None:
            votes = np.asarray(votes)
            _check_shape(votes, "votes", (n_samples, votes.shape[-1] if votes.ndim else 0))
            if votes.size and not -1 <= votes.min() <= votes.max() < n_classes:
                raise ValueError(
                    f"votes go from {votes.min()} to {votes.max()}; a vote is the index of a"
                    f" class, 0 to {n_classes - 1}, or -1."
                )
            votes = votes.astype(np.min_scalar_type(-n_classes), copy=False)
        if known is not None:
            known = np.asarray(known, dtype=bool)
            _check_shape(known, "known", (n_samples,))
            wrong = known & (_row_sizes(self._candidates) != 1)
            if wrong.any():
                raise ValueError(
                    f"{name_rows(wrong)} known by a human must have exactly one candidate."
                )
        self._scores, self._votes, self._known = scores, votes, known

    @property
    def set_sizes(self):
        """ndarray of int of shape (n_samples,): Number of candidates of each sample."""
        return _row_sizes(self.candidates)

    @property
    def mean_set_size(self):
        """float: Mean number of candidates."""
        return _mean(self.set_sizes)

    @property
    def agreement(self):
        """float or None: Mean share of pairs of prompts that chose the same class.

        Prompts that abstained are left out, and so are samples with fewer than two votes. None if
        there are no such pairs at all.
        """
        shares = None if self.votes is None else pair_agreement(self.votes)
        if shares is None or np.isnan(shares).all():
            return None
        return float(np.nanmean(shares))

    def encode_labels(self, y):
        """Translate class names to the indices of their columns.

        Parameters
        ----------
        y : array-like of shape (n_samples,)
            Name of a class for each sample; -1 where it is unlabelled.

        Returns
        -------
        codes : ndarray of int of shape (n_samples,)
            Indices of the classes; -1 where unlabelled.

        Raises
        ------
        ValueError
            If y has the wrong length or contains a name that is not a class.

        Examples
        --------
        >>> from sklearn_npll import PartialLabels
        >>> labels = PartialLabels.from_candidates([[1, 0], [1, 1]], classes=["cat", "dog"])
        >>> labels.encode_labels(["dog", -1])
        array([ 1, -1])
        """
        return self._encode_labels(y, "y")

    def _encode_labels(self, y, name):
        y = np.asarray(y)
        if y.shape != (len(self),):
            raise ValueError(
                f"{name} has shape {y.shape}; it must hold one class for each of {len(self)}"
                " samples."
            )
        codes = {-1: -1, "-1": -1, **{name: i for i, name in enumerate(self.classes.tolist())}}
        encoded = np.fromiter((codes.get(name, -2) for name in y.tolist()), np.int64, len(y))
        if (encoded == -2).any():
            row = np.argmin(encoded)
            hint = did_you_mean(y[row], self.classes)
            if self.classes.dtype.kind == "U" and isinstance(y[row], numbers.Integral):
                hint = " The classes are names: if "
                hint += f"{name} holds their indices, pass classes[{name}]."
            raise ValueError(
                f"{name}[{row}] is {y[row : row + 1].tolist()[0]!r}, which is not a class.{hint}"
            )
        return encoded

    def contains(self, y):
        """Tell which samples have a given label among their candidates.

        Parameters
        ----------
        y : array-like of shape (n_samples,)
            Name of a class for each sample; -1 where it is unlabelled.

        Returns
        -------
        contained : ndarray of bool of shape (n_samples,)
            Whether the label is a candidate; False where unlabelled.

        Raises
        ------
        ValueError
            If y has the wrong length or contains a name that is not a class.

        Examples
        --------
        >>> from sklearn_npll import PartialLabels
        >>> labels = PartialLabels.from_candidates([[1, 0], [1, 1]], classes=["cat", "dog"])
        >>> labels.contains(["dog", "dog"])
        array([False,  True])
        """
        codes = self.encode_labels(y)
        rows = np.flatnonzero(codes >= 0)
        if sp.issparse(self.candidates):
            wanted = sp.csr_array((np.ones(len(rows), bool), (rows, codes[rows])), self.shape)
            return _row_sizes(self.candidates.multiply(wanted).tocsr()) > 0
        contained = np.zeros(len(self), dtype=bool)
        contained[rows] = self.candidates[rows, codes[rows]]
        return contained

    def coverage(self, y):
        """Return the share of labelled samples whose label is a candidate.

        Parameters
        ----------
        y : array-like of shape (n_samples,)
            True class of each sample; -1 where it is unlabelled.

        Returns
        -------
        coverage : float
            The share, in [0, 1]; one minus it is the noise rate eta. NaN, with a warning, if no
            sample is labelled.

        Raises
        ------
        ValueError
            If y has the wrong length or contains a name that is not a class.

        Examples
        --------
        >>> from sklearn_npll import PartialLabels
        >>> labels = PartialLabels.from_candidates([[1, 0], [1, 1]], classes=["cat", "dog"])
        >>> labels.coverage(["dog", "dog"])
        0.5
        """
        labelled = self.encode_labels(y) >= 0
        if not labelled.any():
            warnings.warn(
                "No sample in y is labelled, so coverage is NaN.",
                UndefinedMetricWarning,
                stacklevel=2,
            )
            return float("nan")
        return float(self.contains(y)[labelled].mean())

    def summary(self, y=None):
        """Describe the candidates in a few figures.

        Parameters
        ----------
        y : array-like of shape (n_samples,), default=None
            True class of each sample, where known; -1 where it is unlabelled.

        Returns
        -------
        summary : dict
            Prints as a table. Keys: n_samples, n_classes, mean_set_size, single_share (rows with
            one candidate), unlabelled_share (rows in which all classes are candidates),
            agreement, n_known, and, with y, coverage and noise_rate.

        Raises
        ------
        ValueError
            If y has the wrong length or contains a name that is not a class.

        Examples
        --------
        >>> from sklearn_npll import PartialLabels
        >>> labels = PartialLabels.from_votes([[0, 0, 2], [1, 1, 1]], ["cat", "dog", "fox"])
        >>> labels.summary(["cat", "cat"])
        n_samples         2
        n_classes         3
        mean_set_size     1.5
        single_share      0.5
        unlabelled_share  0
        agreement         0.6667
        n_known           0
        coverage          0.5
        noise_rate        0.5
        """
        sizes = self.set_sizes
        summary = _Summary(
            n_samples=len(self),
            n_classes=len(self.classes),
            mean_set_size=self.mean_set_size,
            single_share=_mean(sizes == 1),
            unlabelled_share=_mean(sizes == len(self.classes)),
            agreement=self.agreement,
            n_known=0 if self.known is None else int(self.known.sum()),
        )
        if y is not None:
            coverage = self.coverage(y)
            summary.update(coverage=coverage, noise_rate=1 - coverage)
        return summary

    @classmethod
    def concatenate(cls, parts):
        """Join containers of the same classes one after another.

        Parameters
        ----------
        parts : sequence of PartialLabels
            The containers; their plans are called.

        Returns
        -------
        labels : PartialLabels
            The rows of all parts. Samples, scores and votes are kept if every part has them.

        Raises
        ------
        ValueError
            If there is no part, their classes differ, or their samples are of different kinds.

        Examples
        --------
        >>> from sklearn_npll import PartialLabels
        >>> labels = PartialLabels.from_candidates([[1, 0], [1, 1]], data=["a.jpg", "b.jpg"])
        >>> PartialLabels.concatenate([labels, labels[:1]]).data
        ['a.jpg', 'b.jpg', 'a.jpg']
        """
        parts = list(parts)
        if not parts:
            raise ValueError("concatenate needs at least one PartialLabels.")
        classes = parts[0].classes
        for number, part in enumerate(parts):
            if part.classes.tolist() != classes.tolist():
                raise ValueError(
                    f"parts[{number}] has classes {part.classes.tolist()} but parts[0] has"
                    f" {classes.tolist()}; reorder the columns before joining."
                )
        known = None
        if any(part.known is not None for part in parts):
            known = np.concatenate(
                [np.zeros(len(p), dtype=bool) if p.known is None else p.known for p in parts]
            )
        stack = sp.vstack if sp.issparse(parts[0].candidates) else np.concatenate
        return cls(
            _join([part.data for part in parts]),
            classes,
            stack([part.candidates for part in parts]),
            scores=_join(_alike([part.scores for part in parts])),
            votes=_join([part.votes for part in parts]),
            known=known,
        )

    def save(self, path):
        """Write the container to one ``.npz`` file, without pickle.

        A crash on the way, or a full disk, leaves the file as it was.

        Parameters
        ----------
        path : str or path-like
            The file; ``.npz`` is added if missing.

        Warns
        -----
        UserWarning
            If the samples are neither a plain array nor a list of strings or paths: then they are
            not written, and ``data`` is None after :meth:`load`.

        See Also
        --------
        load : Read the file back.
        """
        with atomic_write(_npz(path)) as file:
            self._write(file)

    def _write(self, file):
        csr = self.tocsr()
        arrays = {
            "classes": self.classes,
            "columns": csr.indices.astype(np.min_scalar_type(len(self.classes))),
            "sizes": self.set_sizes,
            "votes": self.votes,
            "known": self.known,
        }
        if sp.issparse(self.scores):
            arrays["score_values"] = self.scores.data
            arrays["score_columns"] = self.scores.indices
            arrays["score_starts"] = self.scores.indptr
        else:
            arrays["scores"] = self.scores
        data = self.data
        if isinstance(data, np.ndarray) and not data.dtype.hasobject:
            arrays["data"] = data
        elif isinstance(data, list) and all(isinstance(x, (str, os.PathLike)) for x in data):
            arrays["data_list"] = np.array([os.fspath(x) for x in data], dtype=str)
        elif data is not None:
            warnings.warn(
                f"The samples ({type(data).__name__}) cannot be written without pickle and are left"
                " out; only an array or a list of paths can. After load, data is None.",
                stacklevel=3,  # the caller of save
            )
        np.savez_compressed(
            file, **{name: array for name, array in arrays.items() if array is not None}
        )

    @classmethod
    def load(cls, path):
        """Read a container written by :meth:`save`.

        Parameters
        ----------
        path : str or path-like
            The file; ``.npz`` is added if missing.

        Returns
        -------
        labels : PartialLabels
            The container. A list of paths comes back as a list of strings.

        Raises
        ------
        ValueError
            If the file is damaged, or none that :meth:`save` wrote. Code in it is never run.
        OSError
            If it cannot be opened.

        Examples
        --------
        >>> import os, tempfile
        >>> from sklearn_npll import PartialLabels
        >>> labels = PartialLabels.from_candidates([[1, 0], [1, 1]], data=["a.jpg", "b.jpg"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     labels.save(os.path.join(folder, "labels"))
        ...     PartialLabels.load(os.path.join(folder, "labels"))
        PartialLabels(n_samples=2, n_classes=2, mean_set_size=1.50, data=list)
        """
        with open(_npz(path), "rb") as file:
            try:
                return cls._read(file)
            # zipfile and NumPy raise anything on a damaged file
            except Exception as error:
                raise ValueError(
                    f"{_npz(path)} is no file that PartialLabels.save wrote, or is damaged:"
                    f" {type(error).__name__}: {error}"
                ) from error

    @classmethod
    def _read(cls, file):
        with np.load(file, allow_pickle=False) as arrays:
            arrays = dict(arrays)
        columns, sizes, n_classes = arrays["columns"], arrays["sizes"], len(arrays["classes"])
        # SciPy trusts these, and would write to any place in memory.
        if not (_are_counts(columns, n_classes - 1) and _are_counts(sizes, n_classes)):
            raise ValueError("the candidates are out of range")
        if sizes.sum() != len(columns):
            raise ValueError(f"there are {len(columns)} candidates in place of {sizes.sum()}")
        starts = np.concatenate([[0], np.cumsum(sizes)])
        candidates = sp.csr_array(
            (np.ones(len(columns), dtype=bool), columns.astype(np.int32), starts),
            shape=(len(sizes), n_classes),
        )
        data = arrays["data_list"].tolist() if "data_list" in arrays else arrays.get("data")
        parts = {name: arrays.get(name) for name in ("scores", "votes", "known")}
        if "score_values" in arrays:
            entries = (arrays[f"score_{name}"] for name in ("values", "columns", "starts"))
            parts["scores"] = sp.csr_array(tuple(entries), shape=candidates.shape)
        return cls(data, arrays["classes"], candidates, **parts)


class _Summary(dict):
    """A dict that prints as a table."""

    def __repr__(self):
        width = max(map(len, self))
        return "\n".join(
            f"{key:<{width}}  {value if value is None else format(value, '.4g')}"
            for key, value in self.items()
        )


def _mean(values):
    return float(np.mean(values)) if len(values) else float("nan")


def _check_classes(classes):
    classes = np.asarray(classes)
    if classes.dtype.kind == "O":
        classes = np.array(classes.tolist())
    if classes.ndim != 1 or not len(classes) or classes.dtype.kind not in "USiufb":
        raise ValueError(
            "classes must be a list of names or numbers, one for each column; got dtype"
            f" {classes.dtype} and shape {classes.shape}."
        )
    names, counts = np.unique(classes, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"class {names[counts > 1].tolist()[0]!r} is given more than once.")
    if -1 in classes.tolist() or "-1" in classes.tolist():
        raise ValueError("-1 cannot be a class; it stands for an unlabelled row.")
    return classes


def _default_classes(classes, candidates):
    return np.arange(candidates.shape[1]) if classes is None else classes


def _as_matrix(candidates):
    try:
        matrix = np.asarray(candidates)
    except ValueError:  # a ragged list
        matrix = np.empty(0)
    if matrix.ndim != 2:
        raise ValueError(
            "candidates must be a matrix of shape (n_samples, n_classes) of zeros and ones. For a"
            " list of sets of class names use PartialLabels.from_sets (or scikit-learn's"
            " MultiLabelBinarizer)."
        )
    return matrix


def _check_candidates(candidates, shape):
    """Validated candidates: dense for few classes, CSR for many; bool in both cases."""
    if sp.issparse(candidates):
        candidates = sp.csr_array(candidates, copy=True)  # cleaned below, in place
    else:
        candidates = _as_matrix(candidates)
    _check_shape(candidates, "candidates", shape)
    if candidates.dtype != bool:
        values = candidates.data if sp.issparse(candidates) else candidates
        wrong = (values != 0) & (values != 1)
        if wrong.any():
            if sp.issparse(candidates):
                position = np.argmax(wrong)
                row = np.searchsorted(candidates.indptr, position, side="right") - 1
                value = values[position]
            else:
                row, column = np.argwhere(wrong)[0]
                value = values[row, column]
            raise ValueError(
                f"candidates has the value {value} in row {row}; each must be 0 or 1. For"
                " probabilities use PartialLabels.from_scores, which applies a candidate rule."
            )
    sparse = shape[1] >= _SPARSE_FROM
    if sp.issparse(candidates):
        candidates = candidates.astype(bool, copy=False)
        candidates.sum_duplicates()
        candidates.eliminate_zeros()
        candidates = candidates if sparse else candidates.toarray()
    else:
        candidates = candidates.astype(bool, copy=False)
        candidates = sp.csr_array(candidates) if sparse else candidates
    empty = _row_sizes(candidates) == 0
    if empty.any():
        raise ValueError(
            f"{name_rows(empty)} of candidates have no candidate class. Every sample needs at least"
            " one; if nothing is known of its label, make all classes candidates."
        )
    return candidates


def _check_scores(scores, shape):
    """Validated scores of float32: a CSR array without zeros if they are sparse, else dense."""
    if not sp.issparse(scores):
        scores = np.asarray(scores, dtype=np.float32)
        _check_shape(scores, "scores", shape)
        # not entry by entry, which would take a second matrix
        wrong = ~(np.isfinite(scores.min(axis=1)) & np.isfinite(scores.max(axis=1)))
    else:
        scores = sp.csr_array(scores, dtype=np.float32, copy=True)  # cleaned below, in place
        _check_shape(scores, "scores", shape)
        scores.sum_duplicates()
        scores.eliminate_zeros()
        rows = np.repeat(np.arange(shape[0]), np.diff(scores.indptr))
        wrong = np.bincount(rows[~np.isfinite(scores.data)], minlength=shape[0]) > 0
        negative = np.flatnonzero(scores.data < 0)
        if len(negative):
            raise ValueError(
                f"scores has the value {scores.data[negative[0]]:.3g} in row {rows[negative[0]]}."
                " Sparse scores must not be negative, as classes that are not stored have the score"
                " 0; use probabilities."
            )
    if wrong.any():
        raise ValueError(f"scores contain NaN or infinity in {name_rows(wrong)}.")
    return scores


def _check_shape(array, name, shape):
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}.")


def _row_sizes(candidates):
    """Number of candidates in each row of a dense or clean CSR matrix."""
    return np.diff(candidates.indptr) if sp.issparse(candidates) else candidates.sum(axis=1)


def _check_rows(key, n_samples):
    """A row selection as a slice or an array of non-negative integers."""
    if isinstance(key, slice) and (key.step or 1) > 0:
        return key
    # Tensors, for one, cannot be sliced backwards.
    rows = np.arange(n_samples)[key] if isinstance(key, slice) else np.asarray(key)
    if rows.dtype == bool:
        _check_shape(rows, "The mask", (n_samples,))
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


def _length(data, name):
    shape = getattr(data, "shape", None)
    try:
        return shape[0] if shape is not None else len(data)
    except (TypeError, IndexError):
        raise TypeError(
            f"{name} of type {type(data).__name__} has no length; it must be an array, a list or"
            " a dataset with a length and items."
        ) from None


def _is_array(data):
    return sp.issparse(data) or hasattr(data, "__array__")


def _take(data, rows):
    """The given rows, a slice or integers, of samples of any accepted kind."""
    if data is None:
        return None
    if hasattr(data, "iloc"):
        return data.iloc[rows]
    if _is_array(data):
        return data[rows]
    if isinstance(data, (list, tuple)):
        return data[rows] if isinstance(rows, slice) else [data[row] for row in rows]
    if isinstance(rows, slice):
        rows = np.arange(len(data))[rows]
    if hasattr(data, "select"):  # a Hugging Face dataset
        return data.select(rows)
    from torch.utils.data import Subset

    return Subset(data, rows.tolist())


def _alike(scores):
    """Make scores of several containers sparse if some of them are."""
    if any(map(sp.issparse, scores)) and all(part is not None for part in scores):
        return [sp.csr_array(part) for part in scores]
    return scores


def _join(parts):
    """Samples or arrays of the same kind one after another; None if any is None."""
    if any(part is None for part in parts):
        return None
    if all(isinstance(part, list) for part in parts):
        return [sample for part in parts for sample in part]
    if all(hasattr(part, "iloc") for part in parts):
        import pandas as pd

        return pd.concat(parts)
    if all(sp.issparse(part) for part in parts):
        return sp.vstack(parts, format="csr")
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    if any(isinstance(part, list) or _is_array(part) for part in parts):
        kinds = ", ".join(sorted({type(part).__name__ for part in parts}))
        raise ValueError(f"Samples of different kinds cannot be joined: {kinds}.")
    from torch.utils.data import ConcatDataset

    return ConcatDataset(parts)


def _are_counts(values, largest):
    """Whether an array of one dimension holds integers from 0 to the largest."""
    if values.ndim != 1 or values.dtype.kind not in "iu":
        return False
    return not len(values) or bool(values.min() >= 0 and values.max() <= largest)


def _npz(path):
    path = os.fspath(path)
    return path if path.endswith(".npz") else path + ".npz"
