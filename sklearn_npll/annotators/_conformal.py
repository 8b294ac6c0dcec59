"""Candidate sets of a chosen coverage, by conformal prediction from a few labels."""

from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
from sklearn.base import clone

from .._compat import HasMethods, Interval, StrOptions
from .._partial_labels import PartialLabels, encode_labels
from .._rows import length, take
from .._rules import TOLERANCE
from .._typing import Estimator
from ._base import MetaPartialAnnotator, sets_where
from ._members import (
    abstained,
    check_answers,
    check_classes,
    check_probabilities,
    copy_estimators,
    embeds,
    fit_annotator,
    is_transductive,
    needs_labels,
)


def lac_scores(proba):
    """Nonconformity of each class by its probability alone [1]_.

    Parameters
    ----------
    proba : ndarray of shape (n_samples, n_classes)

    Returns
    -------
    ndarray of float64 of shape (n_samples, n_classes)
        ``-log(p)``, which orders classes as ``1 - p`` does, and also tells small ones apart.

    References
    ----------
    .. [1] M. Sadinle, J. Lei, L. Wasserman, "Least Ambiguous Set-Valued Classifiers with Bounded
       Error Levels", Journal of the American Statistical Association 114(525), 2019.

    Examples
    --------
    >>> lac_scores(np.array([[0.625, 0.25, 0.125]])).round(3)
    array([[0.47 , 1.386, 2.079]])
    """
    return _minus_log(proba.astype(np.float64))


def aps_scores(proba):
    """Nonconformity of each class by the probabilities of all more probable ones [1]_.

    The paper adds a random share of the class's own probability. Without it the sets of a sample
    are always the same, and never empty. Of equally probable classes the first counts as more
    probable.

    Parameters
    ----------
    proba : ndarray of shape (n_samples, n_classes)

    Returns
    -------
    ndarray of float64 of shape (n_samples, n_classes)
        ``-log(1 - s)`` of the sum ``s`` of the probabilities of all more probable classes, which
        orders classes as ``s`` does, and also tells apart those that hardly lack anything to 1.

    References
    ----------
    .. [1] Y. Romano, M. Sesia, E. J. Candès, "Classification with Valid and Adaptive Coverage",
       NeurIPS 2020.

    Examples
    --------
    >>> aps_scores(np.array([[0.25, 0.625, 0.125]])).round(3)
    array([[0.981, 0.   , 2.079]])
    """
    order = np.argsort(-proba, axis=1, kind="stable")[:, ::-1]
    ordered = np.take_along_axis(proba, order, axis=1).astype(np.float64)
    remaining = np.empty(proba.shape)  # of the class and all less probable ones
    np.put_along_axis(remaining, order, np.cumsum(ordered, axis=1), axis=1)
    return _minus_log(remaining / remaining.max(axis=1, keepdims=True))


def _minus_log(values):
    with np.errstate(divide="ignore"):  # infinite for 0, the least likely there is
        return 0 - np.log(values)  # no -0 for 1


_METHODS = {"lac": lac_scores, "aps": aps_scores}


def conformal_rank(n_samples, coverage):
    """Return which of the sorted calibration scores is the threshold: ceil((n + 1) coverage).

    Examples
    --------
    >>> conformal_rank(9, 0.9), conformal_rank(19, 0.9), conformal_rank(8, 0.9)
    (9, 18, 9)
    """
    return int(np.ceil((n_samples + 1) * coverage - TOLERANCE))


def min_calibration_size(coverage):
    """Return the fewest labels for which the rank is not more than their number.

    Examples
    --------
    >>> min_calibration_size(0.9), min_calibration_size(0.95), min_calibration_size(0.5)
    (9, 19, 1)
    """
    return max(1, int(np.ceil(coverage / (1 - coverage) - TOLERANCE)))


