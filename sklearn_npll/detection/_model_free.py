"""Detectors that need no annotator, only the samples and their labels."""

from numbers import Integral, Real

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_random_state

from .._candidate_rows import fit_on_candidates
from .._compat import HasMethods, Interval, StrOptions
from .._distributions import restrict
from .._inputs import check_features
from .._messages import name_rows
from ._base import BaseNoiseDetector
from ._rules import (
    LossMixture,
    candidate_loss,
    candidate_mass,
    label_match,
    neighbor_votes,
)
from ._training import cross_val_proba, default_estimator, predict_columns


class _CrossValidatedDetector(BaseNoiseDetector):
    """Base of the detectors that compare labels with a classifier that has not seen them."""

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict_proba"]), None],
        "cv": ["cv_object"],
    }

    def _cross_validate(self, data, candidates, n_rounds=1):
        """Set `estimator_`, trained on all rows; return probabilities of each by others.

        And return which rows have a candidate that those others know.
        """
        estimator = default_estimator() if self.estimator is None else self.estimator
        weights = restrict(candidates, candidates)
        proba, weights, judged = cross_val_proba(estimator, data, weights, self.cv, n_rounds)
        if np.count_nonzero(weights.any(axis=0)) < 2:
            raise ValueError(
                f"{type(self).__name__} trains a classifier, but one class explains all labels; "
                "use NeighborVoteDetector, or give rows of other classes, too"
            )
        self.estimator_ = fit_on_candidates(estimator, data, weights)
        return proba, judged

    def _predict_proba(self, X):
        data = check_features(self, X, False, [np.float64, np.float32])
        return predict_columns(self.estimator_, data, len(self.classes_))


class SmallLossDetector(_CrossValidatedDetector):
    """Believe labels that a classifier trained on the other rows finds easy.

    A classifier predicts each row by cross-validation. The losses ``-log sum_S p``, with the sum
    over the candidates, are split by a mixture of two Gaussians, as DivideMix [2]_ splits those of
    a network; the posterior of the lower one is the clean score.

    Parameters
    ----------
    estimator : classifier or None, default=None
        Needs ``predict_proba`` and, for sets of several candidates, `sample_weight`. None is
        logistic regression with ``C=0.05`` on standardised features.
    cv : int, cross-validation generator or None, default=3
        Folds, by which each row is predicted once. None is scikit-learn's default.
    n_rounds : int, default=3
        Rounds of cross-validation for sets of several candidates, after each of which the
        candidates are weighted by the predictions.
    clean_threshold : float in [0, 1], default=0.5
        Clean probability above which a label is believed.
    random_state : int, RandomState instance or None, default=None
        Initial assignment of the Gaussians. The classifier's own random numbers are set in
        `estimator`, those of the folds in `cv`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Names of the classes.
    clean_mask_ : bool ndarray of shape (n_samples,)
        Rows whose labels are believed. Known rows always, rows without a label never.
    clean_score_ : ndarray of shape (n_samples,)
        Posterior probability of the lower Gaussian; 1 for known rows, 0 for rows without a label.
    noise_score_ : ndarray of shape (n_samples,)
        ``1 - clean_score_``.
    estimator_ : classifier
        The classifier, trained on all rows with a label. Its classes are indices of `classes_`.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X has string column names.

    See Also
    --------
    NeighborVoteDetector : Asks neighbours instead of a classifier.
    sklearn_npll.baselines.DivideMixClassifier : Splits by the losses of its networks.

    Notes
    -----
    The classifier learns from a set of candidates as from one row for each of them, of which it is
    given a dense copy: memory is that of the samples times the mean size of the sets. Their weights
    are equal at first and then, as in PRODEN, the predictions restricted to the set. `score_noise`
    compares the losses of new rows by `estimator_` with the same Gaussians.

    A row whose label no row of the other folds has, as of a class of a single row, cannot be
    judged: it is not clean, with the score 0, and the Gaussians are fitted without its loss.

    References
    ----------
    .. [1] E. Arazo, D. Ortego, P. Albert, N. O'Connor, K. McGuinness, "Unsupervised Label Noise
       Modeling and Loss Correction", ICML 2019.
    .. [2] J. Li, R. Socher, S. Hoi, "DivideMix: Learning with Noisy Labels as Semi-supervised
       Learning", ICLR 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import make_blobs
    >>> from sklearn_npll.detection import SmallLossDetector
    >>> X, y = make_blobs(200, centers=3, random_state=0)
    >>> noisy = np.where(np.arange(200) % 5 == 0, (y + 1) % 3, y)
    >>> detector = SmallLossDetector(random_state=0).fit(X, noisy)
    >>> bool((detector.clean_mask_ == (noisy == y)).mean() > 0.9)
    True
    """

    _parameter_constraints: dict = {
        **_CrossValidatedDetector._parameter_constraints,
        "n_rounds": [Interval(Integral, 1, None, closed="left")],
        "clean_threshold": [Interval(Real, 0, 1, closed="both")],
        "random_state": ["random_state"],
    }

    def __init__(self, estimator=None, *, cv=3, n_rounds=3, clean_threshold=0.5, random_state=None):
        self.estimator = estimator
        self.cv = cv
        self.n_rounds = n_rounds
        self.clean_threshold = clean_threshold
        self.random_state = random_state

    def _fit_scores(self, problem):
        labelled = ~problem.candidates.all(axis=1)
        candidates = problem.candidates[labelled]
        proba, judged = self._cross_validate(problem.data[labelled], candidates, self.n_rounds)
        loss, guessed = candidate_loss(proba, candidates), judged & ~problem.known[labelled]
        self._mixture = LossMixture(check_random_state(self.random_state)).fit(loss[guessed])
        score = np.zeros(len(labelled))
        score[labelled] = np.where(judged, self._mixture.clean_probability(loss), 0.0)
        return score > self.clean_threshold, score

    def _score(self, X, candidates):
        return self._mixture.clean_probability(candidate_loss(self._predict_proba(X), candidates))


