"""Partial labels: made from sets, scores or votes, joined and saved."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse as sp

from .._files import atomic_write
from .._messages import did_you_mean
from .._rows import join, length
from .._rules import candidates_from_scores, union_candidates
from .._typing import MatrixLike, PathLike, Samples, Self
from ._changes import ChangedArray
from ._checks import SPARSE_FROM_CLASSES, as_matrix, check_class_names, default_classes
from ._file import npz_path, read_parts, write_labels


class PartialLabels(ChangedArray):
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
        Names of the classes, in the order of the columns: all strings, or all whole numbers, but
        not -1, which stands for an unlabelled row.
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

    Trust a label that is known, here that of the second sample:

    >>> labels.with_known(["-1", "dog", "-1"]).candidates[1]
    array([False,  True, False])
    """

    @classmethod
    def from_candidates(
        cls, candidates: MatrixLike, data: Samples = None, classes: ArrayLike | None = None
    ) -> Self:
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
            candidates = as_matrix(candidates)
        return cls(data, default_classes(classes, candidates), candidates)

    @classmethod
    def from_csr(
        cls, candidates: MatrixLike, data: Samples = None, classes: ArrayLike | None = None
    ) -> Self:
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
    def from_sets(
        cls, sets: Sequence[Collection[Any]], classes: ArrayLike | None = None, data: Samples = None
    ) -> Self:
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
        sizes = np.empty(length(sets, "sets"), dtype=np.int64)
        for row, names in enumerate(sets):
            if isinstance(names, str) or not hasattr(names, "__len__"):
                raise TypeError(
                    f"sets[{row}] is {names!r}; each element must be a collection of class names,"
                    f" such as [{names!r}]."
                )
            sizes[row] = len(names)
        if classes is None:
            classes = np.sort(check_class_names(list({name for names in sets for name in names})))
        class_names = check_class_names(classes)
        codes = {name: code for code, name in enumerate(class_names.tolist())}
        flat = (codes.get(name, -1) for names in sets for name in names)
        columns = np.fromiter(flat, dtype=np.int32, count=sizes.sum())
        if (columns < 0).any():
            position = np.argmin(columns)
            row = int(np.searchsorted(np.cumsum(sizes), position, side="right"))
            name = next(name for name in sets[row] if name not in codes)
            hint = did_you_mean(name, class_names)
            raise ValueError(f"sets[{row}] names {name!r}, which is not a class.{hint}")
        candidates = sp.csr_array(
            (np.ones(len(columns), dtype=bool), columns, np.concatenate([[0], np.cumsum(sizes)])),
            shape=(len(sets), len(class_names)),
        )
        return cls(data, class_names, candidates)

    @classmethod
    def from_scores(
        cls,
        scores: MatrixLike,
        rule: str = "topk",
        value: float | tuple[float, float] | None = None,
        data: Samples = None,
        classes: ArrayLike | None = None,
    ) -> Self:
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
        return cls(data, default_classes(classes, candidates), candidates, scores=scores)

    @classmethod
    def from_votes(cls, votes: ArrayLike, classes: ArrayLike, data: Samples = None) -> Self:
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
        class_names = check_class_names(classes)
        sparse = len(class_names) >= SPARSE_FROM_CLASSES
        candidates = union_candidates(votes, len(class_names), sparse=sparse)
        return cls(data, class_names, candidates, votes=votes)

    def __repr__(self):
        size = f"{self.mean_set_size:.2f}" if self.is_materialized else "not annotated yet"
        kind = type(self._data).__name__ if self._data is not None else None
        return (
            f"{type(self).__name__}(n_samples={len(self)}, n_classes={len(self.classes)},"
            f" mean_set_size={size}, data={kind})"
        )

    @classmethod
    def concatenate(cls, parts: Iterable[Self]) -> Self:
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
            If there is no part, their classes or numbers of votes differ, or their samples are of
            different kinds.
        TypeError
            If a part is something else.

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
        for number, part in enumerate(parts):
            if not isinstance(part, cls):
                raise TypeError(
                    f"parts[{number}] is of type {type(part).__name__}, no {cls.__name__}."
                )
        classes = parts[0].classes
        for number, part in enumerate(parts):
            if part.classes.tolist() != classes.tolist():
                raise ValueError(
                    f"parts[{number}] has classes {part.classes.tolist()} but parts[0] has"
                    f" {classes.tolist()}; reorder the columns before joining."
                )
        widths = [None if part.votes is None else part.votes.shape[1] for part in parts]
        if None not in widths and len(set(widths)) > 1:
            raise ValueError(
                f"The samples of the parts have different numbers of votes: {widths}. Drop them by"
                " replace(votes=None) before joining."
            )
        known = None
        if any(part.known is not None for part in parts):
            known = np.concatenate(
                [np.zeros(len(p), dtype=bool) if p.known is None else p.known for p in parts]
            )
        stack = sp.vstack if sp.issparse(parts[0].candidates) else np.concatenate
        return cls(
            join([part.data for part in parts]),
            classes,
            stack([part.candidates for part in parts]),
            scores=join(_alike([part.scores for part in parts])),
            votes=join([part.votes for part in parts]),
            known=known,
        )

    def save(self, path: PathLike) -> None:
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
        with atomic_write(npz_path(path)) as file:
            write_labels(file, self)

    @classmethod
    def load(cls, path: PathLike) -> Self:
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
        with open(npz_path(path), "rb") as file:
            try:
                return cls(**read_parts(file))
            # zipfile and NumPy raise anything on a damaged file
            except Exception as error:
                raise ValueError(
                    f"{npz_path(path)} is no file that PartialLabels.save wrote, or is damaged:"
                    f" {type(error).__name__}: {error}"
                ) from error


def _alike(scores):
    """Make scores of several containers sparse if some of them are."""
    if any(map(sp.issparse, scores)) and all(part is not None for part in scores):
        return [sp.csr_array(part) for part in scores]
    return scores