def conformal_quantile(scores, coverage):
    """Return the threshold below which a new score is with a given probability.

    Parameters
    ----------
    scores : array-like of shape (n_samples,)
        Nonconformity of the true classes of the calibration samples, at least
        `min_calibration_size` of them.
    coverage : float in (0, 1)

    Returns
    -------
    float
        The score of rank `conformal_rank`, counted from the smallest.

    Examples
    --------
    >>> conformal_quantile([0.1, 0.5, 0.3], coverage=0.5)
    0.3
    """
    return float(np.sort(scores)[conformal_rank(len(scores), coverage) - 1])


def conformal_sets(scores, quantiles):
    """Take the classes whose nonconformity does not exceed the threshold.

    Parameters
    ----------
    scores : ndarray of shape (n_samples, n_classes)
        Nonconformity.
    quantiles : float or array-like of shape (n_classes,)

    Returns
    -------
    ndarray of bool of shape (n_samples, n_classes)
        An empty set gets the class of the lowest nonconformity, which can only add coverage.

    Examples
    --------
    >>> conformal_sets(np.array([[0.4, 1.4, 2.1], [0.7, 1.4, 1.4]]), 0.5).astype(int)
    array([[1, 0, 0],
           [1, 0, 0]])
    """
    candidates = scores <= np.asarray(quantiles) + TOLERANCE
    best = scores.argmin(axis=1)
    candidates[np.arange(len(scores)), best] |= ~candidates.any(axis=1)
    return candidates


