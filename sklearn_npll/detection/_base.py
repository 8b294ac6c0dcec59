"""What all detectors of noisy labels share: input, attributes, scores of new rows, resampling."""

from abc import ABC, abstractmethod
from numbers import Number
from typing import Any

import numpy as np
from scipy import sparse as sp
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from .._compat import TagsMixin, fit_context
from .._evidence import spread_columns
from .._inputs import (
    Problem,
    as_array,
    as_labels,
    check_features,
    check_problem,
    encode_target,
    is_matrix,
    is_unlabelled,
)
from .._messages import did_you_mean, name_classes
from .._partial_labels import PartialLabels
from .._rows import take
from .._typing import Array, MatrixLike, Samples, Self
from ._rules import candidate_mass


def matrix_classes(n_columns, classes, owner):
    """Return the classes of the columns of a candidate matrix that does not name them.

    Names are sorted. But numbers are column numbers.

    Parameters
    ----------
    n_columns : int
    classes : ndarray of shape (n_classes,)
        Sorted.
    owner : str
        Whose classes they are, for the error message.

    Returns
    -------
    ndarray of shape (n_classes,)

    Raises
    ------
    ValueError
        If `classes` are of another number, or are numbers other than 0 to n_classes - 1.
    """
    if n_columns != len(classes):
        raise ValueError(f"y has {n_columns} columns, but {owner} has {len(classes)} classes")
    numbers = all(isinstance(name, Number) for name in classes.tolist())
    if numbers and classes.tolist() != list(range(n_columns)):
        raise ValueError(
            f"the columns of a candidate matrix are the classes 0 to {n_columns - 1}, but "
            f"{owner} has the classes {name_classes(classes.tolist())}: name the columns with "
            "PartialLabels.from_candidates(y, classes=...)"
        )
    return classes


def check_among(X, y, classes, owner):
    """Check X and y as `check_problem` does, with labels among classes that are known before.

    Parameters
    ----------
    X : PartialLabels, features or images
    y : PartialLabels, array-like of shape (n_samples, n_classes) or (n_samples,), or None
        See `matrix_classes` for the columns of a matrix.
    classes : ndarray of shape (n_classes,)
        In any order.
    owner : str
        Whose classes they are, for error messages.

    Returns
    -------
    Problem
        With these classes, sorted.

    Raises
    ------
    ValueError
        If X or y are malformed or there are other classes.
    """
    classes = np.sort(classes)
    if not isinstance(X, PartialLabels) and not isinstance(y, PartialLabels) and y is not None:
        y = y if sp.issparse(y) else as_array(y)
        if is_matrix(y):
            columns = matrix_classes(y.shape[1], classes, owner)
            y = PartialLabels.from_candidates(y, classes=columns)
    return align_classes(check_problem(X, y, classes=classes), classes, owner)


def align_classes(problem, classes, owner):
    """Reorder and complete the columns of a problem by the names of the classes.

    Parameters
    ----------
    problem : Problem
    classes : ndarray of shape (n_classes,)
        The classes that are wanted, among them all those of the problem.
    owner : str
        Whose classes they are, for the error message.

    Returns
    -------
    Problem
        Rows without a label are still without one.

    Raises
    ------
    ValueError
        If a class of the problem is not among `classes`.
    """
    names, index = problem.classes.tolist(), {c: i for i, c in enumerate(classes.tolist())}
    for name in names:
        if name not in index:
            raise ValueError(
                f"the labels have the class {name!r}, which {owner} does not know."
                f"{did_you_mean(name, classes)} Its classes are "
                f"{name_classes(classes.tolist())}; a candidate matrix has the classes 0 to "
                "n_classes - 1 unless it is a PartialLabels with names"
            )
    if names == classes.tolist():
        return problem
    columns = np.array([index[name] for name in names])
    candidates = spread_columns(problem.candidates, problem.classes, classes)
    candidates[problem.candidates.all(axis=1)] = True
    scores, votes = problem.scores, problem.votes
    return Problem(
        data=problem.data,
        classes=classes,
        candidates=candidates,
        known=problem.known,
        scores=None if scores is None else spread_columns(scores, problem.classes, classes),
        votes=None if votes is None else np.append(columns, -1)[votes],  # -1 stays -1
    )


