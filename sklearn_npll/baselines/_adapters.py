"""Any scikit-learn classifier, trained on single labels made from the candidates."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._candidate_rows import estimator_has_predict_proba, fit_on_candidates
from .._compat import HasMethods, StrOptions, fit_context
from .._distributions import restrict
from .._evidence import annotator_shares, as_dense
from .._inputs import check_features, check_problem
from .._scoring import ScoreMixin
from .._typing import Array, Estimator, MatrixLike, Samples, Seed, Self
from .._unnamed import warn_of_unnamed
from ._aggregation import best_labels


def unanimous_labels(candidates):
    """Return the only candidate of each row.

    Parameters
    ----------
    candidates : bool ndarray of shape (n_samples, n_classes)

    Returns
    -------
    int ndarray of shape (n_samples,)
        Indices of classes; -1 where there are several candidates.
    """
    return np.where(candidates.sum(axis=1) == 1, candidates.argmax(axis=1), -1)


def soft_labels(labels):
    """Return the shares of the candidates in the scores, or else in the votes.

    Parameters
    ----------
    labels : PartialLabels

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        Rows of sum 1; uniform over the candidates where nothing prefers one to another.
    """
    candidates = labels.toarray()
    shares = annotator_shares(labels.scores, labels.votes, labels.shape[1])
    return restrict(candidates if shares is None else shares, candidates)


class PseudoLabelClassifier(MetaEstimatorMixin, ScoreMixin, ClassifierMixin, BaseEstimator):
    """Train any scikit-learn classifier on features and single labels made from the candidates.

    With ``labels="unanimous"`` samples with several candidates are unlabelled, which is what
    scikit-learn's semi-supervised learners are made for: `LabelSpreading`, `LabelPropagation`
    and `SelfTrainingClassifier`.

    Parameters
    ----------
    estimator : object
        Classifier, a clone of which is trained.
    labels : {"best", "unanimous", "known", "soft"}, default="best"
        From candidates to labels. "best" takes the candidate with the highest score, or with the
        most votes where there are no scores, or a random one. "unanimous" labels only rows with a
        single candidate, "known" only those that a human vouched for. "soft" repeats a row for
        each of its candidates, with the candidate's share in the scores, votes or number of
        candidates as its `sample_weight`, which may be that of the last step of a pipeline.
    random_state : int, RandomState instance or None, default=None
        Draws among candidates that are equally good in "best". The classifier's own random numbers
        are set in `estimator`.

    Attributes
    ----------
    estimator_ : object
        The trained classifier. Its classes are indices of `classes_`.
    classes_ : ndarray of shape (n_classes,)
        Names of the classes, including those that no row is labelled with.
    pseudo_labels_ : ndarray of shape (n_samples,) or (n_samples, n_classes)
        What was trained on: indices of `classes_`, -1 where unlabelled; with "soft" the shares,
        all zero where unlabelled.
    label_distributions_ : ndarray of shape (n_samples, n_classes)
        Purified labels of the training samples: the classifier's own ``label_distributions_``, if
        it has them, or else its predictions. Only if it has ``predict_proba``.
    transduction_ : ndarray of shape (n_samples,)
        Most probable purified label of each training sample.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X has string column names.

    See Also
    --------
    sklearn.semi_supervised.LabelSpreading : Spreads labels over a graph of the samples.
    sklearn.semi_supervised.SelfTrainingClassifier : Adds its confident predictions to the labels.
    PLKNeighborsClassifier : Learns from the candidates themselves.

    Notes
    -----
    Unlabelled rows are passed as -1. A classifier that takes -1 for a class, as supervised ones do,
    is trained again without these rows. A row in which every class is a candidate is unlabelled,
    unless scores or votes prefer a class and `labels` is "best" or "soft". The rows that "soft"
    repeats are a dense copy: memory is that of the samples times the mean size of the sets.

    `LabelSpreading` and `LabelPropagation` compare all pairs of samples, in memory that grows with
    their square, unless told to look at neighbours only by ``kernel="knn"``.

    References
    ----------
    .. [1] D.-H. Lee, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for
       Deep Neural Networks", ICML 2013 Workshop on Challenges in Representation Learning.
    .. [2] D. Zhou, O. Bousquet, T. N. Lal, J. Weston, B. Schölkopf, "Learning with Local and
       Global Consistency", NIPS 2003.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.semi_supervised import LabelSpreading
    >>> from sklearn_npll.baselines import PseudoLabelClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> candidates = np.eye(3, dtype=int)[y]
    >>> candidates[::2, 1] = 1  # half of the rows are unanimous, or of class 1
    >>> clf = PseudoLabelClassifier(LabelSpreading(kernel="knn"), labels="unanimous")
    >>> clf.fit(X, candidates).score(X, y) > 0.85
    True
    """

    # Tells scikit-learn before 1.6 that its checks cannot make one without arguments.
    _required_parameters = ["estimator"]

    _parameter_constraints = {
        "estimator": [HasMethods(["fit", "predict"])],
        "labels": [StrOptions({"best", "unanimous", "known", "soft"})],
        "random_state": ["random_state"],
    }

    def __init__(
        self, estimator: Estimator, *, labels: str = "best", random_state: Seed = None
    ) -> None:
        self.estimator = estimator
        self.labels = labels
        self.random_state = random_state

    # The parameters of the estimator are to be validated too.
    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Samples, y: MatrixLike | None = None) -> Self:
        """Make labels from the candidates and train a clone of the estimator on them.

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
            If X or y are malformed, X holds images, there are fewer than two classes or samples,
            fewer than two classes are left as labels, or `labels` is "soft", a row has several
            candidates and the estimator's ``fit`` has no `sample_weight`.

        Warns
        -----
        UnnamedClassWarning
            If the annotator never or hardly ever prefers a class, unless `labels` is "known".
        """
        problem = check_problem(X, y, full=self.labels in ("best", "soft"))
        data = check_features(self, problem.data, True, [np.float64, np.float32])
        self.classes_ = problem.classes
        if self.labels != "known":
            warn_of_unnamed(problem)
        labels = problem.labels(None, coded=True)
        if self.labels == "unanimous":
            codes = unanimous_labels(problem.candidates)
        elif self.labels == "known":
            codes = np.where(problem.known, problem.candidates.argmax(axis=1), -1)
        else:
            codes = best_labels(labels, self.random_state)
        self.pseudo_labels_ = codes
        if self.labels == "soft":
            self.pseudo_labels_ = np.where(codes[:, None] >= 0, soft_labels(labels), 0.0)
            self._check_number(np.count_nonzero(self.pseudo_labels_.any(axis=0)))
            self.estimator_ = fit_on_candidates(self.estimator, data, self.pseudo_labels_)
        else:
            self._check_number(len(np.unique(codes[codes >= 0])))
            self._fit_hard(data, codes)
        # of an earlier fit, of a classifier that had them
        self.__dict__.pop("label_distributions_", None)
        if hasattr(self.estimator_, "predict_proba"):
            own = getattr(self.estimator_, "label_distributions_", None)
            if own is None or own.shape[0] != len(data):  # not trained on these rows
                own = self.estimator_.predict_proba(data)
            self.label_distributions_ = self._all_columns(as_dense(own))
            self.transduction_ = self.classes_[self.label_distributions_.argmax(axis=1)]
        else:
            self.transduction_ = self.classes_[self.estimator_.predict(data)]
        return self

    def _fit_hard(self, data, codes):
        self.estimator_ = clone(self.estimator).fit(data, codes)
        if -1 in self.estimator_.classes_:  # no semi-supervised learner
            labelled = codes >= 0
            self.estimator_ = clone(self.estimator).fit(data[labelled], codes[labelled])

    @available_if(estimator_has_predict_proba)
    def predict_proba(self, X: Samples) -> Array:
        """Predict class probabilities.

        Parameters
        ----------
        X : PartialLabels or array-like of shape (n_samples, n_features)
            Samples as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of `classes_`; 0 for classes that no row was labelled with.
        """
        check_is_fitted(self)
        data = check_features(self, X, False, [np.float64, np.float32])
        return self._all_columns(self.estimator_.predict_proba(data))

    def predict(self, X: Samples) -> Array:
        """Predict classes, as the trained classifier does.

        Parameters
        ----------
        X : PartialLabels or array-like of shape (n_samples, n_features)
            Samples as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Names of classes.
        """
        check_is_fitted(self)
        return self.classes_[
            self.estimator_.predict(check_features(self, X, False, [np.float64, np.float32]))
        ]

    def _check_number(self, n_labels):
        if n_labels < 2:
            left = "no row with a label" if n_labels == 0 else "labels of one class only"
            few = self.labels in ("unanimous", "known")
            hint = '; labels="best" labels more rows' if few else ""
            raise ValueError(
                f'labels="{self.labels}" leaves {left}, so there is nothing to learn{hint}'
            )

    def _all_columns(self, proba):
        """Add columns of zeros for classes that the trained classifier has not seen."""
        distributions = np.zeros((len(proba), len(self.classes_)))
        distributions[:, self.estimator_.classes_] = proba
        return distributions