class ConformalPartialAnnotator(MetaPartialAnnotator):
    """Give an annotator's candidate sets a coverage guarantee, from a few labels.

    Split conformal prediction [1]_: the labelled samples show how unlikely the annotator finds the
    truth at worst, but for a share of ``1 - coverage``, and every class that is no less likely
    becomes a candidate. Then the set of a new sample holds its true class with a probability of at
    least `coverage`, however poor the annotator is; a poor one has large sets.

    Parameters
    ----------
    annotator : annotator
        Transformer whose ``transform`` returns a :class:`~sklearn_npll.PartialLabels` with scores,
        or with votes, whose shares then serve. A clone of it is fitted, without any labels; see the
        notes.
    coverage : float in (0, 1), default=0.9
        Probability with which a set should hold the true class. It takes at least
        ``coverage / (1 - coverage)`` labels: 9 for 0.9, 19 for 0.95.
    method : {"lac", "aps"}, default="lac"
        Which classes are unlikely. "lac" [2]_: those of low probability, as the rule "threshold"
        sees it; its sets are the smallest on average. "aps" [3]_: those outside the smallest set of
        a given total probability, as the rule "cumulative" sees it; its sets are larger, but cover
        easy and hard samples more evenly. It is not randomised.
    class_conditional : bool, default=False
        Whether the coverage should hold within each true class, by a threshold for each. It takes
        as many labels of each class as otherwise in total.
    use_y : bool, default=False
        Whether ``y`` serves as labels if there are no `known_labels`. Off by default, since a
        cross-validation passes the full y along for its scorer, and then the annotator must not
        know it.

    Attributes
    ----------
    annotator_ : annotator
        The fitted annotator.
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    quantiles_ : ndarray of shape (n_classes,)
        Largest nonconformity of a candidate: with "lac" ``-log(p)`` of its probability, with "aps"
        ``-log(1 - s)`` of the sum of those of all more probable classes. So ``np.exp(-quantiles_)``
        is the least p, or 1 - s. All equal unless `class_conditional`.
    n_calibration_ : int
        Number of labels.
    n_features_in_ : int
        Number of columns, if fitted on a 2-D X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if fitted on a data frame.

    See Also
    --------
    sklearn_npll.model_selection.choose_rule_value : Chooses the argument of another rule.
    EnsemblePartialAnnotator : Several annotators as one, which may be the annotator here.

    Notes
    -----
    The guarantee is an average over samples and over the draw of the labels. It holds if labelled
    and new samples are drawn alike, such as at random from one collection; not if the labels are
    of chosen samples, or those of a single source. With n labels the coverage of one calibration
    spreads by about ``sqrt(coverage * (1 - coverage) / n)``.

    ``fit`` asks the annotator about the labelled samples only, ``transform`` about none until the
    candidates are used. Where the annotator abstained, all classes are candidates. An empty set
    gets the most probable class. ``data`` of the container is the annotator's: the samples, or with
    ``VLMPartialAnnotator(output="embeddings")`` their embeddings, made at once.

    Some annotators are transductive: what they say of a sample depends on the others they are asked
    about together, such as a `VLMPartialAnnotator` with `refine`, or an ensemble with one. Then
    ``fit`` asks about all samples, so that the labelled ones come among the others, and the
    guarantee takes new samples in similar batches: about as many, drawn alike; not one by one.

    Both methods compare logarithms. A model with sharp probabilities may give the truth a
    millionth, and other classes much less; one minus these would be the same number.

    Labels are `known_labels`, or with `use_y` y; there is an error if there are neither. They are
    believed: in ``fit_transform`` the labelled rows have their label as their only candidate.

    Labels that trained an annotator cannot calibrate it, so none are passed on. One that needs
    labels is fitted on others and wrapped in :class:`~sklearn.frozen.FrozenEstimator`.

    References
    ----------
    .. [1] V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World", Springer,
       2005.
    .. [2] M. Sadinle, J. Lei, L. Wasserman, "Least Ambiguous Set-Valued Classifiers with Bounded
       Error Levels", Journal of the American Statistical Association 114(525), 2019.
    .. [3] Y. Romano, M. Sesia, E. J. Candès, "Classification with Valid and Adaptive Coverage",
       NeurIPS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_npll.annotators import ConformalPartialAnnotator, VLMPartialAnnotator
    >>> from sklearn_npll.datasets import load_fashion_mnist
    >>> data = load_fashion_mnist("test")
    >>> X, y = data.images[:200], data.target_names[data.target[:200]]
    >>> known = np.where(np.arange(200) < 50, y, "-1")
    >>> vlm = VLMPartialAnnotator(data.class_prompts, templates="simple")
    >>> annotator = ConformalPartialAnnotator(vlm, coverage=0.9)
    >>> labels = annotator.fit_transform(X, known_labels=known)
    >>> labels
    PartialLabels(n_samples=200, n_classes=10, mean_set_size=..., data=ndarray)
    >>> bool(labels[50:].coverage(y[50:]) > vlm.fit(X).transform(X[50:]).coverage(y[50:]))
    True
    """

    # Tells scikit-learn before 1.6 that its checks cannot make one without arguments.
    _required_parameters = ["annotator"]

    _needs_labels = True

    _parameter_constraints = {
        "annotator": [HasMethods(["fit", "transform"])],
        "coverage": [Interval(Real, 0, 1, closed="neither")],
        "method": [StrOptions(set(_METHODS))],
        "class_conditional": ["boolean"],
        "use_y": ["boolean"],
    }

    def __init__(
        self,
        annotator: Estimator,
        *,
        coverage: float = 0.9,
        method: str = "lac",
        class_conditional: bool = False,
        use_y: bool = False,
    ) -> None:
        self.annotator = annotator
        self.coverage = coverage
        self.method = method
        self.class_conditional = class_conditional
        self.use_y = use_y

    def _fit(self, X, y, known_labels, annotate):
        X = self._check_X(X, reset=True)
        if known_labels is None and not self.use_y:
            raise ValueError(
                "ConformalPartialAnnotator needs labels to calibrate with, but y is ignored by"
                " default: pass known_labels, with -1 where there is no label, or set use_y=True."
            )
        labels, name = self._trusted_labels(y, known_labels)
        if labels is None:
            raise ValueError(
                "ConformalPartialAnnotator(use_y=True) requires y to be passed, but the target y is"
                " None: pass labels, with -1 where there is none, as y or known_labels."
            )
        annotator = clone(self.annotator)
        if needs_labels(annotator):
            raise ValueError(
                f"{type(annotator).__name__} needs labels itself, and those cannot calibrate it,"
                " too: fit it on other samples and wrap it in FrozenEstimator."
            )
        fit_annotator(annotator, X)
        classes = check_classes(annotator, "annotator")
        codes = encode_labels(labels, classes, length(X, "X"), name)
        known = np.flatnonzero(codes >= 0)
        self._check_calibration(codes[known], classes)
        ask_all = annotate or is_transductive(annotator)
        answers = annotator.transform(X if ask_all else take(X, known))
        answers = check_answers(answers, "annotator").sort_classes(classes)
        proba = check_probabilities(answers, "annotator")
        proba = proba[known] if ask_all else proba
        scores = _METHODS[self.method](proba)[np.arange(len(known)), codes[known]]
        groups = codes[known] if self.class_conditional else np.zeros(len(known), dtype=int)
        quantiles = [
            conformal_quantile(scores[groups == group], self.coverage)
            for group in (range(len(classes)) if self.class_conditional else [0])
        ]
        self.annotator_, self.classes_ = annotator, classes
        self.quantiles_ = np.broadcast_to(quantiles, len(classes)).copy()
        self.n_calibration_ = len(known)
        if not annotate:
            return None
        return self._decide(answers.data if embeds(annotator) else X, answers, codes)

    @property
    def _is_transductive(self):
        return is_transductive(self.annotator_)

    @property
    def _embeds(self):
        return embeds(self.annotator_)

    def _data_and_plan(self, X):
        plan = self._plan()
        if not self._embeds:
            return X, plan
        labels = plan.annotator.transform(X)  # which embeds now, and answers later
        return labels.data, replace(plan, annotator=_OfEmbeddings(labels.classes, labels._plan))

    def _check_calibration(self, codes, classes):
        """Raise a ValueError if there are fewer labels than the threshold takes."""
        needed = min_calibration_size(self.coverage)
        ways = " Label more samples, or lower the coverage"
        if not self.class_conditional:
            if len(codes) < needed:
                raise ValueError(
                    f"coverage={self.coverage} needs at least {needed} labelled samples; got"
                    f" {len(codes)}.{ways}."
                )
            return
        counts = np.bincount(codes, minlength=len(classes))
        if (counts < needed).any():
            few = ", ".join(
                f"{label!r} ({count})"
                for label, count in zip(classes.tolist(), counts)
                if count < needed
            )
            raise ValueError(
                f"coverage={self.coverage} with class_conditional=True needs at least {needed}"
                f" labelled samples of each class, but there are fewer of {few}.{ways}, or set"
                " class_conditional=False."
            )

    def _plan(self):
        return _ConformalPlan(
            annotator=copy_estimators(self.annotator_),  # settled, whatever becomes of the original
            classes=self.classes_,
            method=self.method,
            quantiles=self.quantiles_,
        )


@dataclass(frozen=True)
class _OfEmbeddings:
    """Says of embeddings what the annotator that made them says of the samples."""

    classes: np.ndarray
    plan: object

    def transform(self, data):
        return PartialLabels(data, self.classes, plan=self.plan)


@dataclass(frozen=True)
class _ConformalPlan:
    """What a calibrated annotator does with samples: calling it asks the annotator."""

    annotator: object
    classes: np.ndarray
    method: str
    quantiles: np.ndarray

    def __call__(self, data):
        return self.decide(self.annotator.transform(data))

    def decide(self, labels):
        """Make sets of what the annotator said."""
        labels = check_answers(labels, "annotator").sort_classes(self.classes)
        proba = check_probabilities(labels, "annotator")
        candidates = sets_where(
            ~abstained(labels),
            proba,
            lambda proba: conformal_sets(_METHODS[self.method](proba), self.quantiles),
        )
        return {"candidates": candidates, "scores": proba, "votes": labels.votes}
