"""Baselines that use the annotator alone: rules that combine its votes and scores."""

import pickle

import numpy as np
import pytest
from fakes import NAMES, ColourVLM
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse as sp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.semi_supervised import LabelSpreading
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_npll import PartialLabels, VLMPartialAnnotator
from sklearn_npll._evidence import annotator_shares, count_votes, majority_vote
from sklearn_npll._vote_models import dawid_skene, dawid_skene_posterior, label_model
from sklearn_npll.baselines._adapters import PseudoLabelClassifier, soft_labels, unanimous_labels
from sklearn_npll.baselines._aggregation import (
    AnnotatorClassifier,
    DawidSkeneClassifier,
    LabelModelClassifier,
    best_labels,
)
from sklearn_npll.model_selection import covering_rate_scorer


# scikit-learn's checks pass arrays, which those who only combine the annotator's answers refuse, so
# that what applies of the checks to them is tested by hand below.
@parametrize_with_checks(
    [
        PseudoLabelClassifier(LogisticRegression()),
        PseudoLabelClassifier(LogisticRegression(), labels="soft"),
        PseudoLabelClassifier(LabelSpreading(), labels="unanimous"),
    ]
)
def test_common_checks(estimator, check):
    check(estimator)


def simulate(n_samples=1000, abstain=0.1, seed=0):
    """Votes of four prompts, one of them systematically wrong, with all that made them."""
    rng = np.random.default_rng(seed)
    prior = np.array([0.5, 0.3, 0.2])
    confusion = np.array(
        [
            [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]],
            [[0.7, 0.3, 0.0], [0.1, 0.9, 0.0], [0.1, 0.0, 0.9]],
            [[0.9, 0.0, 0.1], [0.3, 0.6, 0.1], [0.1, 0.1, 0.8]],
            [[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1]],
        ]
    )
    y = rng.choice(3, p=prior, size=n_samples)
    draws = rng.random((n_samples, 4, 1))
    votes = (draws > confusion[:, y].transpose(1, 0, 2).cumsum(axis=2)).sum(axis=2)
    votes[rng.random(votes.shape) < abstain] = -1
    return votes, y, confusion, prior


# -- rules -------------------------------------------------------------------------------------


def test_majority_vote():
    votes = [[0, 2, 2, 2], [1, -1, -1, 1], [-1, -1, -1, -1], [0, 1, -1, -1]]
    assert_array_equal(count_votes(votes, 3), [[1, 0, 3], [0, 2, 0], [0, 0, 0], [1, 1, 0]])
    third = 1 / 3
    assert_allclose(
        majority_vote(votes, 3), [[0.25, 0, 0.75], [0, 1, 0], [third] * 3, [0.5, 0.5, 0]]
    )


def test_annotator_shares():
    votes = [[0, 0, 1]]
    assert_allclose(annotator_shares(np.float32([[1, 3, 0]]), votes, 3), [[0.25, 0.75, 0]])
    assert_allclose(annotator_shares(None, votes, 3), [[2 / 3, 1 / 3, 0]])
    assert annotator_shares(None, None, 3) is None


def test_votes_of_many_classes_in_small_integers():
    votes = np.full((200, 3), 120, dtype=np.int8)  # 120 * 121 does not fit
    assert_array_equal(majority_vote(votes, 121).argmax(axis=1), 120)
    assert_array_equal(dawid_skene(votes, 121)[1].argmax(), 120)


def test_best_labels_prefer_scores_then_votes():
    labels = PartialLabels(
        None,
        NAMES,
        candidates=[[1, 1, 0], [0, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 1, 0]],
        scores=[
            [0.2, 0.3, 0.5],  # the best class is no candidate
            [0.4, 0.3, 0.3],  # equal among the candidates: votes decide
            [0.1, 0.8, 0.1],
            [1 / 3] * 3,  # equal: votes decide
            [1 / 3] * 3,
            [0.9, 0.0, 0.1],
        ],
        votes=[[0, 0], [0, 2], [0, 0], [0, -1], [-1, -1], [0, 0]],
    )
    assert_array_equal(best_labels(labels, 0), [1, 2, 1, 0, -1, 1])


