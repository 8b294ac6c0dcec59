"""The annotator alone: its answers to all prompts combined, without a learner."""

from abc import abstractmethod
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .._compat import Interval, StrOptions, TagsMixin, fit_context
from .._evidence import annotator_shares, as_dense, count_votes, majority_vote
from .._inputs import shares_by_class
from .._partial_labels import PartialLabels
from .._scoring import ScoreMixin
from .._typing import Array, MatrixLike, Samples, Self
from .._vote_models import dawid_skene, dawid_skene_posterior, label_model

# -- rules -------------------------------------------------------------------------------------


def best_labels(labels, random_state=None):
    """Return the annotator's best single label of each row.

    Among the candidates it is the one with the highest score; then, where scores are equal or
    missing, with the most votes; and then a random one.

    Parameters
    ----------
    labels : PartialLabels
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    int ndarray of shape (n_samples,)
        Indices of classes; -1 where every class is a candidate and neither scores nor votes prefer
        one to another.
    """
    best = labels.toarray()
    if labels.scores is not None:
        best = _largest(as_dense(labels.scores), best)
    if labels.votes is not None:
        best = _largest(count_votes(labels.votes, labels.shape[1]), best)
    unlabelled = best.all(axis=1)
    # Drawn for every row, so that a row's draw does not depend on what others need.
    best = _largest(check_random_state(random_state).random_sample(best.shape), best)
    return np.where(unlabelled, -1, best.argmax(axis=1))


def _largest(values, among):
    """Tell which of the given entries are the largest of their row."""
    values = np.where(among, values, -np.inf)
    return values == values.max(axis=1, keepdims=True)


# -- estimators --------------------------------------------------------------------------------


class _AggregationClassifier(TagsMixin, ScoreMixin, ClassifierMixin, BaseEstimator):
    """What the classifiers that only combine the annotator's answers share.

    A subclass defines ``_fit(labels)`` and ``_combine(labels)``, which returns distributions.
    """

    _parameter_constraints: dict[str, list[Any]] = {}

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Samples, y: MatrixLike | None = None) -> Self:
        """Learn how to combine the annotator's answers.

        Parameters
        ----------
        X : PartialLabels
            The annotator's output. Its samples are not looked at.
        y : Ignored
            Not used, present for API consistency.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If X is no `PartialLabels`, or lacks the scores or votes that are combined.
        """
        labels = self._check_labels(X).sort_classes()
        self._fit(labels)
        self.classes_ = labels.classes
        self.label_distributions_ = self._combine(labels)
        self.transduction_ = self.classes_[self.label_distributions_.argmax(axis=1)]
        return self

    def predict_proba(self, X: Samples) -> Array:
        """Combine the annotator's answers about each sample.

        Parameters
        ----------
        X : PartialLabels
            The annotator's output for the samples, of the classes seen in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of `classes_`.
        """
        check_is_fitted(self)
        labels = self._check_labels(X)
        if set(labels.classes.tolist()) != set(self.classes_.tolist()):
            raise ValueError(
                f"X has the classes {labels.classes.tolist()}, but {type(self).__name__} was "
                f"fitted with {self.classes_.tolist()}"
            )
        return self._combine(labels.sort_classes(self.classes_))

    def predict(self, X: Samples) -> Array:
        """Predict the most probable class.

        Parameters
        ----------
        X : PartialLabels
            The annotator's output for the samples, of the classes seen in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Names of classes.
        """
        proba = self.predict_proba(X)
        return self.classes_[proba.argmax(axis=1)]

    @abstractmethod
    def _fit(self, labels):
        """Learn from checked labels."""

    @abstractmethod
    def _combine(self, labels):
        """Return a distribution over the classes for each row of checked labels."""

    def _check_labels(self, X):
        name = type(self).__name__
        if not isinstance(X, PartialLabels):
            raise ValueError(
                f"{name} combines an annotator's answers, so X must be a PartialLabels, as "
                f"VLMPartialAnnotator.transform returns it, to fit as well as to predict; got "
                f"{type(X).__name__}"
            )
        if len(X) == 0:
            raise ValueError(f"{name} needs at least one sample; got n_samples = 0")
        part = self._part()
        if getattr(X, part) is None:
            other = {"scores": "votes", "votes": "scores"}[part]
            hint = f"; they have {other}" if getattr(X, other) is not None else ""
            if hint and hasattr(self, "aggregation"):
                hint += ": set aggregation='" + {"votes": "vote", "scores": "mean"}[other] + "'"
            raise ValueError(f"{name} needs {part}, but these PartialLabels have none{hint}")
        return X

    def _part(self):
        """Name of what is combined: "scores" or "votes"."""
        return "votes"

    def _tag_values(self):
        return {"target_tags.required": False}


