"""What the classic partial-label learners, which have no networks, share."""

import warnings
from numbers import Integral

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from .._compat import Interval, TagsMixin, fit_context
from .._inputs import check_features, check_magnitude, check_problem
from .._scoring import ScoreMixin
from .._typing import Array, MatrixLike, Samples, Self
from .._unnamed import warn_of_unnamed

LARGEST_FEATURE = 1e100  # squares of more, summed, might leave double precision


class ClassicPartialLabelClassifier(TagsMixin, ScoreMixin, ClassifierMixin, BaseEstimator):
    """What the classic learners share: input, scaling, disambiguation, prediction and score.

    A subclass defines ``_fit(data, candidates)``, which learns and returns the label distributions
    of its rows, and ``_predict_distributions(data)``.
    """

    _parameter_constraints = {"standardize": ["boolean"]}

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Samples, y: MatrixLike | None = None) -> Self:
        """Learn from candidate labels.

        Parameters
        ----------
        X : PartialLabels or array-like of shape (n_samples, n_features)
            Features. A `PartialLabels` brings its own samples and candidates; `y` is then ignored,
            so that the true labels a search passes for scoring never train.
        y : PartialLabels, array-like of shape (n_samples, n_classes) or (n_samples,), default=None
            Candidates: an indicator matrix, dense or CSR, in which a row of ones means unlabelled,
            with the classes 0 to n_classes - 1; or one label a row, with -1 for unlabelled. Beside
            exactly one other number, -1 is no missing label but the negative class.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If X or y are malformed, X holds images or values beyond 1e100, or there are fewer than
            two classes or samples.

        Warns
        -----
        UnnamedClassWarning
            If the annotator never or hardly ever prefers a class, which then is hardly learned.
        """
        problem = check_problem(X, y)
        data = self._check_features(problem.data, reset=True)
        self.classes_ = problem.classes
        warn_of_unnamed(problem)
        self._scaler = StandardScaler().fit(data) if self.standardize else None
        data = self._scale(data)
        labelled = ~problem.candidates.all(axis=1)
        distributions = np.empty(problem.candidates.shape)
        distributions[labelled] = self._fit(data[labelled], problem.candidates[labelled])
        if not labelled.all():
            distributions[~labelled] = self._predict_distributions(data[~labelled])
        self.label_distributions_ = distributions
        self.transduction_ = self.classes_[distributions.argmax(axis=1)]
        return self

    def predict_proba(self, X: Samples) -> Array:
        """Predict class probabilities, which are not calibrated.

        Parameters
        ----------
        X : PartialLabels or array-like of shape (n_samples, n_features)
            Samples as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of `classes_`.
        """
        check_is_fitted(self)
        return self._predict_distributions(self._scale(self._check_features(X, reset=False)))

    def predict(self, X: Samples) -> Array:
        """Predict the most probable class.

        Parameters
        ----------
        X : PartialLabels or array-like of shape (n_samples, n_features)
            Samples as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Names of classes.
        """
        proba = self.predict_proba(X)
        return self.classes_[proba.argmax(axis=1)]

    def _check_features(self, X, reset):
        data = check_features(self, X, reset, np.float64)
        check_magnitude(data, LARGEST_FEATURE)
        return data

    def _scale(self, data):
        if self._scaler is not None:
            data = self._scaler.transform(data)
            check_magnitude(data, LARGEST_FEATURE, "standardised X")
        return data

    def _warn_of_limit(self):
        """Warn that `max_iter` ended the training, not `tol`."""
        warnings.warn(
            f"{type(self).__name__} stopped at max_iter={self.max_iter} before it met "
            f"tol={self.tol}; raise max_iter or tol",
            ConvergenceWarning,
            stacklevel=5,  # the caller of fit
        )

    def _tag_values(self):
        return {"input_tags.allow_nan": False}


class NeighborsClassifier(ClassicPartialLabelClassifier):
    """What the learners that look at neighbours share."""

    _parameter_constraints = {
        **ClassicPartialLabelClassifier._parameter_constraints,
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
    }

    def _fit_neighbors(self, data):
        """Remember the rows and find the neighbours of each among the others."""
        self._neighbors = NearestNeighbors(n_neighbors=min(self.n_neighbors, len(data))).fit(data)
        n_neighbors = min(self.n_neighbors, len(data) - 1)
        if not n_neighbors:  # scikit-learn refuses to look for none
            return np.zeros((len(data), 0)), np.zeros((len(data), 0), dtype=int)
        return self._neighbors.kneighbors(n_neighbors=n_neighbors)


class LinearClassifier(ClassicPartialLabelClassifier):
    """What the learners with one linear score a class share."""

    def _predict_distributions(self, data):
        return softmax(data @ self.coef_.T + self.intercept_, axis=1)