def test_best_labels_without_scores():
    candidates = [[1, 1, 0], [1, 1, 1], [0, 0, 1]]
    votes = [[1, 1, 0], [2, 2, 1], [0, 0, 0]]
    by_votes = PartialLabels(None, NAMES, candidates, votes=votes)
    assert_array_equal(best_labels(by_votes), [1, 2, 2])
    for wrap in (np.array, sp.csr_array):
        alone = PartialLabels.from_candidates(wrap(candidates * 100))
        best = best_labels(alone, random_state=0)
        assert_array_equal(best[1::3], -1)
        assert_array_equal(best[2::3], 2)
        assert 30 < best[::3].sum() < 70  # drawn among the first two
        assert_array_equal(best_labels(alone, random_state=0), best)
        assert (best_labels(alone, random_state=1) != best).any()


def test_best_labels_of_many_classes():
    labels = PartialLabels.from_scores(np.eye(70) + 0.01, rule="topk", value=2)
    assert sp.issparse(labels.candidates)
    assert_array_equal(best_labels(labels), np.arange(70))


def test_dawid_skene_one_step_by_hand():
    votes = [[0, 0, 0], [1, 1, 1], [0, 0, 1]]
    # From vote shares (1, 0), (0, 1), (2/3, 1/3).
    with pytest.warns(ConvergenceWarning, match="max_iter=1 .*of DawidSkeneClassifier"):
        confusion, prior, n_iter = dawid_skene(votes, 2, max_iter=1)
    assert_allclose(prior, [5 / 9, 4 / 9])
    assert_allclose(confusion[0], [[1, 0], [1 / 4, 3 / 4]], atol=1e-9)
    assert_allclose(confusion[1], confusion[0])
    assert_allclose(confusion[2], [[3 / 5, 2 / 5], [0, 1]], atol=1e-9)
    # 5/9 * 1 * 1 * 2/5 = 8/36 against 4/9 * 1/4 * 1/4 * 1 = 1/36
    posterior = dawid_skene_posterior(votes, confusion, prior)
    assert_allclose(posterior, [[1, 0], [0, 1], [8 / 9, 1 / 9]], atol=1e-9)
    assert n_iter == 1


def loop_dawid_skene(votes, n_classes, n_steps):
    """Dawid-Skene as in the paper, Eq. 2.3 to 2.5, one number at a time."""
    n, n_prompts = votes.shape
    T = majority_vote(votes, n_classes)
    for _ in range(n_steps):
        prior = [sum(T[i][c] for i in range(n)) / n for c in range(n_classes)]
        confusion = np.zeros((n_prompts, n_classes, n_classes))
        for p in range(n_prompts):
            for c in range(n_classes):
                for i in range(n):
                    if votes[i, p] >= 0:
                        confusion[p, c, votes[i, p]] += T[i][c]
                confusion[p, c] /= confusion[p, c].sum()
        T = np.zeros((n, n_classes))
        for i in range(n):
            for c in range(n_classes):
                T[i][c] = prior[c]
                for p in range(n_prompts):
                    if votes[i, p] >= 0:
                        T[i][c] *= confusion[p, c, votes[i, p]]
            T[i] /= T[i].sum()
    return T, confusion, prior


def test_dawid_skene_equals_loops():
    votes = simulate(60)[0]
    votes = votes[(votes >= 0).any(axis=1)]
    expected = loop_dawid_skene(votes, 3, 5)
    with pytest.warns(ConvergenceWarning):
        confusion, prior, n_iter = dawid_skene(votes, 3, max_iter=5, tol=0)
    assert n_iter == 5
    assert_allclose(dawid_skene_posterior(votes, confusion, prior), expected[0], atol=1e-7)
    assert_allclose(confusion, expected[1], atol=1e-7)
    assert_allclose(prior, expected[2], atol=1e-7)


