"""Several annotators as one, by the union or the weighted mean of their answers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from numbers import Real
from operator import add
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils import Bunch

from .._compat import BaseComposition, HasMethods, Interval, StrOptions
from .._partial_labels import encode_labels
from .._rows import length
from .._rules import candidates_from_scores, check_rule, check_rule_value, only_rows
from .._typing import Estimator, Self
from ._agreement import agreement_weights
from ._base import MetaPartialAnnotator, sets_where
from ._members import (
    abstained,
    check_answers,
    check_classes,
    check_probabilities,
    copy_estimators,
    fit_annotator,
    is_transductive,
    needs_labels,
)
from ._votes import check_weights


class EnsemblePartialAnnotator(MetaPartialAnnotator, BaseComposition):
    """Annotate with several annotators at once: several models, resolutions or sets of templates.

    Their scores are averaged and their votes put side by side. With the rule "union" a class is a
    candidate if it is one for any of them, so that sets are small only where all agree.

    Parameters
    ----------
    annotators : list of (str, annotator) tuples or list of annotators
        Transformers whose ``transform`` returns a :class:`~sklearn_npll.PartialLabels`, with
        ``classes_`` once fitted; clones of them are fitted. They must have the same classes, in any
        order. One set to "drop" is left out; only those with names can be. Without names they are
        called by their class, in lower case, and numbered if several share it.
    weights : array-like of shape (n_annotators,) or "agreement", default=None
        Weights of the annotators in the scores, also of those left out. One of weight 0 is not
        asked. "agreement" finds them from the answers to the samples of `fit`, without labels; see
        the notes. None weighs all the same.
    rule : {"union", "topk", "threshold", "ratio", "cumulative", "cpl"}, default="union"
        From answers to candidates. "union" joins the sets of the annotators. The others look at the
        mean scores, as in :class:`~sklearn_npll.VLMPartialAnnotator`; "cpl" at those of all samples
        at once.
    rule_value : int, float or pair of float, default=None
        Argument of the rule: k=3, threshold=0.1, ratio=0.5, sum=0.9 or (alpha, beta)=(0.6, 0.9) by
        default; "union" has none.
    use_y : bool, default=False
        Whether ``fit_transform`` believes ``y``, where it is not -1: those rows get it as their
        only candidate. Off by default, since a cross-validation passes the full y along for its
        scorer. To trust some labels and score on all of them pass `known_labels` instead.

    Attributes
    ----------
    annotators_ : list of annotators
        The fitted annotators, without those left out.
    named_annotators_ : :class:`~sklearn.utils.Bunch`
        The fitted annotators by name.
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    weights_ : ndarray of shape (n_annotators,)
        Weights of the fitted annotators, of sum 1.
    n_features_in_ : int
        Number of columns, if fitted on a 2-D X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if fitted on a data frame.

    See Also
    --------
    VLMPartialAnnotator : One vision-language model with many templates.
    ConformalPartialAnnotator : Sets of a given coverage from a few labels.
    sklearn.ensemble.VotingClassifier : The same of classifiers.

    Notes
    -----
    ``transform`` is lazy: no annotator is asked before the candidates are used. Neither does
    ``fit`` ask, unless `weights` is "agreement". ``data`` of the container is the samples as given,
    whatever the annotators' own containers hold.

    An annotator without scores counts with the shares of its votes, and one without votes gives
    one for the class it scores highest. One whose every prompt abstained about a sample, as on an
    image that cannot be read, has no say in it: its set does not join the union, and the weights of
    the others are scaled to sum 1. Where all abstained, all classes are candidates.

    Labels to trust, `known_labels` or with `use_y` y, are passed on to annotators whose ``fit``
    takes `known_labels`. Nothing else of y is, so that a :class:`ConformalPartialAnnotator` among
    them needs one of both.

    "agreement" estimates each annotator's accuracy from all annotators' most probable classes by
    the model of Dawid and Skene [1]_ with one parameter a voter, and weighs by the log-odds, which
    is best for independent voters [2]_. It compares choices, not probabilities, because models
    differ in how confident they are and the timid would pass for poor. Voters are never fully
    independent: two that err together, such as one model with similar templates, vouch for each
    other. Of two annotators nothing tells who is right, so they weigh the same.

    References
    ----------
    .. [1] A. P. Dawid, A. M. Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using
       the EM Algorithm", Journal of the Royal Statistical Society C 28(1), 1979.
    .. [2] S. Nitzan, J. Paroush, "Optimal Decision Rules in Uncertain Dichotomous Choice
       Situations", International Economic Review 23(2), 1982.

    Examples
    --------
    >>> from sklearn_npll.annotators import EnsemblePartialAnnotator, VLMPartialAnnotator
    >>> from sklearn_npll.datasets import load_fashion_mnist
    >>> data = load_fashion_mnist("test")
    >>> X, y = data.images[:100], data.target_names[data.target[:100]]
    >>> templates = {"long": "a photo of a {}, a type of clothing.", "short": "{}"}
    >>> ensemble = EnsemblePartialAnnotator(
    ...     [
    ...         (name, VLMPartialAnnotator(data.class_prompts, templates=template))
    ...         for name, template in templates.items()
    ...     ]
    ... )
    >>> labels = ensemble.fit_transform(X)
    >>> labels.votes.shape
    (100, 2)
    >>> bool(labels.coverage(y) > ensemble.named_annotators_["long"].transform(X).coverage(y))
    True
    """

    # Tells scikit-learn before 1.6 that its checks cannot make one without arguments.
    _required_parameters = ["annotators"]

    _parameter_constraints = {
        "annotators": [list],
        "weights": ["array-like", StrOptions({"agreement"}), None],
        "rule": [str],
        "rule_value": [Interval(Real, 0, None, closed="neither"), tuple, list, None],
        "use_y": ["boolean"],
    }

    def __init__(
        self,
        annotators: Sequence[tuple[str, Estimator]],
        *,
        weights: str | ArrayLike | None = None,
        rule: str = "union",
        rule_value: float | Sequence[float] | None = None,
        use_y: bool = False,
    ) -> None:
        self.annotators = annotators
        self.weights = weights
        self.rule = rule
        self.rule_value = rule_value
        self.use_y = use_y

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters, and those of the annotators under their names.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the annotators and their parameters.

        Returns
        -------
        params : dict
            Values by name, such as "first__templates".
        """
        return self._get_params("_pairs", deep=deep)

    def set_params(self, **params: Any) -> Self:
        """Set parameters, annotators by their names, or parameters of annotators.

        Parameters
        ----------
        **params : keyword arguments
            Such as ``rule="topk"``, ``first="drop"`` or ``first__templates="simple"``.

        Returns
        -------
        self : EnsemblePartialAnnotator
            The annotator.
        """
        if "annotators" in params:  # the other names may be new ones
            self.annotators = params.pop("annotators")
        return self._set_params("_pairs", **params)

    @property
    def _pairs(self):
        """The annotators with names; what is no list is returned as it is, for later refusal."""
        if not isinstance(self.annotators, list) or _has_names(self.annotators):
            return self.annotators
        return name_annotators(self.annotators)

    @_pairs.setter
    def _pairs(self, pairs):
        if _has_names(self.annotators):
            self.annotators = pairs
            return
        annotators = [annotator for _, annotator in pairs]
        old, new = ([name for name, _ in own] for own in (pairs, name_annotators(annotators)))
        if old != new:
            raise ValueError(
                f"This would rename the annotators from {old} to {new}. Give them names of their"
                " own: annotators=[('first', ...), ('second', ...)]."
            )
        self.annotators = annotators

    def _fit(self, X, y, known_labels, annotate):
        X = self._check_X(X, reset=True)
        kept, weights = self._check_annotators()
        by_agreement = isinstance(self.weights, str)
        known_labels, source = self._trusted_labels(y, known_labels)
        for name, annotator in kept:
            if known_labels is None and needs_labels(annotator):
                raise ValueError(
                    f"annotator {name!r} ({type(annotator).__name__}) needs labels: pass"
                    " known_labels, with -1 where there is none, or set use_y=True on the ensemble."
                )
        fitted = {name: clone(annotator) for name, annotator in kept}
        for annotator in fitted.values():
            fit_annotator(annotator, X, known_labels)
        # All that can be wrong is found before anybody is asked.
        classes = _common_classes(fitted)
        check_rule_value(self.rule, self.rule_value, len(classes))
        codes = (
            None
            if known_labels is None
            else encode_labels(known_labels, classes, length(X, "X"), source)
        )
        answers = {}
        for (name, annotator), weight in zip(fitted.items(), weights):
            if by_agreement or (annotate and weight > 0):
                answers[name] = annotator.transform(X)
        if by_agreement:
            choices = [
                _Answer.of(labels, classes, name).choices for name, labels in answers.items()
            ]
            weights = agreement_weights(np.stack(choices, axis=1), len(classes))
        self.named_annotators_ = Bunch(**fitted)
        self.annotators_ = list(fitted.values())
        self.classes_, self.weights_ = classes, weights
        return self._decide(X, answers, codes) if annotate else None

    @property
    def _needs_labels(self):
        return any(needs_labels(annotator) for _, annotator in self._check_annotators()[0])

    @property
    def _is_transductive(self):
        return any(map(is_transductive, self.annotators_))

    def _check_annotators(self):
        """Return the named annotators that are not left out, and their weights."""
        pairs = self._pairs
        for pair in pairs:
            if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
                raise TypeError(
                    "annotators must be a list of annotators, or of (name, annotator) tuples;"
                    f" got {pair!r} in it."
                )
            name, annotator = pair
            usable = HasMethods(["fit", "transform"]).is_satisfied_by(annotator)
            if not usable and not _is_dropped(annotator):
                raise TypeError(
                    f"annotator {name!r} is {annotator!r}, but must have the methods fit and"
                    " transform, or be 'drop'."
                )
        self._validate_names([name for name, _ in pairs])
        kept = np.array([not _is_dropped(annotator) for _, annotator in pairs], dtype=bool)
        if not kept.any():
            raise ValueError("There is no annotator to ask: all are 'drop', or the list is empty.")
        check_rule(self.rule)
        weights = check_weights(self.weights, len(pairs), "weights", "annotators")
        if not isinstance(weights, np.ndarray):  # None, or found later
            weights = np.ones(len(pairs))
        if not weights[kept].any():
            raise ValueError("The weights of all annotators that are not 'drop' are 0.")
        weights = weights[kept] / weights[kept].sum()
        return [pair for pair, keep in zip(pairs, kept) if keep], weights

    def _plan(self):
        # Copies are settled, whatever becomes of the originals.
        members = zip(self.named_annotators_, copy_estimators(self.annotators_), self.weights_)
        return _EnsemblePlan(
            members=[member for member in members if member[2] > 0],
            classes=self.classes_,
            rule=self.rule,
            rule_value=self.rule_value,
        )