class NeighborVoteDetector(BaseNoiseDetector):
    """Believe a label if the nearest neighbours vote for it.

    The voting rule of SimiFeat [1]_, on features such as embeddings of CLIP: the labels of the
    nearest neighbours are averaged, and a label is clean if it has the most votes. A neighbour with
    several candidates divides its vote evenly among them; a set is clean if it contains the winner.

    Parameters
    ----------
    n_neighbors : int, default=10
        Number of neighbours that vote, at most the number of other rows with a label.
    metric : str or callable, default="cosine"
        Distance, as in :class:`~sklearn.neighbors.NearestNeighbors`. The cosine suits embeddings;
        other features should be standardised and centred before.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Names of the classes.
    clean_mask_ : bool ndarray of shape (n_samples,)
        Rows whose labels are believed. Known rows always, rows without a label never.
    clean_score_ : ndarray of shape (n_samples,)
        Share of the votes for the candidates; 1 for known rows, 0 for rows without a label.
    noise_score_ : ndarray of shape (n_samples,)
        ``1 - clean_score_``.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X has string column names.

    See Also
    --------
    SmallLossDetector : Asks a classifier instead of neighbours.
    sklearn_npll.baselines.PLKNeighborsClassifier : Classifies by such votes.

    Notes
    -----
    A row has no vote about itself in `fit`. But in `predict_proba` and `score_noise` all rows of
    `fit` vote, so give these only new rows. Of equal classes the first wins, but none if all
    classes are equal. Rows without a label have no vote. SimiFeat's ranking rule, which needs an
    estimate of the noise rates, is not implemented.

    References
    ----------
    .. [1] Z. Zhu, Z. Dong, Y. Liu, "Detecting Corrupted Labels Without Training a Model to
       Predict", ICML 2022, arXiv:2110.06283.

    Examples
    --------
    >>> from sklearn_npll.detection import NeighborVoteDetector
    >>> X = [[4, 0], [4, 1], [5, 0], [5, 1], [0, 4], [1, 4], [0, 5], [1, 5]]
    >>> y = ["ant", "ant", "ant", "ant", "bee", "bee", "bee", "ant"]
    >>> detector = NeighborVoteDetector(n_neighbors=3).fit(X, y)
    >>> detector.clean_mask_
    array([ True,  True,  True,  True,  True,  True,  True, False])
    """

    _parameter_constraints: dict = {
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "metric": [str, callable],
    }

    def __init__(self, n_neighbors=10, *, metric="cosine"):
        self.n_neighbors = n_neighbors
        self.metric = metric

    def _fit_scores(self, problem):
        labelled = ~problem.candidates.all(axis=1)
        candidates = problem.candidates[labelled]
        if len(candidates) < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least 2 rows with a label to vote; got 1"
            )
        self._neighbors = NearestNeighbors(metric=self.metric).fit(problem.data[labelled])
        self._shares = restrict(candidates, candidates)
        votes = self._vote(None, min(self.n_neighbors, len(candidates) - 1))
        mask, score = np.zeros(len(labelled), dtype=bool), np.zeros(len(labelled))
        mask[labelled] = label_match(votes, candidates)
        score[labelled] = candidate_mass(votes, candidates)
        return mask, score

    def _vote(self, data, n_neighbors):
        return neighbor_votes(
            self._neighbors.kneighbors(data, n_neighbors, return_distance=False), self._shares
        )

    def _predict_proba(self, X):
        data = check_features(self, X, False, [np.float64, np.float32])
        return self._vote(data, min(self.n_neighbors, len(self._shares)))