def test_dawid_skene_recovers_the_prompts():
    votes, y, confusion, prior = simulate(20000)
    estimated, shares, n_iter = dawid_skene(votes, 3)
    assert_allclose(estimated, confusion, atol=0.04)
    assert_allclose(shares, prior, atol=0.03)
    assert 2 < n_iter < 100
    # As good as one who knows the prompts, and much better than the majority.
    posterior = dawid_skene_posterior(votes, estimated, shares)
    with np.errstate(divide="ignore"):
        optimal = dawid_skene_posterior(votes, confusion, prior)
    accuracy = [np.mean(p.argmax(axis=1) == y) for p in (posterior, optimal)]
    assert accuracy[0] > accuracy[1] - 0.01
    assert accuracy[0] > np.mean(majority_vote(votes, 3).argmax(axis=1) == y) + 0.05


def test_dawid_skene_abstentions_and_classes_without_votes():
    votes = simulate(500)[0]
    silent = np.full((50, 4), -1)
    confusion, prior, _ = dawid_skene(votes, 5)
    with_silent = dawid_skene(np.concatenate([silent, votes]), 5)
    assert_array_equal(with_silent[0], confusion)
    assert_array_equal(with_silent[1], prior)
    assert_array_equal(prior[3:], 0)
    assert_allclose(dawid_skene_posterior(silent, confusion, prior), [prior] * 50)
    # Nobody voted for these classes in fit, so they have no chance with other votes either.
    posterior = dawid_skene_posterior([[3, 4, 3, 4], [0, 1, 2, 0]], confusion, prior)
    assert_array_equal(posterior[:, 3:], 0)
    assert_allclose(posterior.sum(axis=1), 1)


def test_dawid_skene_many_prompts_do_not_underflow():
    votes = np.repeat(simulate(100, abstain=0)[0], 500, axis=1)
    posterior = dawid_skene_posterior(votes, *dawid_skene(votes, 3)[:2])
    assert_allclose(posterior.sum(axis=1), 1)


def test_unanimous_and_soft_labels():
    candidates = np.array([[1, 1, 0], [0, 0, 1], [1, 1, 1]], dtype=bool)
    assert_array_equal(unanimous_labels(candidates), [-1, 2, -1])
    alone = PartialLabels.from_candidates(candidates)
    assert_allclose(soft_labels(alone), [[0.5, 0.5, 0], [0, 0, 1], [1 / 3] * 3])
    votes = [[0, 0, 0, 1], [0, 0, 0, 0], [-1, 0, 1, 1]]
    by_votes = PartialLabels(None, NAMES, candidates, votes=votes)
    assert_allclose(soft_labels(by_votes), [[0.75, 0.25, 0], [0, 0, 1], [1 / 3, 2 / 3, 0]])
    scores = [[0.2, 0.2, 0.6], [1, 0, 0], [0.5, 0.4, 0.1]]
    by_scores = PartialLabels(None, NAMES, candidates, votes=votes, scores=scores)
    assert_allclose(soft_labels(by_scores), [[0.5, 0.5, 0], [0, 0, 1], [0.5, 0.4, 0.1]], atol=1e-6)


# -- the annotator alone -----------------------------------------------------------------------

AGGREGATORS = [
    AnnotatorClassifier(),
    AnnotatorClassifier("vote"),
    DawidSkeneClassifier(),
    LabelModelClassifier(),
]
each_aggregator = pytest.mark.parametrize("estimator", AGGREGATORS, ids=repr)


@pytest.fixture(scope="module")
def annotated():
    """Partial labels with scores and votes, but no samples; and the true labels."""
    votes, y, _, _ = simulate(400)
    scores = (majority_vote(votes, 3) + 0.1) / 1.3
    candidates = PartialLabels.from_votes(votes, NAMES).candidates
    return PartialLabels(None, NAMES, candidates, scores=scores, votes=votes), NAMES[y]