@dataclass(frozen=True)
class _EnsemblePlan:
    """What a fitted ensemble does with samples: calling it asks the annotators."""

    members: list  # names, annotators and weights of those who have a say
    classes: np.ndarray
    rule: str
    rule_value: object

    def __call__(self, data):
        return self.decide({name: member.transform(data) for name, member, _ in self.members})

    def decide(self, answers):
        """Combine what each annotator says about the same samples."""
        asked = [
            (_Answer.of(answers[name], self.classes, name), weight)
            for name, _, weight in self.members
        ]
        answers, weights = zip(*asked)
        answered = np.stack([answer.choices >= 0 for answer in answers], axis=1)
        shares = answer_weights(answered, np.array(weights))
        weighted = (share[:, None] * answer.proba for share, answer in zip(shares.T, answers))
        scores = sum(weighted).astype(np.float32)
        votes = np.concatenate([answer.votes for answer in answers], axis=1)
        if self.rule == "union":
            sets = [only_rows(answer.candidates, own > 0) for answer, own in zip(answers, shares.T)]
            candidates = reduce(add, sets)  # of bool: or
        else:
            candidates = sets_where(
                answered.any(axis=1),
                scores,
                lambda scores: candidates_from_scores(scores, self.rule, self.rule_value),
            )
        return {"candidates": candidates, "scores": scores, "votes": votes}


