"""The annotator alone: its answers to all prompts combined, without a learner."""

from abc import abstractmethod
from numbers import Integral, Real

import numpy as np
from scipy import sparse as sp
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .._compat import Interval, StrOptions, TagsMixin, fit_context
from .._evidence import annotator_shares, count_votes, majority_vote
from .._partial_labels import PartialLabels
from .._scoring import ScoreMixin

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
        best = _largest(labels.scores, best)
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


def dawid_skene(votes, n_classes, max_iter=100, tol=1e-5):
    """Estimate true classes and the confusion matrix of each prompt from votes, by EM.

    Parameters
    ----------
    votes : int array-like of shape (n_samples, n_prompts)
        Indices of classes; -1 where a prompt abstained. At least one vote.
    n_classes : int
    max_iter : int, default=100
    tol : float, default=1e-5
        Gain in the mean log-likelihood of a row's votes at which to stop.

    Returns
    -------
    confusion : ndarray of shape (n_prompts, n_classes, n_classes)
        Probability of the votes (last axis) of each prompt given the true class.
    prior : ndarray of shape (n_classes,)
        Shares of the classes; 0 for those without votes.
    n_iter : int
    """
    votes = np.asarray(votes)
    n_prompts = votes.shape[1]
    votes = votes[(votes >= 0).any(axis=1)]  # other rows tell nothing
    indicator = _indicator(votes, n_classes)
    posterior = majority_vote(votes, n_classes)
    last = -np.inf
    for n_iter in range(1, max_iter + 1):
        prior = posterior.mean(axis=0)
        counts = (indicator.T @ posterior).reshape(n_prompts, n_classes, n_classes)
        # A vote never seen is next to impossible, not impossible: all classes could have one.
        confusion = np.maximum(counts.transpose(0, 2, 1), 1e-10)
        confusion /= confusion.sum(axis=2, keepdims=True)
        posterior, log_likelihood = _posterior(indicator, confusion, prior)
        if log_likelihood - last < tol or n_iter == max_iter:
            return confusion, prior, n_iter
        last = log_likelihood


def dawid_skene_posterior(votes, confusion, prior):
    """Return the probabilities of the classes given votes.

    Parameters
    ----------
    votes : int array-like of shape (n_samples, n_prompts)
        Indices of classes; -1 where a prompt abstained.
    confusion : ndarray of shape (n_prompts, n_classes, n_classes)
        Probability of the votes (last axis) of each prompt given the true class.
    prior : ndarray of shape (n_classes,)

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        The prior where every prompt abstained.
    """
    return _posterior(_indicator(np.asarray(votes), len(prior)), confusion, prior)[0]


def _indicator(votes, n_classes):
    """One-hot votes (n_samples, n_prompts * n_classes); abstentions are rows of zeros."""
    n_samples, n_prompts = votes.shape
    rows, prompts = np.nonzero(votes >= 0)
    columns = prompts * n_classes + votes[rows, prompts]
    return sp.csr_matrix(
        (np.ones(len(rows)), (rows, columns)), shape=(n_samples, n_prompts * n_classes)
    )


def _posterior(indicator, confusion, prior):
    """Posterior and mean log-likelihood of one-hot votes."""
    with np.errstate(divide="ignore"):
        log_joint = np.log(prior) + indicator @ _votes_first(np.log(confusion))
    highest = log_joint.max(axis=1, keepdims=True)
    joint = np.exp(log_joint - highest)
    evidence = joint.sum(axis=1, keepdims=True)
    return joint / evidence, float(np.mean(highest + np.log(evidence)))


def _votes_first(confusion):
    """Matrix (n_prompts * n_classes, n_classes) with the votes in its rows."""
    return confusion.transpose(0, 2, 1).reshape(-1, confusion.shape[1])


# -- estimators --------------------------------------------------------------------------------


class _AggregationClassifier(TagsMixin, ScoreMixin, ClassifierMixin, BaseEstimator):
    """What the classifiers that only combine the annotator's answers share.

    A subclass defines ``_fit(labels)`` and ``_combine(labels)``, which returns distributions.
    """

    _parameter_constraints = {}

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
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
        labels = self._check_labels(X)
        self._fit(labels)
        self.classes_ = labels.classes
        self.label_distributions_ = self._combine(labels)
        self.transduction_ = self.classes_[self.label_distributions_.argmax(axis=1)]
        return self

    def predict_proba(self, X):
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
        if labels.classes.tolist() != self.classes_.tolist():
            raise ValueError(
                f"X has the classes {labels.classes.tolist()}, but {type(self).__name__} was "
                f"fitted with {self.classes_.tolist()}"
            )
        return self._combine(labels)

    def predict(self, X):
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
            raise ValueError(f"{name} needs {part}, but these PartialLabels have none")
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

    def __init__(self, aggregation="mean"):
        self.aggregation = aggregation

    def _fit(self, labels):
        pass

    def _combine(self, labels):
        if self.aggregation == "vote":
            return majority_vote(labels.votes, labels.shape[1])
        return annotator_shares(labels.scores, None, labels.shape[1])

    def _part(self):
        return "votes" if self.aggregation == "vote" else "scores"


class DawidSkeneClassifier(_AggregationClassifier):
    """Dawid and Skene: each prompt is a witness with errors of its own.

    Expectation maximisation finds a confusion matrix for each prompt, the shares of the classes
    and the true class of each sample, all from the votes alone. It begins with the vote shares.

    Parameters
    ----------
    max_iter : int, default=100
        Most steps of expectation maximisation.
    tol : float, default=1e-5
        Gain in the mean log-likelihood of a sample's votes at which to stop.

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

    def __init__(self, max_iter=100, *, tol=1e-5):
        self.max_iter = max_iter
        self.tol = tol

    def _fit(self, labels):
        if not (labels.votes >= 0).any():
            raise ValueError("every prompt abstained on every sample; there is nothing to combine")
        self.confusion_, self.class_prior_, self.n_iter_ = dawid_skene(
            labels.votes, labels.shape[1], self.max_iter, self.tol
        )

    def _combine(self, labels):
        if labels.votes.shape[1] != len(self.confusion_):
            raise ValueError(
                f"X has votes of {labels.votes.shape[1]} prompts, but {type(self).__name__} was "
                f"fitted with {len(self.confusion_)}"
            )
        return dawid_skene_posterior(labels.votes, self.confusion_, self.class_prior_)