@each_aggregator
def test_aggregators(estimator, annotated):
    labels, y = annotated
    before = estimator.get_params()
    clf = clone(estimator)
    assert clf.fit(labels, y) is clf
    assert clf.get_params() == before
    assert_array_equal(clf.classes_, NAMES)
    assert_allclose(clf.label_distributions_.sum(axis=1), 1)
    assert_array_equal(clf.predict_proba(labels), clf.label_distributions_)
    assert_array_equal(clf.predict(labels), clf.transduction_)
    assert_array_equal(clf.predict(labels[::-1])[::-1], clf.predict(labels))
    assert_allclose(clf.predict_proba(labels[:7]), clf.label_distributions_[:7])
    assert_array_equal(clone(estimator).fit(labels).transduction_, clf.transduction_)  # y is unused
    assert clf.score(labels, y) == np.mean(clf.transduction_ == y) > 0.5
    assert clf.score(labels, labels) == covering_rate_scorer(clf, labels)
    assert 0 < clf.score(labels) < 1
    copy = pickle.loads(pickle.dumps(clf))
    assert_array_equal(copy.predict_proba(labels), clf.label_distributions_)
    scores = cross_val_score(estimator, labels, y, cv=3)
    assert len(scores) == 3 and scores.min() > 0.5


def test_annotator_combines_scores_or_votes(annotated):
    labels, _ = annotated
    mean = AnnotatorClassifier().fit(labels).label_distributions_
    assert_allclose(mean, labels.scores, rtol=1e-6)
    vote = AnnotatorClassifier("vote").fit(labels).label_distributions_
    assert_array_equal(vote, majority_vote(labels.votes, 3))
    unscaled = PartialLabels(None, NAMES, labels.candidates, scores=labels.scores * 40)
    assert_allclose(AnnotatorClassifier().fit(unscaled).label_distributions_, mean, rtol=1e-6)


def test_dawid_skene_classifier_attributes(annotated):
    labels, y = annotated
    clf = DawidSkeneClassifier().fit(labels)
    confusion, prior, n_iter = dawid_skene(labels.votes, 3)
    assert_array_equal(clf.confusion_, confusion)
    assert_array_equal(clf.class_prior_, prior)
    assert clf.n_iter_ == n_iter > 1
    with pytest.warns(ConvergenceWarning):
        assert DawidSkeneClassifier(max_iter=1).fit(labels).n_iter_ == 1
    assert DawidSkeneClassifier(tol=100.0).fit(labels).n_iter_ == 2
    # The systematically wrong prompt helps.
    assert clf.score(labels, y) > AnnotatorClassifier("vote").fit(labels).score(labels, y)


def test_label_model_classifier_attributes(annotated):
    labels, y = annotated
    clf = LabelModelClassifier().fit(labels)
    confusion, prior, n_iter = label_model(labels.votes, 3)
    assert_array_equal(clf.confusion_, confusion)
    assert_array_equal(clf.class_prior_, prior)
    assert clf.n_iter_ == n_iter > 1
    with pytest.warns(ConvergenceWarning):
        assert LabelModelClassifier(max_iter=1).fit(labels).n_iter_ == 1
    known = LabelModelClassifier(class_prior=[0.5, 0.3, 0.2]).fit(labels)
    assert_array_equal(known.class_prior_, [0.5, 0.3, 0.2])
    assert_array_equal(known.confusion_, label_model(labels.votes, 3, [0.5, 0.3, 0.2])[0])
    # The systematically wrong prompt helps.
    assert clf.score(labels, y) > AnnotatorClassifier("vote").fit(labels).score(labels, y) + 0.05
    assert known.score(labels, y) > clf.score(labels, y) - 0.04  # of 400, either may be ahead


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ([0.5, 0.5], r"shape \(2,\); .* each of 3 classes"),
        ([0.5, 0.7, -0.2], "not negative and sum to one"),
        ([0.5, 0.5, 0.5], "not negative and sum to one"),
        ([0.5, np.nan, 0.5], "not negative and sum to one"),
    ],
)
def test_label_model_class_prior_must_be_shares(annotated, prior, message):
    with pytest.raises(ValueError, match=message):
        LabelModelClassifier(class_prior=prior).fit(annotated[0])