@dataclass(frozen=True)
class _Answer:
    """What one annotator said, with the classes in the ensemble's order."""

    candidates: object
    proba: np.ndarray
    votes: np.ndarray
    choices: np.ndarray  # its most probable class; -1 where it abstained

    @classmethod
    def of(cls, labels, classes, name):
        who = f"annotator {name!r}"
        labels = check_answers(labels, who).sort_classes(classes)
        # by columns, as the order in memory decides how later sums are rounded
        proba = np.asfortranarray(check_probabilities(labels, who))
        choices = np.where(abstained(labels), -1, proba.argmax(axis=1))
        votes = choices[:, None] if labels.votes is None else labels.votes
        return cls(labels.candidates, proba, votes, choices)


def answer_weights(answered, weights):
    """Share the say in each sample among the annotators that did not abstain.

    Parameters
    ----------
    answered : ndarray of bool of shape (n_samples, n_annotators)
    weights : ndarray of shape (n_annotators,)
        Positive.

    Returns
    -------
    ndarray of shape (n_samples, n_annotators)
        Rows of sum 1, 0 for who abstained; where all did, the weights as they are.

    Examples
    --------
    >>> answered = np.array([[True, False, True], [False, False, False]])
    >>> answer_weights(answered, np.array([0.5, 0.25, 0.25]))
    array([[0.66666667, 0.        , 0.33333333],
           [0.5       , 0.25      , 0.25      ]])
    """
    heard = answered | ~answered.any(axis=1, keepdims=True)
    shares = heard * weights
    return shares / shares.sum(axis=1, keepdims=True)


