"""Detectors that ask the annotator: label match and CLIPCleaner."""

import copy
from numbers import Real
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.linear_model import LogisticRegression
from sklearn.utils import assert_all_finite, check_random_state

from .._candidate_rows import fit_on_candidates
from .._compat import HasMethods, Interval
from .._distributions import restrict
from .._evidence import annotator_shares, as_dense, spread_columns
from .._images import check_collection, check_not_empty, is_image_data, n_images
from .._inputs import Problem, check_features, forget_features
from .._partial_labels import PartialLabels
from .._typing import Estimator, Seed
from ..annotators._members import needs_labels
from ._base import BaseNoiseDetector, align_classes, check_among
from ._rules import (
    LossMixture,
    add_best,
    best_candidate,
    candidate_loss,
    candidate_mass,
    consistency,
    label_match,
)
from ._training import cross_val_proba, predict_columns


def fitted_annotator(annotator, X):
    """Return an annotator that has classes: a copy, or a clone fitted on samples alone.

    Parameters
    ----------
    annotator : object with predict_proba
    X : PartialLabels or samples
        Samples to fit on.

    Returns
    -------
    object
        Shallow copy of one that is fitted, as fitting the annotator again later, with other
        classes, is to have no effect on who took it.

    Raises
    ------
    ValueError
        If it would have to be fitted on labels.
    """
    check_collection(X)
    data = annotator_samples(X)
    if hasattr(annotator, "classes_"):
        return copy.copy(annotator)
    message = (
        f"the annotator, a {type(annotator).__name__}, has no classes_: one that learns from "
        "labels must have been fitted before, on other labels than those it is to judge, and comes "
        "through a clone, as DeFTClassifier and CoRegClassifier make it, only inside "
        "sklearn.frozen.FrozenEstimator"
    )
    if is_classifier(annotator) or not hasattr(annotator, "fit") or needs_labels(annotator):
        raise ValueError(message)
    try:
        return clone(annotator).fit(data)
    except ValueError as error:
        if "requires y to be passed" not in str(error):  # what scikit-learn's checks ask for
            raise
        raise ValueError(message) from error


def annotator_samples(X):
    """Return the samples of X, a PartialLabels or samples, which an annotator is to see."""
    data = X.data if isinstance(X, PartialLabels) else X
    if data is None:
        raise ValueError(
            "the annotator needs samples, but X is None, or PartialLabels that carry no samples "
            "(data is None)"
        )
    return data


class AnnotatorDetector(BaseNoiseDetector):
    """Base of the detectors that compare labels with an annotator's probabilities.

    Parameters
    ----------
    annotator : object or None
    """

    _parameter_constraints: dict = {"annotator": [HasMethods(["predict_proba"]), None]}

    def _check_problem(self, X, y):
        if self.annotator is None:
            vars(self).pop("annotator_", None)  # of an earlier fit
            return super()._check_problem(X, y)
        self.annotator_ = fitted_annotator(self.annotator, X)
        return check_among(X, y, np.asarray(self.annotator_.classes_), "the annotator")

    def _check_samples(self, data, reset):
        """Check what may be images, features or, with scores, nothing at all."""
        check_collection(data)
        if data is not None and not is_image_data(data):
            check_features(self, data, reset, [np.float64, np.float32])
            return data  # as given, as the annotator may want the names of columns
        if data is not None:
            check_not_empty(data)
        if reset:
            forget_features(self)
        return data

    def _zero_shot(self, data, scores, votes):
        """Return the annotator's probabilities (n, C), in the order of `classes_`."""
        n_classes = len(self.classes_)
        if hasattr(self, "annotator_"):
            own = np.asarray(self.annotator_.classes_)
            if set(own.tolist()) != set(self.classes_.tolist()):
                raise ValueError(
                    "the annotator has been fitted again, with other classes than when "
                    f"{type(self).__name__} was: fit the detector again, too"
                )
            scores = np.asarray(self.annotator_.predict_proba(data))
            if scores.shape != (n_images(data), n_classes):
                raise ValueError(
                    f"predict_proba of the annotator returned the shape {scores.shape} for "
                    f"{n_images(data)} samples and {n_classes} classes_"
                )
            assert_all_finite(scores, input_name="the annotator's probabilities")
            if own.tolist() != self.classes_.tolist():
                scores = spread_columns(scores, own, self.classes_)
        elif scores is None and votes is None:
            raise ValueError(
                f"{type(self).__name__} needs the annotator's opinion: pass annotator=, an object "
                "with predict_proba and classes_ such as a VLMPartialAnnotator, or fit a "
                "PartialLabels with scores or votes, whose candidates are the labels to judge"
            )
        return annotator_shares(scores, votes, n_classes)

    def _zero_shot_of(self, X):
        """Return the annotator's probabilities of samples as a user gave them."""
        labels, scores, votes = None, None, None
        if isinstance(X, PartialLabels):
            labels, X = X, X.data
        self._check_samples(X, reset=False)
        if hasattr(self, "annotator_"):
            X = annotator_samples(X)
        elif labels is not None:
            parts = (labels.toarray(), labels.known, as_dense(labels.scores), labels.votes)
            problem = Problem(X, labels.classes, *parts)
            problem = align_classes(problem, self.classes_, type(self).__name__)
            scores, votes = problem.scores, problem.votes
        return self._zero_shot(X, scores, votes)