class AnnotatorClassifier(_AggregationClassifier):
    """The annotator alone: the zero-shot ensemble of all prompts, or their majority.

    Nothing is learned. A student that is not better than this has learned nothing beyond its
    annotator.

    Parameters
    ----------
    aggregation : {"mean", "vote"}, default="mean"
        Whether to predict by the scores, which are the mean of the probabilities over prompts, or
        by the number of prompts that chose a class.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Names of the classes.
    label_distributions_ : ndarray of shape (n_samples, n_classes)
        Scores or vote shares of the training samples.
    transduction_ : ndarray of shape (n_samples,)
        Most probable class of each training sample.

    See Also
    --------
    DawidSkeneClassifier : Weighs the votes by how reliable each prompt is.
    VLMPartialAnnotator : Makes the scores and votes.

    Notes
    -----
    X is a :class:`~sklearn_npll.PartialLabels` both to fit and to predict, since the annotator's
    answers about new samples are needed too. At the end of a pipeline that begins with a
    `VLMPartialAnnotator` it is, so predicting then runs the vision-language model.

    Candidates are not used, nor are labels known by humans. Equal classes are decided for the first
    one; where every prompt abstained, all vote shares are equal.

    References
    ----------
    .. [1] A. Radford et al., "Learning Transferable Visual Models From Natural Language
       Supervision", ICML 2021, arXiv:2103.00020.

    Examples
    --------
    >>> from sklearn_npll import PartialLabels
    >>> from sklearn_npll.baselines import AnnotatorClassifier
    >>> labels = PartialLabels.from_votes([[0, 0, 1], [1, 1, 1], [1, 0, 1]], ["cat", "dog"])
    >>> clf = AnnotatorClassifier("vote").fit(labels)
    >>> clf.predict(labels)
    array(['cat', 'dog', 'dog'], dtype='<U3')
    >>> clf.predict_proba(labels).round(2)
    array([[0.67, 0.33],
           [0.  , 1.  ],
           [0.33, 0.67]])
    """

    _parameter_constraints = {"aggregation": [StrOptions({"mean", "vote"})]}

    def __init__(self, aggregation: str = "mean") -> None:
        self.aggregation = aggregation

    def _fit(self, labels):
        pass

    def _combine(self, labels):
        if self.aggregation == "vote":
            return majority_vote(labels.votes, labels.shape[1])
        return annotator_shares(labels.scores, None, labels.shape[1])

    def _part(self):
        return "votes" if self.aggregation == "vote" else "scores"


class _ConfusionClassifier(_AggregationClassifier):
    """What the classifiers share that weigh votes by the confusion matrix of each prompt.

    A subclass defines ``_estimate(labels)``, which returns the matrices, the shares of the classes
    and the number of steps.
    """

    def _fit(self, labels):
        if not (labels.votes >= 0).any():
            raise ValueError("every prompt abstained on every sample; there is nothing to combine")
        self.confusion_, self.class_prior_, self.n_iter_ = self._estimate(labels)

    def _combine(self, labels):
        if labels.votes.shape[1] != len(self.confusion_):
            raise ValueError(
                f"X has votes of {labels.votes.shape[1]} prompts, but {type(self).__name__} was "
                f"fitted with {len(self.confusion_)}"
            )
        return dawid_skene_posterior(labels.votes, self.confusion_, self.class_prior_)

    @abstractmethod
    def _estimate(self, labels):
        """Return confusion matrices, shares of the classes and the number of steps."""