def name_annotators(annotators):
    """Name annotators by their classes, as scikit-learn's `make_pipeline` names its steps.

    Parameters
    ----------
    annotators : list of annotators or "drop"

    Returns
    -------
    list of (str, annotator) tuples

    Examples
    --------
    >>> from sklearn.preprocessing import MaxAbsScaler, StandardScaler
    >>> name_annotators([StandardScaler(), MaxAbsScaler(), StandardScaler()])
    [('standardscaler-1', StandardScaler()), ('maxabsscaler', MaxAbsScaler()),
     ('standardscaler-2', StandardScaler())]
    """
    kinds = [a if isinstance(a, str) else type(a).__name__.lower() for a in annotators]
    total, seen, pairs = Counter(kinds), Counter(), []
    for kind, annotator in zip(kinds, annotators):
        seen[kind] += 1
        name = kind if total[kind] == 1 else f"{kind}-{seen[kind]}"
        pairs.append((name, annotator))
    return pairs


def _has_names(annotators):
    return isinstance(annotators, list) and any(isinstance(a, tuple) for a in annotators)


def _is_dropped(annotator):
    return isinstance(annotator, str) and annotator == "drop"


def _common_classes(fitted):
    """Classes of the first annotator, sorted, which must be those of all."""
    (first, classes), *others = (
        (name, check_classes(annotator, f"annotator {name!r}"))
        for name, annotator in fitted.items()
    )
    expected = set(classes.tolist())
    for name, own in others:
        own = set(own.tolist())
        if own != expected:
            raise ValueError(
                f"annotator {name!r} has other classes than {first!r}: it lacks"
                f" {sorted(expected - own, key=str)} and adds {sorted(own - expected, key=str)}."
                " All annotators need the same classes, in any order."
            )
    return classes