class LabelMatchDetector(AnnotatorDetector):
    """Believe a label if the annotator's most probable class agrees.

    A label is clean if it is the annotator's zero-shot prediction, a set of candidates if it
    contains the prediction. There is nothing to learn, and every other detector should be better
    than this.

    Parameters
    ----------
    annotator : object or None, default=None
        Anything with ``predict_proba(X)`` and ``classes_``, such as a `VLMPartialAnnotator` or a
        classifier trained on other data. One that is not fitted is cloned and fitted on the samples
        alone, which suits the `VLMPartialAnnotator`; one that is fitted is used as it is, by a
        shallow copy. `DeFTClassifier` and `CoRegClassifier` clone, so give them one that learns
        from labels inside :class:`~sklearn.frozen.FrozenEstimator`. None uses the scores, or else
        the votes, of the `PartialLabels` given as X or y.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Names of the classes: those of the annotator, among which the labels must be, or without
        one those of the labels.
    clean_mask_ : bool ndarray of shape (n_samples,)
        Rows whose labels are believed. Known rows always, rows without a label never.
    clean_score_ : ndarray of shape (n_samples,)
        Sum of the annotator's probabilities over the candidates; 1 for known rows, 0 for rows
        without a label.
    noise_score_ : ndarray of shape (n_samples,)
        ``1 - clean_score_``.
    annotator_ : object
        The fitted annotator; only with `annotator`.
    n_features_in_ : int
        Number of features; only for features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X has string column names.

    See Also
    --------
    CLIPCleanerDetector : Asks the annotator and a classifier.
    VLMPartialAnnotator : Annotates images with a vision-language model.

    Notes
    -----
    Labels made by the annotator itself always agree with it: candidates that hold its most probable
    class are all found clean. The detector is for labels from elsewhere, such as humans or the web.

    Of several most probable classes the first counts. But where the annotator finds all classes
    equally probable, as where it abstained, it has no opinion, and no label is clean.

    References
    ----------
    .. [1] A. Radford et al., "Learning Transferable Visual Models From Natural Language
       Supervision", ICML 2021, arXiv:2103.00020.

    Examples
    --------
    >>> from sklearn_npll import PartialLabels
    >>> from sklearn_npll.detection import LabelMatchDetector
    >>> scores = [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]]
    >>> candidates = [[1, 0, 0], [0, 1, 1], [0, 1, 0]]
    >>> labels = PartialLabels(None, ["ant", "bee", "cat"], candidates, scores=scores)
    >>> detector = LabelMatchDetector().fit(labels)
    >>> detector.clean_mask_
    array([ True,  True, False])
    >>> detector.clean_score_.round(1)
    array([0.7, 0.9, 0.2])
    """

    def __init__(self, annotator: Estimator = None) -> None:
        self.annotator = annotator

    def _fit_scores(self, problem):
        proba = self._zero_shot(problem.data, problem.scores, problem.votes)
        candidates = problem.candidates
        return label_match(proba, candidates), candidate_mass(proba, candidates)

    def _predict_proba(self, X):
        return self._zero_shot_of(X)