def _check_one_source(X, y):
    """Raise a ValueError if y is given beside a PartialLabels, which has the labels to judge."""
    if isinstance(X, PartialLabels) and y is not None:
        raise ValueError(
            "X is a PartialLabels, whose candidates are the labels to judge, but there is a y, too."
            " To judge the candidates leave y out. To judge y pass X.data and y; to judge it by the"
            " scores or votes of X pass"
            " X.replace(candidates=X.classes == np.asarray(y)[:, None], known=None) alone."
        )


class BaseNoiseDetector(TagsMixin, BaseEstimator, ABC):
    """Base of the detectors of noisy labels.

    A label is clean if it is the true class. A set of candidates is clean if the true class is in
    it; a label is a set of one.

    A subclass defines ``_fit_scores(problem)``, which learns from a checked
    :class:`~sklearn_npll._inputs.Problem` and returns the mask and the clean score of all its
    rows, and ``_predict_proba(X)``. It may also override ``_check_samples``, to accept more than
    features, and ``_score``, to judge new rows otherwise than by their probabilities.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Names of the classes.
    clean_mask_ : bool ndarray of shape (n_samples,)
        Rows whose labels are believed. Known rows always, rows without a label never.
    clean_score_ : ndarray of shape (n_samples,)
        How likely the labels are clean, in [0, 1]; 1 for known rows, 0 for rows without a label.
    noise_score_ : ndarray of shape (n_samples,)
        ``1 - clean_score_``.
    n_features_in_ : int
        Number of features; only for features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X has string column names.

    See Also
    --------
    DeFTClassifier : Trains a classifier on the rows that a detector believes.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_npll.detection import BaseNoiseDetector
    >>> class SignDetector(BaseNoiseDetector):
    ...     def _fit_scores(self, problem):
    ...         score = self._proba(problem.data)[problem.candidates]
    ...         return score > 0.5, score
    ...
    ...     def _predict_proba(self, X):
    ...         return self._proba(self._check_samples(X, reset=False))
    ...
    ...     def _proba(self, data):
    ...         return np.where(np.arange(2) == (data[:, :1] > 0), 0.9, 0.1)
    >>> detector = SignDetector().fit([[-1.0], [2.0], [3.0]], ["minus", "plus", "minus"])
    >>> detector.clean_mask_
    array([ True,  True, False])
    >>> detector.fit_resample([[-1.0], [2.0], [3.0]], ["minus", "plus", "minus"])
    ([[-1.0], [2.0]], ['minus', 'plus'])
    >>> detector.score_noise([[5.0]], ["minus"]).round(1)
    array([0.9])
    """

    _parameter_constraints: dict = {}

    @fit_context(prefer_skip_nested_validation=False)  # nested estimators are the user's
    def fit(self, X: Samples, y: MatrixLike | None = None) -> Self:
        """Detect the rows whose labels are wrong.

        Parameters
        ----------
        X : PartialLabels, array-like of shape (n_samples, n_features), or images
            Samples. A `PartialLabels` brings its own samples and candidates, and there is no `y`.
        y : PartialLabels, array-like of shape (n_samples, n_classes) or (n_samples,), default=None
            Noisy labels, with -1 for unlabelled; or candidates: an indicator matrix, dense or CSR,
            in which a row of ones means unlabelled, with the classes 0 to n_classes - 1 or, if the
            annotator's are no numbers, those of the annotator, sorted. Beside exactly one other
            number, -1 is no missing label but the negative class.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If X or y are malformed or do not suit the detector, there is a y beside a
            `PartialLabels` as X, there are fewer than two classes or samples, or y is a matrix and
            the annotator's classes are other numbers than 0 to n_classes - 1.
        """
        _check_one_source(X, y)
        problem = self._check_problem(X, y)
        problem.data = self._check_samples(problem.data, reset=True)
        self.classes_ = problem.classes
        mask, score = self._fit_scores(problem)
        self.clean_score_ = _settle(score, problem)
        labelled = ~problem.candidates.all(axis=1)
        self.clean_mask_ = (np.asarray(mask, dtype=bool) | problem.known) & labelled
        self.noise_score_ = 1 - self.clean_score_
        return self

    def predict_proba(self, X: Samples) -> Array:
        """Predict class probabilities with the model behind the detector.

        Parameters
        ----------
        X : PartialLabels, array-like of shape (n_samples, n_features), or images
            Samples as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of `classes_`.
        """
        check_is_fitted(self)
        return self._predict_proba(X)

    def score_noise(self, X: Samples, y: MatrixLike | None = None) -> Array:
        """Score how likely the labels of new rows are wrong, without learning from them.

        Parameters
        ----------
        X : PartialLabels, array-like of shape (n_samples, n_features), or images
            Samples as in `fit`. A `PartialLabels` brings its own candidates, and there is no `y`.
        y : PartialLabels, array-like of shape (n_samples, n_classes) or (n_samples,), default=None
            Labels or candidates as in `fit`; the columns of a matrix are in the order of
            `classes_`, which are no numbers or 0 to n_classes - 1.

        Returns
        -------
        ndarray of shape (n_samples,)
            Scores in [0, 1]; 1 for rows without a label, 0 for known ones.

        Raises
        ------
        ValueError
            If y is missing, beside a `PartialLabels` as X, or of another length, or has a class
            that was not there in `fit`, or is a matrix and `classes_` are other numbers.
        """
        check_is_fitted(self)
        _check_one_source(X, y)
        problem = self._check_new(X, y)
        if isinstance(y, PartialLabels):
            X = y.replace(data=X)
        return 1 - _settle(self._score(X, problem.candidates), problem)

    def fit_resample(self, X: Samples, y: MatrixLike | None = None) -> tuple[Samples, Any]:
        """Fit, and return the rows that are clean.

        Parameters
        ----------
        X : PartialLabels, array-like of shape (n_samples, n_features), or images
            Samples as in `fit`.
        y : PartialLabels, array-like of shape (n_samples, n_classes) or (n_samples,), default=None
            Labels or candidates as in `fit`.

        Returns
        -------
        X_resampled : of the type of X
            The clean rows.
        y_resampled : of the type of y
            Their labels; None if y is None, as a `PartialLabels` X holds its own.
        """
        self.fit(X, y)
        rows = np.flatnonzero(self.clean_mask_)
        if y is not None and sp.issparse(y):
            y = y.tocsr()
        return take(X, rows), take(y, rows)

    @abstractmethod
    def _fit_scores(self, problem):
        """Learn from a checked problem and return mask and clean score of all its rows.

        Rows that are known or without a label get theirs from the base, whatever is returned.
        """

    @abstractmethod
    def _predict_proba(self, X):
        """Return class probabilities of samples as a user gave them."""

    def _score(self, X, candidates):
        """Return clean scores of samples as a user gave them with candidates (n, C)."""
        return candidate_mass(self._predict_proba(X), candidates)

    def _check_problem(self, X, y):
        return check_problem(X, y)

    def _check_samples(self, data, reset):
        """Check samples, which are features unless a subclass says otherwise."""
        return check_features(self, data, reset, [np.float64, np.float32])

    def _check_new(self, X, y):
        """Return the labels of new rows as a problem with the classes seen in `fit`."""
        labels = X if isinstance(X, PartialLabels) else y
        if labels is None:
            raise ValueError(
                "score_noise judges labels: pass y, or a PartialLabels as X, which has its own"
            )
        if not isinstance(labels, PartialLabels):
            check_consistent_length(X, labels)
            return self._encode(X, labels)
        if labels is y:
            check_consistent_length(X, labels)
        known = np.zeros(len(labels), dtype=bool) if labels.known is None else labels.known
        problem = Problem(X, labels.classes, labels.toarray(), known)
        return align_classes(problem, self.classes_, type(self).__name__)

    def _encode(self, X, y):
        n_classes = len(self.classes_)
        y = y if sp.issparse(y) else as_array(y)
        if is_matrix(y):
            matrix_classes(y.shape[1], self.classes_, type(self).__name__)
            candidates = PartialLabels.from_candidates(y).toarray()
        else:
            y = as_labels(y)
            unlabelled = np.zeros(len(y), dtype=bool)
            if -1 not in self.classes_.tolist():
                unlabelled = is_unlabelled(y)
            labels = np.where(unlabelled, self.classes_[0], y)
            codes = encode_target(labels, self.classes_, len(y), "score_noise")
            candidates = (np.arange(n_classes) == codes[:, None]) | unlabelled[:, None]
        return Problem(X, self.classes_, candidates, np.zeros(len(candidates), dtype=bool))

    def _tag_values(self):
        return {"target_tags.required": True, "input_tags.allow_nan": False}


def _settle(score, problem):
    """Clean scores in [0, 1]: 1 of known rows, 0 of rows without a label."""
    score = np.clip(np.asarray(score, dtype=np.float64), 0, 1)
    return np.where(problem.candidates.all(axis=1), 0.0, np.where(problem.known, 1.0, score))
