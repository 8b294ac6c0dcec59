"""Learning from the rows a detector believes: the second phase of DeFT."""

import warnings
from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._candidate_rows import estimator_has_predict_proba, weight_name
from .._compat import HasMethods, Interval, StrOptions, fit_context
from .._evidence import spread_columns
from .._images import check_collection, check_not_empty, is_image_data
from .._inputs import check_features, check_problem, forget_features, last_step
from .._partial_labels import PartialLabels
from .._rows import take
from .._scoring import ScoreMixin
from .._typing import Array, Estimator, MatrixLike, Samples, Self
from ._base import check_among
from ._rules import add_best, best_candidate


def accepts_candidates(estimator):
    """Tell whether a classifier, or the last step of a pipeline, is one of this package."""
    return isinstance(last_step(estimator), ScoreMixin)


class DeFTClassifier(MetaEstimatorMixin, ScoreMixin, ClassifierMixin, BaseEstimator):
    """Train any classifier on the rows whose labels a detector believes.

    A detector judges the labels, and a classifier is trained on the clean rows alone, or on all
    rows weighted by their clean scores. This is how DeFT [1]_ divides the work; any detector and
    any classifier will do.

    Parameters
    ----------
    detector : object
        Detector, a clone of which is fitted: any estimator with ``clean_mask_``,
        ``clean_score_``, ``classes_`` and ``predict_proba``.
    estimator : object
        Classifier, a clone of which is trained: of this package, of scikit-learn, or a pipeline
        that ends in one.
    use : {"subset", "weights"}, default="subset"
        Whether to train on the clean rows, or on all rows with the clean scores as their
        `sample_weight`.
    min_per_class : int, default=1
        With ``use="subset"``, least number of rows of each class. A class of which fewer are clean
        gets its rows of the highest clean scores as well, with a warning. 0 lets classes go.

    Attributes
    ----------
    detector_ : object
        The fitted detector.
    estimator_ : object
        The trained classifier.
    classes_ : ndarray of shape (n_classes,)
        Names of the classes, those of the detector.
    kept_mask_ : bool ndarray of shape (n_samples,)
        Rows that the classifier was trained on.
    n_features_in_ : int
        Number of features; only for features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X has string column names.

    See Also
    --------
    BaseNoiseDetector : What detectors have in common.
    sklearn_npll.CoRegClassifier : Divides the rows itself, or by a detector, and learns from all.

    Notes
    -----
    Classifiers of this package learn from the sets of candidates, and from the scores and votes
    there may be. Others are given a single label: of several candidates the one most probable to
    the detector. Rows without a label are never trained on.

    References
    ----------
    .. [1] T. Wei, H.-T. Li, C.-S. Li, J.-X. Shi, Y.-F. Li, M.-L. Zhang, "Vision-Language Models are
       Strong Noisy Label Detectors", NeurIPS 2024, arXiv:2409.19696.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn_npll.detection import DeFTClassifier, SmallLossDetector
    >>> X, y = load_iris(return_X_y=True)
    >>> rng = np.random.default_rng(0)
    >>> noisy = np.where(rng.random(150) < 0.3, (y + rng.integers(1, 3, 150)) % 3, y)
    >>> student = KNeighborsClassifier(1)
    >>> student.fit(X, noisy).score(X, y) > 0.8
    False
    >>> clf = DeFTClassifier(SmallLossDetector(random_state=0), student).fit(X, noisy)
    >>> clf.score(X, y) > 0.9
    True
    """

    # Tells scikit-learn before 1.6 that its checks cannot make one without arguments.
    _required_parameters = ["detector", "estimator"]

    _parameter_constraints: dict = {
        "detector": [HasMethods(["fit", "predict_proba"])],
        "estimator": [HasMethods(["fit", "predict"])],
        "use": [StrOptions({"subset", "weights"})],
        "min_per_class": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(
        self,
        detector: Estimator,
        estimator: Estimator,
        *,
        use: str = "subset",
        min_per_class: int = 1,
    ) -> None:
        self.detector = detector
        self.estimator = estimator
        self.use = use
        self.min_per_class = min_per_class

    # The parameters of detector and estimator are to be validated too.
    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Samples, y: MatrixLike | None = None) -> Self:
        """Detect the clean rows and train a clone of the estimator on them.

        Parameters
        ----------
        X : PartialLabels, array-like of shape (n_samples, n_features), or images
            Samples that both the detector and the estimator accept. A `PartialLabels` brings its
            own samples and candidates; `y` is then ignored.
        y : PartialLabels, array-like of shape (n_samples, n_classes) or (n_samples,), default=None
            Noisy labels, with -1 for unlabelled; or candidates: an indicator matrix, dense or CSR,
            in which a row of ones means unlabelled, with the classes 0 to n_classes - 1 or, if the
            detector's are no numbers, those of the detector, sorted. Beside exactly one other
            number, -1 is no missing label but the negative class.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If X or y are malformed or do not suit the detector, no row is left, or rows are to be
            weighted and the estimator's ``fit`` has no `sample_weight`.
        """
        name = weight_name(self.estimator) if self.use == "weights" else None
        data = self._check_samples(check_problem(X, y).data, reset=True)
        noisy = None if isinstance(X, PartialLabels) else y  # y beside them is for a scorer
        self.detector_ = clone(self.detector).fit(X, noisy)
        problem = check_among(X, y, np.asarray(self.detector_.classes_), "the detector")
        self.classes_ = problem.classes
        codes = self._codes(problem)
        score = self.detector_.clean_score_
        if self.use == "weights":
            self.kept_mask_ = (codes >= 0) & (score > 0)
        else:
            self.kept_mask_ = self._enough(self.detector_.clean_mask_, codes)
        rows = np.flatnonzero(self.kept_mask_)
        if not len(rows):
            raise ValueError("the detector believes no row, so there is nothing to learn from")
        weights = {} if name is None else {name: score[rows]}
        labels = self._labels(problem, codes, rows)
        self.estimator_ = clone(self.estimator).fit(take(data, rows), labels, **weights)
        return self

    def predict(self, X: Samples) -> Array:
        """Predict classes, as the trained classifier does.

        Parameters
        ----------
        X : PartialLabels, array-like of shape (n_samples, n_features), or images
            Samples as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Names of classes.
        """
        check_is_fitted(self)
        return self.estimator_.predict(self._check_samples(X, reset=False))

    @available_if(estimator_has_predict_proba)
    def predict_proba(self, X: Samples) -> Array:
        """Predict class probabilities, as the trained classifier does.

        Parameters
        ----------
        X : PartialLabels, array-like of shape (n_samples, n_features), or images
            Samples as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of `classes_`; 0 for classes without rows to train on.
        """
        check_is_fitted(self)
        own = self.estimator_.predict_proba(self._check_samples(X, reset=False))
        return spread_columns(np.asarray(own, float), self.estimator_.classes_, self.classes_)

    def _check_samples(self, X, reset):
        """Return features as an array, images and data frames as they are."""
        data = X.data if isinstance(X, PartialLabels) else X
        if data is not None:
            check_collection(data)
            if is_image_data(data):
                check_not_empty(data)
                if reset:
                    forget_features(self)
                return data
        features = check_features(self, data, reset, [np.float64, np.float32])
        return data if hasattr(data, "iloc") else features  # a pipeline may select columns by name

    def _codes(self, problem):
        """Class of each row: its most probable candidate; -1 without a label."""
        candidates = problem.candidates
        codes, labelled = candidates.argmax(axis=1), ~candidates.all(axis=1)
        several = labelled & (candidates.sum(axis=1) > 1)
        if several.any():
            samples = take(problem.labels(problem.data), np.flatnonzero(several))
            proba = self.detector_.predict_proba(samples)
            proba = spread_columns(np.asarray(proba), self.detector_.classes_, self.classes_)
            codes[several] = best_candidate(proba, candidates[several])
        return np.where(labelled, codes, -1)

    def _enough(self, mask, codes):
        """Add the best rows of classes of which too few are clean, of those with a label."""
        mask = mask & (codes >= 0)
        kept = add_best(mask, self.detector_.clean_score_, codes, self.min_per_class)
        added = np.unique(codes[kept & ~mask])
        if len(added):
            names = ", ".join(map(repr, self.classes_[added].tolist()))
            warnings.warn(
                f"fewer than min_per_class={self.min_per_class} rows are clean of {names}, so rows "
                "of the highest clean scores were added",
                UserWarning,
                stacklevel=4,  # the caller of fit
            )
        return kept

    def _labels(self, problem, codes, rows):
        """Labels of the kept rows, in the form that the estimator learns from."""
        # -1 cannot be a class of PartialLabels, and as a class it has single labels beside it
        if accepts_candidates(self.estimator) and -1 not in self.classes_.tolist():
            return take(problem.labels(None), rows)
        return self.classes_[codes[rows]]