class ConfidentLearningDetector(_CrossValidatedDetector):
    """Confident learning by the package cleanlab, for single labels.

    A classifier predicts each row by cross-validation, and cleanlab estimates from its
    probabilities which classes are taken for which, and which rows are mislabelled.

    Parameters
    ----------
    estimator : classifier or None, default=None
        Needs ``predict_proba``. None is logistic regression with ``C=0.05`` on standardised
        features.
    cv : int, cross-validation generator or None, default=3
        Folds, by which each row is predicted once. None is scikit-learn's default.
    filter_by : {"prune_by_noise_rate", "prune_by_class", "both", "confident_learning", \
"predicted_neq_given", "low_normalized_margin", "low_self_confidence"}, \
default="prune_by_noise_rate"
        Rule of :func:`cleanlab.filter.find_label_issues`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Names of the classes.
    clean_mask_ : bool ndarray of shape (n_samples,)
        Rows in which cleanlab finds no issue. Known rows always, rows without a label never.
    clean_score_ : ndarray of shape (n_samples,)
        Probability of the label by the classifier that has not seen it, cleanlab's
        self-confidence; 1 for known rows, 0 for rows without a label.
    noise_score_ : ndarray of shape (n_samples,)
        ``1 - clean_score_``.
    estimator_ : classifier
        The classifier, trained on all rows with a label. Its classes are indices of `classes_`.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X has string column names.

    See Also
    --------
    SmallLossDetector : Takes sets of candidates, too.

    Notes
    -----
    Needs ``pip install cleanlab``.

    References
    ----------
    .. [1] C. Northcutt, L. Jiang, I. Chuang, "Confident Learning: Estimating Uncertainty in Dataset
       Labels", JAIR 70, 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import make_blobs
    >>> from sklearn_npll.detection import ConfidentLearningDetector
    >>> X, y = make_blobs(200, centers=3, random_state=0)
    >>> noisy = np.where(np.arange(200) % 5 == 0, (y + 1) % 3, y)
    >>> detector = ConfidentLearningDetector().fit(X, noisy)  # doctest: +SKIP
    >>> (detector.clean_mask_ == (noisy == y)).mean() > 0.9  # doctest: +SKIP
    True
    """

    _parameter_constraints: dict = {
        **_CrossValidatedDetector._parameter_constraints,
        "filter_by": [
            StrOptions(
                {
                    "prune_by_noise_rate",
                    "prune_by_class",
                    "both",
                    "confident_learning",
                    "predicted_neq_given",
                    "low_normalized_margin",
                    "low_self_confidence",
                }
            )
        ],
    }

    def __init__(self, estimator=None, *, cv=3, filter_by="prune_by_noise_rate"):
        self.estimator = estimator
        self.cv = cv
        self.filter_by = filter_by

    def _fit_scores(self, problem):
        try:
            from cleanlab.filter import find_label_issues
            from cleanlab.rank import get_label_quality_scores
        except ImportError as error:
            raise ImportError("ConfidentLearningDetector needs `pip install cleanlab`") from error
        labelled = ~problem.candidates.all(axis=1)
        several = labelled & (problem.candidates.sum(axis=1) > 1)
        if several.any():
            raise ValueError(
                f"confident learning is for single labels, but {name_rows(several)} have several "
                "candidates; use another detector, such as SmallLossDetector"
            )
        candidates = problem.candidates[labelled]
        proba, _ = self._cross_validate(problem.data[labelled], candidates)
        present = candidates.any(axis=0)  # cleanlab wants no class without rows
        labels = candidates[:, present].argmax(axis=1)
        proba = proba[:, present] / proba[:, present].sum(axis=1, keepdims=True)
        issues = find_label_issues(labels, proba, filter_by=self.filter_by, n_jobs=1)
        mask, score = np.zeros(len(labelled), dtype=bool), np.zeros(len(labelled))
        mask[labelled] = ~issues
        score[labelled] = get_label_quality_scores(labels, proba, method="self_confidence")
        return mask, score