@each_aggregator
def test_aggregators_refuse_other_input(estimator, annotated):
    labels, y = annotated
    clf = clone(estimator)
    with pytest.raises(NotFittedError):
        clf.predict(labels)
    with pytest.raises(ValueError, match="X must be a PartialLabels.*got ndarray"):
        clf.fit(np.eye(3), [0, 1, 2])
    part = "scores" if clf.get_params().get("aggregation") == "mean" else "votes"
    with pytest.raises(ValueError, match=f"needs {part}, but these PartialLabels have none"):
        clf.fit(PartialLabels.from_candidates(labels.toarray()))
    with pytest.raises(ValueError, match="at least one sample"):
        clf.fit(labels[:0])
    clf.fit(labels)
    with pytest.raises(ValueError, match="X must be a PartialLabels"):
        clf.predict(np.eye(3))
    other = PartialLabels(
        None, ["ant", "bee", "fox"], labels.candidates, scores=labels.scores, votes=labels.votes
    )
    with pytest.raises(ValueError, match="X has the classes .'ant', 'bee', 'fox'., but .* fitted"):
        clf.predict(other)


def test_aggregators_bad_values(annotated):
    labels, _ = annotated
    with pytest.raises(InvalidParameterError, match="aggregation"):
        AnnotatorClassifier("median").fit(labels)
    for params in ({"max_iter": 0}, {"tol": -1}):
        for weigher in (DawidSkeneClassifier, LabelModelClassifier):
            with pytest.raises(InvalidParameterError, match=next(iter(params))):
                weigher(**params).fit(labels)
    logits = PartialLabels.from_scores([[2.0, -1.0], [1.0, 0.5]])
    with pytest.raises(ValueError, match="must be probabilities, but in row 0"):
        AnnotatorClassifier().fit(logits)
    silent = PartialLabels.from_votes(np.full((3, 2), -1), NAMES)
    for weigher in (DawidSkeneClassifier(), LabelModelClassifier()):
        with pytest.raises(ValueError, match="every prompt abstained"):
            weigher.fit(silent)
        weigher.fit(labels)
        with pytest.raises(ValueError, match="votes of 2 prompts, but .* fitted with 4"):
            weigher.predict(PartialLabels.from_votes(labels.votes[:, :2], NAMES))


@each_aggregator
def test_aggregators_in_a_pipeline(estimator):
    rng = np.random.default_rng(0)
    colours = ["red", "green", "blue"]
    y = rng.integers(3, size=30)
    X = rng.integers(0, 120, size=(30, 4, 4, 3), dtype=np.uint8)
    X[np.arange(30), :, :, y] += 120
    vlm = ColourVLM()
    templates = ["a {} thing", "a pale {} thing", "{}"]
    pipe = make_pipeline(VLMPartialAnnotator(colours, templates=templates, vlm=vlm), estimator)
    names = np.array(colours)[y]
    pipe.fit(X[:20])
    assert vlm.n_images == 20
    assert_array_equal(pipe.predict(X[20:]), names[20:])  # asks the model about new images
    assert vlm.n_images == 30
    assert pipe.score(X[20:], names[20:]) == 1
    assert_allclose(pipe.predict_proba(X).sum(axis=1), 1)
    if not isinstance(estimator, DawidSkeneClassifier):
        assert_array_equal(pipe[:-1].predict(X), pipe.predict(X))
    copy = pickle.loads(pickle.dumps(pipe))
    assert_array_equal(copy.predict(X), pipe.predict(X))
