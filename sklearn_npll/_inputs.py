"""What X and y may be, brought to one form."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Number

import numpy as np
from scipy import sparse as sp
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from ._compat import validate_data
from ._evidence import as_dense
from ._images import check_collection, is_image_data
from ._messages import did_you_mean, name_rows
from ._partial_labels import PartialLabels, row_sizes
from ._rules import union_candidates

# Cells (n_samples * n_classes) from which on learners that can make no dense matrix: one of float32
# would take 256 MB.
SPARSE_FROM = 2**26
LIST_OF_SETS = (
    "y is a list of sets; make it an indicator matrix with "
    "sklearn.preprocessing.MultiLabelBinarizer, or use PartialLabels.from_sets"
)
NOTHING_TO_LEARN = "every class is a candidate of every row, so there is nothing to learn from"


@dataclass
class Problem:
    """Samples and candidates, checked.

    Parameters
    ----------
    data : features or images
    classes : ndarray of shape (n_classes,)
        Sorted.
    candidates : bool ndarray or csr_array of shape (n_samples, n_classes)
        Sparse only where `check_problem` was asked for it.
    known : bool ndarray of shape (n_samples,)
        Rows whose label a human vouched for.
    scores : ndarray or csr_array of shape (n_samples, n_classes), or None
        Sparse only if the candidates are.
    votes : int ndarray of shape (n_samples, n_prompts) or None
    """

    data: object
    classes: np.ndarray
    candidates: np.ndarray
    known: np.ndarray
    scores: np.ndarray | None = None
    votes: np.ndarray | None = None

    @property
    def labelled(self):
        """ndarray of bool of shape (n_samples,): Rows of which not every class is a candidate."""
        return row_sizes(self.candidates) < self.candidates.shape[1]

    def labels(self, data, coded=False):
        """Return a `PartialLabels` with these labels and the given samples, or None.

        If `coded`, its classes are their indices, as -1 may be a class here, but not there.
        """
        classes = np.arange(len(self.classes)) if coded else self.classes
        parts = {"scores": self.scores, "votes": self.votes, "known": self.known}
        return PartialLabels(data, classes, self.candidates, **parts)


def check_problem(X, y, full=False, classes=None, sparse=False):
    """Bring what `fit` accepts to one form.

    Parameters
    ----------
    X : PartialLabels, features or images
    y : PartialLabels, array-like of shape (n_samples, n_classes) or (n_samples,), or None
    full : bool, default=False
        Whether every class may be a candidate of every row, as for who learns from scores.
    classes : ndarray of shape (n_classes,), default=None
        All classes that labels (n_samples,) may have, if they need not occur in them; sorted.
    sparse : bool, default=False
        Whether candidates, and scores given so, may be sparse, as they then are from `SPARSE_FROM`
        cells on. Otherwise both are made dense.

    Returns
    -------
    Problem

    Raises
    ------
    ValueError
        If y is missing, soft or ragged, has a label that is not among `classes`, or there are fewer
        than two classes or samples.
    """
    check_collection(X)
    if isinstance(X, PartialLabels):
        problem = _from_partial_labels(X.data, X, sparse)
    elif y is None:
        raise ValueError(
            "requires y to be passed, but the target y is None: give candidates (n_samples, "
            "n_classes), labels (n_samples,), or a PartialLabels as X"
        )
    elif isinstance(y, PartialLabels):
        check_consistent_length(X, y)
        problem = _from_partial_labels(X, y, sparse)
    else:
        y = y if sp.issparse(y) else as_array(y)
        check_consistent_length(X, y)
        if is_matrix(y):
            problem = _from_partial_labels(X, PartialLabels.from_candidates(y), sparse)
        else:
            problem = _from_labels(X, as_labels(y), classes, sparse)
    n_samples, n_classes = problem.candidates.shape
    if n_samples < 2:
        raise ValueError(f"training needs at least 2 samples; got n_samples = {n_samples}")
    if n_classes < 2:
        raise ValueError(
            "training needs at least 2 classes; the data has one class: "
            f"{problem.classes.tolist()[0]!r}"
        )
    if not (full or problem.labelled.any()):
        raise ValueError(NOTHING_TO_LEARN)
    return problem


def samples_of(X):
    """Return what a PartialLabels carries, or the samples as they are.

    Parameters
    ----------
    X : PartialLabels or samples

    Returns
    -------
    collection of samples

    Raises
    ------
    ValueError
        If there are none, or one that is no collection.
    TypeError
        If they have no order, or can be seen once only.
    """
    if isinstance(X, PartialLabels):
        X = X.data
    if X is None:
        raise ValueError(
            "X is None, or PartialLabels that carry no samples (data is None); pass them as X"
        )
    check_collection(X)
    return X


def check_features(estimator, X, reset, dtype):
    """Return the features (n_samples, n_features) of X, for a learner that takes nothing else.

    Parameters
    ----------
    estimator : estimator
        Its ``n_features_in_`` and ``feature_names_in_`` are set, or compared with X.
    X : PartialLabels or array-like of shape (n_samples, n_features)
    reset : bool
        Whether to set them.
    dtype : data-type or list of them

    Raises
    ------
    ValueError
        If X holds images or no samples, or does not match.
    """
    X = samples_of(X)
    if is_image_data(X):
        raise ValueError(
            f"{type(estimator).__name__} learns from features (n_samples, n_features), but X holds "
            "images; turn them into embeddings first, such as with "
            'VLMPartialAnnotator(output="embeddings")'
        )
    return validate_features(estimator, X, reset, dtype)


def validate_features(estimator, X, reset, dtype):
    """Do what scikit-learn's ``validate_data`` does, and name rows that are not finite.

    Parameters
    ----------
    estimator : estimator
        Its ``n_features_in_`` and ``feature_names_in_`` are set, or compared with X.
    X : array-like of shape (n_samples, n_features)
    reset : bool
        Whether to set them.
    dtype : data-type or list of them

    Returns
    -------
    ndarray of shape (n_samples, n_features)

    Raises
    ------
    ValueError
        If X is not numeric and finite, or does not match.
    """
    try:
        return validate_data(estimator, X, reset=reset, dtype=dtype)
    except ValueError as error:
        if not str(error).startswith("Input X contains"):
            raise
        # By another estimator, as this one may have been fitted on other features before.
        data = validate_data(BaseEstimator(), X, dtype=dtype, ensure_all_finite=False)
        wrong = {
            "NaN": np.isnan(data).any(axis=1),
            f"infinity or a value too large for {data.dtype}": np.isinf(data).any(axis=1),
        }
        found = [f"{name}: {name_rows(rows)}" for name, rows in wrong.items() if rows.any()]
        raise ValueError(
            f"Input X contains {'; '.join(found)}. Leave these rows out, or fill their values in,"
            " such as with sklearn.impute.SimpleImputer."
        ) from error


def check_magnitude(data, largest, name="X"):
    """Raise a ValueError if a feature is so large that sums of squares would overflow.

    Parameters
    ----------
    data : ndarray of shape (n_samples, n_features)
        At least one sample.
    largest : float
        Largest absolute value that is accepted.
    name : str, default="X"
        What the data are, for the error message.

    Examples
    --------
    >>> check_magnitude(np.array([[1.0, -1e200]]), 1e100)
    Traceback (most recent call last):
    ...
    ValueError: X is -1e+200 in row 0, column 1, too large to compute with: bring it within 1e+100
    """
    if max(data.max(), -data.min()) > largest:
        row, column = np.argwhere(np.abs(data) > largest)[0]
        raise ValueError(
            f"{name} is {data[row, column]:.3g} in row {row}, column {column}, too large to "
            f"compute with: bring it within {largest:.0e}"
        )


def forget_features(estimator):
    """Drop what a fit on features left about them, as images have no such things."""
    for name in ("n_features_in_", "feature_names_in_"):
        vars(estimator).pop(name, None)


def _is_large(n_samples, n_classes):
    return n_samples * n_classes >= SPARSE_FROM


def _from_partial_labels(data, labels, sparse):
    labels = labels.sort_classes()
    known = np.zeros(len(labels), dtype=bool) if labels.known is None else labels.known
    known = np.require(known, requirements="CW")  # torch wants to write, and no rows in reverse
    scores = labels.scores
    if sparse and _is_large(*labels.shape):
        candidates = labels.tocsr()
    else:
        candidates = np.require(labels.toarray(), requirements="CW")
        scores = as_dense(scores)
    return Problem(data, labels.classes, candidates, known, scores, labels.votes)


def as_array(y):
    """Return candidates or labels as an array; refuse lists of sets, and what has no rows."""
    try:
        array = np.asarray(y)
    except ValueError:  # numpy refuses lists of different lengths
        raise ValueError(LIST_OF_SETS) from None
    if array.ndim == 0:
        raise TypeError(f"y of type {type(y).__name__} is no list or array with one row a sample.")
    if array.ndim == 1 and array.dtype == object and len(array):
        sets = _is_set(array[0])
    else:
        sets = array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind in "US"
    if sets:
        raise ValueError(LIST_OF_SETS)
    return array


def _is_set(value):
    return isinstance(value, Collection) and not isinstance(value, (str, bytes))


def is_matrix(y):
    """Tell whether y, an array or sparse, is a candidate matrix and not one label a row."""
    return sp.issparse(y) or (y.ndim == 2 and y.shape[1] > 1)


def _from_labels(X, y, classes, sparse):
    check_classification_targets(y)
    unlabelled = unlabelled_rows(y)
    if unlabelled.all() and len(y):
        raise ValueError("every row of y is -1 (unlabelled), so there is nothing to learn from")
    if classes is None:
        classes, codes = np.unique(y[~unlabelled], return_inverse=True)
    else:
        labels = np.where(unlabelled, y[~unlabelled][:1], y)
        codes = encode_target(labels, classes, len(y), "fit")[~unlabelled]
    known = np.zeros(len(y), dtype=bool)
    if sparse and _is_large(len(y), len(classes)):
        votes = np.full((len(y), 1), -1)
        votes[~unlabelled, 0] = codes
        candidates = union_candidates(votes, len(classes), sparse=True)
        return Problem(X, classes, candidates, known)
    candidates = np.zeros((len(y), len(classes)), dtype=bool)
    candidates[unlabelled] = True
    candidates[~unlabelled, codes] = True
    return Problem(X, classes, candidates, known)


def as_labels(y):
    """Return labels as a one-dimensional array of numbers or strings.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, 1)

    Returns
    -------
    ndarray of shape (n_samples,)
        Where names and the number -1 are mixed, -1 has become "-1".

    Raises
    ------
    ValueError
        If a value is missing or a set, or names and numbers other than -1 are mixed.
    """
    y = column_or_1d(y, warn=True)
    if y.dtype.kind not in "fO":
        return y
    values = y.tolist()
    if any(map(_is_set, values)):
        raise ValueError(LIST_OF_SETS)
    missing = [not (isinstance(v, (str, Number, np.generic)) and v == v) for v in values]
    if any(missing):
        raise ValueError(f"Input y contains NaN: {name_rows(missing)}. Unlabelled rows are -1.")
    if y.dtype.kind == "f":
        assert_all_finite(y, input_name="y")
    kinds = {isinstance(value, str): value for value in values if value != -1}
    if len(kinds) > 1:
        raise ValueError(
            f"y mixes names and numbers, such as {kinds[True]!r} and {kinds[False]!r}: make all"
            " labels strings, or all numbers. Unlabelled rows are -1 among either."
        )
    return np.array(values)


def is_unlabelled(y):
    """Tell which labels, as returned by `as_labels`, are -1."""
    return y == (-1 if y.dtype.kind in "biuf" else "-1")


def unlabelled_rows(y):
    """Tell which labels mean none: -1, unless it is the negative class beside one other number."""
    unlabelled = is_unlabelled(y)
    if y.dtype.kind in "if" and len(np.unique(y[~unlabelled])) == 1:
        unlabelled[:] = False
    return unlabelled


def encode_target(y, classes, n_samples, name):
    """Return class indices (n_samples,) of labels.

    Raises
    ------
    ValueError
        If the length differs or a label is not among the classes.
    """
    y = as_labels(y).tolist()
    if len(y) != n_samples:
        raise ValueError(f"{name}: y has {len(y)} labels for {n_samples} samples")
    index = {c: i for i, c in enumerate(classes.tolist())}
    for row, label in enumerate(y):
        if label not in index:
            raise ValueError(
                f"{name}: row {row} has the unknown class {label!r}.{did_you_mean(label, classes)}"
            )
    return np.array([index[label] for label in y], dtype=np.intp)


def shares_by_class(shares, classes, name):
    """Return shares given by the names of classes in the order of the classes.

    Parameters
    ----------
    shares : mapping of class to share, pandas Series with the classes as index, or array-like
        An array is in this order already. A string or None is returned as it is.
    classes : ndarray of shape (n_classes,)
    name : str
        What the shares are called in errors.

    Returns
    -------
    ndarray of float of shape (n_classes,), or `shares`
        An array is of any shape.

    Raises
    ------
    ValueError
        If a class is unknown or missing, or a share is no number.

    Examples
    --------
    >>> shares_by_class({"dog": 1, "cat": 3}, np.array(["cat", "dog"]), "prior")
    array([3., 1.])
    """
    if hasattr(shares, "to_dict"):
        shares = shares.to_dict()
    if shares is None or isinstance(shares, str):
        return shares
    names = classes.tolist()
    if not isinstance(shares, Mapping):
        return _to_numbers(partial(np.asarray, dtype=np.float64), shares, name)
    for key in shares:
        if key not in names:
            raise ValueError(f"{name}: {key!r} is no class.{did_you_mean(key, names)}")
    if missing := [key for key in names if key not in shares]:
        raise ValueError(f"{name}: there is no share for {', '.join(map(str, missing))}.")
    what = f"{name}: the share of"
    return np.array([_to_numbers(float, shares[key], f"{what} {key!r}") for key in names])


def _to_numbers(convert, shares, what):
    try:
        return convert(shares)
    except (TypeError, ValueError):  # Python and NumPy say neither where nor what to do
        raise ValueError(
            f"{what} is {shares!r}. Give one number for each class: a list in the order of the"
            " sorted classes, or a mapping such as {'cat': 0.7, 'dog': 0.3}."
        ) from None


def last_step(estimator):
    """Return the estimator at the end of a pipeline and of those in it, or any other as it is."""
    while isinstance(estimator, Pipeline):
        estimator = estimator[-1]
    return estimator


def with_candidates(estimator, X, y):
    """Find the candidates to compare predictions with.

    Parameters
    ----------
    estimator : estimator
        Fitted; a classifier, or a pipeline that ends in one.
    X : PartialLabels or array-like
    y : PartialLabels, array-like of shape (n_samples, n_classes) or (n_samples,), or None
        Labels of shape (n_samples,) are no candidates.

    Returns
    -------
    estimator : estimator
        What predicts: the last step of a pipeline whose annotator was asked.
    X : PartialLabels or array-like
        What it predicts on.
    labels : PartialLabels

    Raises
    ------
    ValueError
        If there are no candidates.
    """
    if isinstance(y, PartialLabels):
        return estimator, X, y
    if sp.issparse(y) or np.ndim(y) == 2:
        return estimator, X, PartialLabels.from_candidates(y, classes=estimator.classes_)
    if isinstance(X, PartialLabels):
        return estimator, X, X
    if isinstance(estimator, Pipeline):
        # Step by step: estimator[:-1] seems not fitted if its last step has nothing to learn.
        for _, step in estimator.steps[:-1]:
            X = X if step in (None, "passthrough") else step.transform(X)
        return with_candidates(estimator.steps[-1][1], X, None)
    raise ValueError(
        "There are no candidates to compare predictions with: X must be a PartialLabels, the"
        " estimator a pipeline with an annotator, or y the candidates of shape (n_samples,"
        " n_classes)."
    )