class CLIPCleanerDetector(AnnotatorDetector):
    """CLIPCleaner: believe labels that the annotator and a classifier both find easy.

    Two models give probabilities: the annotator, which has not seen the labels, and a classifier
    trained on them. With each, a label has to pass two tests. Its loss has to be of the lower of
    two Gaussians fitted to the losses of its class. And it has to be nearly as probable as the most
    probable class. Labels that pass all four are clean.

    Parameters
    ----------
    annotator : object or None, default=None
        Anything with ``predict_proba(X)`` and ``classes_``, such as a `VLMPartialAnnotator` or a
        classifier trained on other data. One that is not fitted is cloned and fitted on the samples
        alone, which suits the `VLMPartialAnnotator`; one that is fitted is used as it is, by a
        shallow copy. `DeFTClassifier` and `CoRegClassifier` clone, so give them one that learns
        from labels inside :class:`~sklearn.frozen.FrozenEstimator`. None uses the scores, or else
        the votes, of the `PartialLabels` given as X or y.
    estimator : classifier or None, default=None
        The classifier, which needs ``predict_proba`` and, for sets of several candidates,
        `sample_weight`. None is logistic regression with balanced classes. It is trained on the
        features as they are; those of other data than embeddings should be standardised before.
    clean_threshold : float in [0, 1], default=0.5
        Least posterior probability of the lower Gaussian.
    consistency_threshold : float in [0, 1], default=0.8
        Least ratio of the probability of the label to that of the most probable class.
    cv : int, cross-validation generator or None, default=None
        None predicts the rows that the classifier was trained on, as published, which suits linear
        classifiers. Otherwise each row is predicted by a classifier that has not seen it.
    random_state : int, RandomState instance or None, default=None
        Initial assignment of the Gaussians. The classifier's own random numbers are set in
        `estimator`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Names of the classes: those of the annotator, among which the labels must be, or without
        one those of the labels.
    clean_mask_ : bool ndarray of shape (n_samples,)
        Rows whose labels are believed. Known rows always, rows without a label never; and of each
        class at least the row of the highest score.
    clean_score_ : ndarray of shape (n_samples,)
        Mean of both posteriors and both ratios; 1 for known rows, 0 for rows without a label.
    noise_score_ : ndarray of shape (n_samples,)
        ``1 - clean_score_``.
    annotator_ : object
        The fitted annotator; only with `annotator`.
    estimator_ : classifier
        The classifier, trained on all rows with a label. Its classes are indices of `classes_`.
    n_features_in_ : int
        Number of features; only for features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X has string column names.

    See Also
    --------
    LabelMatchDetector : Asks the annotator alone.
    SmallLossDetector : Asks a classifier alone.

    Notes
    -----
    Images need an annotator with a method ``embed(X)``, as the `VLMPartialAnnotator` has, for the
    classifier learns from embeddings.

    The published method is for single labels. With several candidates, the probability of a label
    is the sum over the candidates, and the class of a row, within which losses are compared, is the
    candidate that the model in question finds most probable. The classifier learns from a row for
    each candidate, weighted by its share in the annotator's probabilities, of which it is given a
    dense copy: memory is that of the samples times the mean size of the sets.

    A model that finds all classes equally probable has no opinion: the ratio of such a row is 0.

    How classes are described to a vision-language model is up to the annotator, and so is the
    temperature of its probabilities: the published one, 0.07 on cosine similarities, is less sharp
    than that of most models, 0.01. The sharper, the more labels fail the test of the ratio.
    `predict_proba` returns the mean of both models.

    References
    ----------
    .. [1] C. Feng, G. Tzimiropoulos, I. Patras, "CLIPCleaner: Cleaning Noisy Labels with CLIP",
       ACM Multimedia 2024, arXiv:2408.10012.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import make_blobs
    >>> from sklearn_npll import PartialLabels
    >>> from sklearn_npll.detection import CLIPCleanerDetector
    >>> X, y = make_blobs(200, centers=3, random_state=0)
    >>> scores = np.where(np.arange(3) == y[:, None], 0.8, 0.1)
    >>> noisy = np.where(np.arange(200) % 4 == 0, (y + 1) % 3, y)
    >>> candidates = np.arange(3) == noisy[:, None]
    >>> labels = PartialLabels(X, np.arange(3), candidates, scores=scores)
    >>> detector = CLIPCleanerDetector(random_state=0).fit(labels)
    >>> bool((noisy == y)[detector.clean_mask_].all())
    True
    >>> X_clean, y_clean = detector.fit_resample(X, labels)
    """

    _parameter_constraints: dict = {
        **AnnotatorDetector._parameter_constraints,
        "estimator": [HasMethods(["fit", "predict_proba"]), None],
        "clean_threshold": [Interval(Real, 0, 1, closed="both")],
        "consistency_threshold": [Interval(Real, 0, 1, closed="both")],
        "cv": ["cv_object"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        annotator: Estimator = None,
        *,
        estimator: Estimator = None,
        clean_threshold: float = 0.5,
        consistency_threshold: float = 0.8,
        cv: Any = None,
        random_state: Seed = None,
    ) -> None:
        self.annotator = annotator
        self.estimator = estimator
        self.clean_threshold = clean_threshold
        self.consistency_threshold = consistency_threshold
        self.cv = cv
        self.random_state = random_state

    def _fit_scores(self, problem):
        rng = check_random_state(self.random_state)
        labelled = ~problem.candidates.all(axis=1)
        candidates = problem.candidates[labelled]
        features = self._features(problem.data)[labelled]
        zero_shot = self._zero_shot(problem.data, problem.scores, problem.votes)[labelled]
        estimator = self.estimator
        if estimator is None:
            estimator = LogisticRegression(class_weight="balanced", max_iter=1000)
        weights = restrict(zero_shot, candidates)
        if np.count_nonzero(weights.any(axis=0)) < 2:
            raise ValueError(
                "CLIPCleanerDetector trains a classifier, but all labels are of one class; use "
                "LabelMatchDetector, which only asks the annotator"
            )
        self.estimator_ = fit_on_candidates(estimator, features, weights)
        if self.cv is None:
            learnt = predict_columns(self.estimator_, features, len(self.classes_))
        else:
            learnt, *_ = cross_val_proba(estimator, features, weights, self.cv)
        self._mixtures = [
            _fit_class_mixtures(proba, candidates, rng) for proba in (zero_shot, learnt)
        ]
        posteriors, ratios = self._tests([zero_shot, learnt], candidates)
        passed = (posteriors >= self.clean_threshold) & (ratios >= self.consistency_threshold)
        found = (posteriors.mean(axis=0) + ratios.mean(axis=0)) / 2
        codes = best_candidate(zero_shot, candidates)
        mask, score = np.zeros(len(labelled), dtype=bool), np.zeros(len(labelled))
        mask[labelled] = add_best(passed.all(axis=0), found, codes, 1)
        score[labelled] = found
        return mask, score

    def _tests(self, probabilities, candidates):
        """Return posteriors and ratios, each (2, n), with the two models' probabilities."""
        posteriors = np.ones((2, len(candidates)))
        for posterior, proba, mixtures in zip(posteriors, probabilities, self._mixtures):
            loss, codes = candidate_loss(proba, candidates), best_candidate(proba, candidates)
            for code, mixture in mixtures.items():
                posterior[codes == code] = mixture.clean_probability(loss[codes == code])
        return posteriors, np.stack([consistency(proba, candidates) for proba in probabilities])

    def _probabilities(self, X):
        """Return the probabilities of both models for samples as a user gave them."""
        zero_shot = self._zero_shot_of(X)
        features = self._features(X.data if isinstance(X, PartialLabels) else X)
        return zero_shot, predict_columns(self.estimator_, features, len(self.classes_))

    def _predict_proba(self, X):
        return np.mean(self._probabilities(X), axis=0)

    def _score(self, X, candidates):
        posteriors, ratios = self._tests(self._probabilities(X), candidates)
        return (posteriors.mean(axis=0) + ratios.mean(axis=0)) / 2

    def _features(self, data):
        if data is None:
            raise ValueError(
                "CLIPCleanerDetector learns from features, but these PartialLabels carry no "
                "samples (data is None); pass features as X and the PartialLabels as y"
            )
        if is_image_data(data) and hasattr(getattr(self, "annotator_", None), "embed"):
            return self.annotator_.embed(data)
        return check_features(self, data, False, [np.float64, np.float32])


def _fit_class_mixtures(proba, candidates, rng):
    """Fit a mixture to the losses of each class that occurs."""
    loss, codes = candidate_loss(proba, candidates), best_candidate(proba, candidates)
    return {code: LossMixture(rng).fit(loss[codes == code]) for code in np.unique(codes)}
