"""Figures on candidates and votes, alone or beside true labels, and their table."""

import numbers
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse as sp
from sklearn.exceptions import UndefinedMetricWarning

from .._evidence import pair_agreement
from .._frames import make_frame
from .._messages import did_you_mean, name_classes
from .._typing import Array
from ._array import CandidateArray
from ._checks import row_sizes
from ._table import label_columns, sample_columns


def encode_labels(y, classes, n_samples, name="y"):
    """Translate class names to indices of classes.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Name of a class for each sample; -1 where it is unlabelled.
    classes : ndarray of shape (n_classes,)
    n_samples : int
    name : str, default="y"
        What the labels are called in errors.

    Returns
    -------
    ndarray of int of shape (n_samples,)
        Indices of the classes; -1 where unlabelled.

    Raises
    ------
    ValueError
        If y has the wrong length or contains a name that is not a class.
    """
    y = np.asarray(y)
    if y.shape != (n_samples,):
        raise ValueError(
            f"{name} has shape {y.shape}; it must hold one class for each of {n_samples} samples."
        )
    codes = {-1: -1, "-1": -1, **{name: i for i, name in enumerate(classes.tolist())}}
    encoded = np.fromiter((codes.get(name, -2) for name in y.tolist()), np.int64, len(y))
    if (encoded == -2).any():
        row = np.argmin(encoded)
        hint = did_you_mean(y[row], classes) or f" Classes are {name_classes(classes.tolist())}."
        if classes.dtype.kind == "U" and isinstance(y[row], numbers.Integral):
            hint = " The classes are names: if "
            hint += f"{name} holds their indices, pass classes[{name}]."
        raise ValueError(
            f"{name}[{row}] is {y[row : row + 1].tolist()[0]!r}, which is not a class.{hint}"
        )
    return encoded


class MeasuredArray(CandidateArray):
    """An array of candidates with its figures and its table."""

    @property
    def set_sizes(self) -> Array:
        """ndarray of int of shape (n_samples,): Number of candidates of each sample."""
        return row_sizes(self.candidates)

    @property
    def mean_set_size(self) -> float:
        """float: Mean number of candidates."""
        return _mean(self.set_sizes)

    @property
    def agreement(self) -> float | None:
        """float or None: Mean share of pairs of prompts that chose the same class.

        Prompts that abstained are left out, and so are samples with fewer than two votes. None if
        there are no such pairs at all.
        """
        shares = None if self.votes is None else pair_agreement(self.votes)
        if shares is None or np.isnan(shares).all():
            return None
        return float(np.nanmean(shares))

    def encode_labels(self, y: ArrayLike) -> Array:
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
        return encode_labels(y, self.classes, len(self))

    def contains(self, y: ArrayLike) -> Array:
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
            return row_sizes(self.candidates.multiply(wanted).tocsr()) > 0
        contained = np.zeros(len(self), dtype=bool)
        contained[rows] = self.candidates[rows, codes[rows]]
        return contained

    def coverage(self, y: ArrayLike) -> float:
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

    def summary(self, y: ArrayLike | None = None) -> dict[str, Any]:
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

    def to_frame(self, library: str = "pandas", *, votes: bool = False) -> Any:
        """Return a table with a row for each sample.

        Parameters
        ----------
        library : {"pandas", "polars", "pyarrow"}, default="pandas"
            Which library's table; it must be installed.
        votes : bool, default=False
            Whether to add a column of lists with the class that each prompt chose.

        Returns
        -------
        frame : pandas.DataFrame, polars.DataFrame or pyarrow.Table
            Columns: ``path`` if the samples are paths, else ``row``, their number; ``label``, the
            class that the annotator prefers, by its scores, else its votes, else the first
            candidate; ``confidence``, its share, in [0, 1], missing where scores are negative or
            all zero; ``set_size``, the number of candidates; ``agreement``, the share of pairs of
            prompts that chose the same class, missing with fewer than two votes, if there are
            votes; ``known``, if some rows may be; ``candidates``, lists of class names; and
            ``votes``. A pandas table has the index of the samples, if they are a pandas object.

        Raises
        ------
        ImportError
            If the library is not installed.
        ValueError
            If the library is unknown, or votes are asked for and there are none.

        Examples
        --------
        >>> from sklearn_npll import PartialLabels
        >>> labels = PartialLabels.from_votes(
        ...     [[0, 0, 2], [1, 1, 1]], ["cat", "dog", "fox"], data=["a.jpg", "b.jpg"]
        ... )
        >>> print(labels.to_frame().round(2).to_string())
            path label  confidence  set_size  agreement  candidates
        0  a.jpg   cat        0.67         2       0.33  [cat, fox]
        1  b.jpg   dog        1.00         1       1.00       [dog]
        """
        columns = {**sample_columns(self.data, len(self)), **label_columns(self, votes)}
        index = getattr(self.data, "index", None) if hasattr(self.data, "iloc") else None
        return make_frame(columns, library, index)


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