class DawidSkeneClassifier(_ConfusionClassifier):
    """Dawid and Skene: each prompt is a witness with errors of its own.

    Expectation maximisation finds a confusion matrix for each prompt, the shares of the classes
    and the true class of each sample, all from the votes alone. It begins with the vote shares.

    Parameters
    ----------
    max_iter : int, default=100
        Most steps of expectation maximisation.
    tol : float, default=1e-5
        Gain in the mean log-likelihood of a sample's votes at which to stop. A `ConvergenceWarning`
        tells if `max_iter` came first.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Names of the classes.
    confusion_ : ndarray of shape (n_prompts, n_classes, n_classes)
        ``confusion_[p, i, j]`` is the probability that prompt p votes for class j where class i is
        true.
    class_prior_ : ndarray of shape (n_classes,)
        Shares of the classes; 0 for those without votes, which are never predicted.
    label_distributions_ : ndarray of shape (n_samples, n_classes)
        Probabilities of the classes of the training samples, given their votes.
    transduction_ : ndarray of shape (n_samples,)
        Most probable class of each training sample.
    n_iter_ : int
        Number of steps.

    See Also
    --------
    AnnotatorClassifier : Every vote counts the same.
    VLMPartialAnnotator : Makes the votes.

    Notes
    -----
    X is a :class:`~sklearn_npll.PartialLabels` both to fit and to predict, since the votes on new
    samples are needed too. At the end of a pipeline that begins with a `VLMPartialAnnotator` it is,
    so predicting then runs the vision-language model.

    The method assumes that prompts err independently. Those of one vision-language model err
    together, so the probabilities are far too confident, and predictions seldom differ much from
    the majority's.

    Candidates are not used, nor are labels known by humans. Where every prompt abstained, the
    probabilities are `class_prior_`. Confusion matrices take ``n_prompts * n_classes**2`` numbers.

    References
    ----------
    .. [1] A. P. Dawid, A. M. Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using
       the EM Algorithm", Journal of the Royal Statistical Society C 28(1), 1979.

    Examples
    --------
    The third prompt takes cats for dogs and dogs for cats.

    >>> from sklearn_npll import PartialLabels
    >>> from sklearn_npll.baselines import DawidSkeneClassifier
    >>> votes = [[0, 0, 1], [1, 1, 0], [0, 0, 1], [1, 1, 0], [0, -1, 1], [-1, 1, 0]]
    >>> labels = PartialLabels.from_votes(votes, ["cat", "dog"])
    >>> clf = DawidSkeneClassifier().fit(labels)
    >>> clf.predict(labels)
    array(['cat', 'dog', 'cat', 'dog', 'cat', 'dog'], dtype='<U3')
    >>> clf.confusion_[2].round(2)
    array([[0., 1.],
           [1., 0.]])
    """

    _parameter_constraints = {
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(self, max_iter: int = 100, *, tol: float = 1e-5) -> None:
        self.max_iter = max_iter
        self.tol = tol

    def _estimate(self, labels):
        return dawid_skene(labels.votes, labels.shape[1], self.max_iter, self.tol)


class LabelModelClassifier(_ConfusionClassifier):
    """The label model of Snorkel: prompts weighed by how often each two of them agree.

    The probabilities of the votes given the class are fitted to the shares of pairs of votes by
    least squares, which is a completion of a low-rank matrix whose diagonal blocks, a prompt paired
    with itself, tell nothing. The cost of a step does not depend on the number of samples.

    Parameters
    ----------
    max_iter : int, default=500
        Most steps of the minimisation.
    tol : float, default=1e-5
        Relative fall in the squared error at which to stop. A `ConvergenceWarning` tells if
        `max_iter` came first.
    class_prior : mapping or array-like of shape (n_classes,), default=None
        Shares of the classes in the data, if they are known, by the names of the classes or in the
        order of `classes_`; by default those in the votes. Pairs of votes cannot tell them, and the
        closer they are, the better the confusion matrices.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Names of the classes.
    confusion_ : ndarray of shape (n_prompts, n_classes, n_classes)
        ``confusion_[p, i, j]`` is the probability that prompt p votes for class j where class i is
        true.
    class_prior_ : ndarray of shape (n_classes,)
        Shares of the classes that were used; those of 0 are never predicted.
    label_distributions_ : ndarray of shape (n_samples, n_classes)
        Probabilities of the classes of the training samples, given their votes.
    transduction_ : ndarray of shape (n_samples,)
        Most probable class of each training sample.
    n_iter_ : int
        Number of steps.

    See Also
    --------
    DawidSkeneClassifier : Finds the same matrices, and the class shares, by maximum likelihood.
    AnnotatorClassifier : Every vote counts the same.
    VLMPartialAnnotator : Makes the votes.

    Notes
    -----
    X is a :class:`~sklearn_npll.PartialLabels` both to fit and to predict, since the votes on new
    samples are needed too. At the end of a pipeline that begins with a `VLMPartialAnnotator` it is,
    so predicting then runs the vision-language model.

    The method assumes that prompts err independently given the class [1]_. Those of one
    vision-language model err together, so the probabilities are far too confident. It needs three
    prompts; and from three classes on pairs do not always settle the matrices, of which it then
    finds some near those that the majority implies.

    Candidates are not used, nor are labels known by humans. Where every prompt abstained, the
    probabilities are `class_prior_`; abstentions are taken to be independent of the class.
    Confusion matrices take ``n_prompts * n_classes**2`` numbers, and finding them about thirty
    times that.

    References
    ----------
    .. [1] A. Ratner, B. Hancock, J. Dunnmon, F. Sala, S. Pandey, C. Ré, "Training Complex Models
       with Multi-Task Weak Supervision", AAAI 2019, arXiv:1810.02840.

    Examples
    --------
    The third prompt takes cats for dogs and dogs for cats.

    >>> from sklearn_npll import PartialLabels
    >>> from sklearn_npll.baselines import LabelModelClassifier
    >>> votes = [[0, 0, 1], [1, 1, 0], [0, 0, 1], [1, 1, 0], [0, -1, 1], [-1, 1, 0]]
    >>> labels = PartialLabels.from_votes(votes, ["cat", "dog"])
    >>> clf = LabelModelClassifier().fit(labels)
    >>> clf.predict(labels)
    array(['cat', 'dog', 'cat', 'dog', 'cat', 'dog'], dtype='<U3')
    >>> clf.confusion_[2].round(1)
    array([[0., 1.],
           [1., 0.]])
    """

    _parameter_constraints = {
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "class_prior": [Mapping, "array-like", None],
    }

    def __init__(
        self,
        max_iter: int = 500,
        *,
        tol: float = 1e-5,
        class_prior: Mapping[Any, float] | ArrayLike | None = None,
    ) -> None:
        self.max_iter = max_iter
        self.tol = tol
        self.class_prior = class_prior

    def _estimate(self, labels):
        prior = shares_by_class(self.class_prior, labels.classes, "class_prior")
        if prior is not None:
            prior = _check_prior(prior, labels.shape[1])
        return label_model(labels.votes, labels.shape[1], prior, self.max_iter, self.tol)


def _check_prior(prior, n_classes):
    """Return shares of the classes as floats."""
    prior = np.asarray(prior, dtype=np.float64)
    if prior.shape != (n_classes,):
        raise ValueError(
            f"class_prior has shape {prior.shape}; it must hold a share for each of {n_classes} "
            "classes"
        )
    if not (prior >= 0).all() or not np.isclose(prior.sum(), 1, atol=1e-3):
        raise ValueError(
            f"class_prior is {prior.tolist()}; it must hold shares that are not negative and sum "
            "to one"
        )
    return prior
