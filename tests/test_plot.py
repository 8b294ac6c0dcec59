"""Displays: the figures they compute and what they put on the axes."""

import builtins
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.pipeline import make_pipeline

from sklearn_npll import PartialLabels
from sklearn_npll.plot import (
    CandidateGridDisplay,
    CandidateSetDisplay,
    ConfusionComparisonDisplay,
    TrainingHistoryDisplay,
)

NAMES = ["cat", "dog", "fox"]
SETS = [["cat"], ["cat", "dog"], ["dog", "fox"], ["fox"], NAMES]
Y = ["cat", "fox", "fox", "dog", "dog"]  # contained in rows 0, 2 and 4
IMAGES = np.arange(5 * 64, dtype=np.uint8).reshape(5, 8, 8)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def labels():
    return PartialLabels.from_sets(SETS, classes=NAMES, data=IMAGES)


class Annotator(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return PartialLabels.from_sets(SETS[: len(X)], classes=NAMES, data=X)


class Learner(ClassifierMixin, BaseEstimator):
    """Has the attributes of a fitted CoRegClassifier that displays read; predicts "dog"."""

    def fit(self, X, y=None):
        self.classes_ = np.array(NAMES)
        self.history_ = HISTORY
        self.clean_probability_ = np.array([0.9, 0.1, 0.8, 0.3, 1.0])
        self.label_distributions_ = np.array(
            [[0.8, 0.1, 0.1], [0.3, 0.1, 0.6], [0.0, 0.3, 0.7], [0.0, 0.4, 0.6], [0.2, 0.5, 0.3]]
        )
        return self

    def predict(self, X):
        return np.full(len(X), "dog")


HISTORY = [
    {"epoch": 1, "phase": "warm_up", "loss_warm_up": 2.0, "loss_partial": None},
    {"epoch": 2, "phase": "warm_up", "loss_warm_up": 1.5, "loss_partial": None},
    {
        "epoch": 3,
        "phase": "co_regularisation",
        "loss_warm_up": None,
        "loss_partial": 1.0,
        "partial_share": 0.6,
        "partial_clean_probability": 0.9,
        "mixture_means": [0.1, 0.7],
        "label_change_rate": None,
    },
    {
        "epoch": 4,
        "phase": "co_regularisation",
        "loss_warm_up": None,
        "loss_partial": 0.5,
        "partial_share": 0.8,
        "partial_clean_probability": 0.95,
        "mixture_means": [0.1, 0.8],
        "label_change_rate": 0.25,
    },
]


@pytest.fixture
def pipe():
    return make_pipeline(Annotator(), Learner()).fit(IMAGES)


def heights(ax):
    return [bar.get_height() for bar in ax.patches]


# CandidateSetDisplay


def test_set_sizes_with_and_without_labels(labels):
    display = CandidateSetDisplay.from_partial_labels(labels)
    np.testing.assert_allclose(heights(display.ax_), [40, 40, 20])
    display = CandidateSetDisplay.from_partial_labels(labels, Y)
    np.testing.assert_allclose(heights(display.ax_), [20, 20, 20, 20, 20, 0])
    assert [text.get_text() for text in display.ax_.texts] == ["50%", "50%", "100%"]
    assert display.ax_.get_title() == "mean set size 1.80, coverage 60.0%"
    # Row 3 is left out, the others are a quarter each.
    display = CandidateSetDisplay.from_partial_labels(labels, [*Y[:3], -1, Y[4]])
    np.testing.assert_allclose(heights(display.ax_), [25, 25, 25, 0, 25, 0])


def test_large_sets_share_the_last_bar(labels):
    display = CandidateSetDisplay.from_partial_labels(labels, Y, max_size=2)
    np.testing.assert_allclose(heights(display.ax_), [20, 40, 20, 20])
    assert [tick.get_text() for tick in display.ax_.get_xticklabels()] == ["1", "2+"]
    assert "1.80" in display.ax_.get_title()


def test_sizes_that_do_not_occur_are_empty_bars():
    labels = PartialLabels.from_sets([["cat"], NAMES], classes=NAMES)
    np.testing.assert_allclose(
        heights(CandidateSetDisplay.from_partial_labels(labels).ax_), [50, 0, 50]
    )


def test_displays_draw_on_given_axes(labels):
    figure, ax = plt.subplots()
    display = CandidateSetDisplay.from_partial_labels(labels, ax=ax)
    assert display.ax_ is ax and display.figure_ is figure


@pytest.mark.parametrize("make", [lambda pipe: pipe, lambda pipe: pipe[0], lambda pipe: pipe[:1]])
def test_sets_of_an_annotator_or_a_pipeline(pipe, make):
    display = CandidateSetDisplay.from_estimator(make(pipe), IMAGES, Y)
    np.testing.assert_array_equal(display.n_covered, [1, 1, 1])
    np.testing.assert_array_equal(display.n_missed, [1, 1, 0])


# ConfusionComparisonDisplay


def test_annotator_without_scores_spreads_over_its_candidates(labels):
    display = ConfusionComparisonDisplay.from_partial_labels(labels, Y, ["dog"] * 5)
    third = 1 / 3
    np.testing.assert_allclose(
        display.annotator_confusion, [[1, 0, 0], [third, third, 1 + third], [0.5, 1, 0.5]]
    )
    np.testing.assert_allclose(display.learner_confusion, [[0, 1, 0], [0, 2, 0], [0, 2, 0]])
    titles = [ax.get_title() for ax in display.ax_]
    assert titles == ["annotator: 36.7% right", "learner: 40.0% right", "change: +3.3 points"]


def test_annotator_counts_by_its_votes_and_then_by_its_scores():
    votes, y = [[0, 1, 1], [2, -1, -1], [-1, -1, -1]], ["dog", "fox", "cat"]
    labels = PartialLabels.from_votes(votes, NAMES)
    display = ConfusionComparisonDisplay.from_partial_labels(labels, y, y)
    third = 1 / 3
    np.testing.assert_allclose(
        display.annotator_confusion, [[third, third, third], [third, 2 / 3, 0], [0, 0, 1]]
    )
    scores = [[0.5, 0.3, 0.2], [0, 0, 1], [0.1, 0.8, 0.1]]
    labels = PartialLabels(None, NAMES, labels.candidates, scores=scores, votes=votes)
    display = ConfusionComparisonDisplay.from_partial_labels(labels, y, y)
    np.testing.assert_array_equal(display.annotator_confusion, [[0, 1, 0], [1, 0, 0], [0, 0, 1]])


def test_confusion_of_a_pipeline_and_of_missing_classes(pipe, labels):
    display = ConfusionComparisonDisplay.from_estimator(pipe, IMAGES, ["cat", -1, "fox", -1, -1])
    again = ConfusionComparisonDisplay.from_estimator(pipe[-1], labels, ["cat", -1, "fox", -1, -1])
    for shown in (display, again):
        np.testing.assert_allclose(shown.annotator_confusion, [[1, 0, 0], [0, 0, 0], [0, 0.5, 0.5]])
        np.testing.assert_array_equal(shown.learner_confusion, [[0, 1, 0], [0, 0, 0], [0, 1, 0]])
    written = [text.get_text() for text in display.ax_[2].texts]
    assert written == ["-100", "+100", "+50", "-50"]
    display.figure_.canvas.draw()


def test_names_are_dropped_where_they_would_not_fit():
    labels = PartialLabels.from_candidates(np.eye(30))
    display = ConfusionComparisonDisplay.from_partial_labels(labels, range(30), range(30))
    assert len(display.ax_[0].get_xticks()) == 0 and len(display.ax_[0].texts) == 0


# TrainingHistoryDisplay


def test_history_panels(pipe, labels):
    display = TrainingHistoryDisplay.from_estimator(pipe)
    assert [ax.get_title() for ax in display.ax_] == [
        "losses",
        "division",
        "means of the loss mixture",
        "pseudo-labels that changed",
        "candidate sets at the end",
    ]
    lines = {line.get_label(): line.get_ydata() for ax in display.ax_[:4] for line in ax.lines}
    np.testing.assert_array_equal(lines["warm up"], [2, 1.5, np.nan, np.nan])
    np.testing.assert_array_equal(lines["samples in the partial split"], [np.nan, np.nan, 60, 80])
    np.testing.assert_array_equal(lines["noisy sets"], [np.nan, np.nan, 0.7, 0.8])
    np.testing.assert_array_equal(lines["pseudo-labels that changed"], [np.nan] * 3 + [25])
    assert display.ax_[0].lines[-1].get_xdata() == [2.5, 2.5]  # the end of the warm-up
    assert sum(heights(display.ax_[-1])) == 5


def test_clean_probabilities_of_valid_and_noisy_sets(pipe, labels):
    display = TrainingHistoryDisplay.from_estimator(pipe, labels, [*Y[:4], -1])
    np.testing.assert_array_equal(display.clean_probability, [0.9, 0.1, 0.8, 0.3])
    np.testing.assert_array_equal(display.contained, [True, False, True, False])
    valid, noisy = np.reshape(heights(display.ax_[-1]), (2, 20))
    assert valid[:10].sum() == 0 and valid.sum() == 2
    assert noisy[:10].sum() == 2 and noisy.sum() == 2


def test_history_of_a_search_and_before_the_first_division(pipe):
    search = SimpleNamespace(best_estimator_=pipe)
    assert len(TrainingHistoryDisplay.from_estimator(search).ax_) == 5
    inner = SimpleNamespace(best_estimator_=pipe[-1])
    for nested in (make_pipeline(make_pipeline(Learner())).fit(IMAGES), make_pipeline(inner)):
        assert len(TrainingHistoryDisplay.from_estimator(nested).ax_) == 5
    display = TrainingHistoryDisplay(HISTORY[:2]).plot()
    assert [ax.get_title() for ax in display.ax_] == ["losses"]
    figure, grid = plt.subplots(1, 5)
    assert TrainingHistoryDisplay.from_estimator(pipe, ax=grid).figure_ is figure


def test_an_only_epoch_is_a_point():
    lines = [ax.lines[0] for ax in TrainingHistoryDisplay(HISTORY[2:3]).plot().ax_]
    assert len(lines) == 3  # losses, division, means
    assert {line.get_marker() for line in lines} == {"."}


def test_a_comparison_needs_a_labelled_sample(pipe, labels):
    for draw in (
        lambda y: CandidateSetDisplay.from_partial_labels(labels, y),
        lambda y: ConfusionComparisonDisplay.from_partial_labels(labels, y, Y),
        lambda y: TrainingHistoryDisplay.from_estimator(pipe, labels, y),
    ):
        with pytest.raises(ValueError, match="No sample in y is labelled"):
            draw([-1] * 5)


def test_a_prediction_of_no_class_is_not_the_last_class(labels):
    draw = ConfusionComparisonDisplay.from_partial_labels
    predicted = np.array(Y, dtype=object)
    predicted[2] = -1
    with pytest.raises(ValueError, match="y_pred is -1, no class, in row 2;"):
        draw(labels, Y, predicted)
    true = np.array(Y, dtype=object)
    true[2] = -1
    assert draw(labels, true, predicted).learner_confusion.sum() == 4


def test_history_needs_the_labels_of_the_fit(pipe, labels):
    with pytest.raises(ValueError, match="needs the labels"):
        TrainingHistoryDisplay.from_estimator(pipe, y=Y)
    with pytest.raises(ValueError, match="labels has 2 rows but .* fitted on 5"):
        TrainingHistoryDisplay.from_estimator(pipe, labels[:2], Y[:2])


# CandidateGridDisplay


def test_grid_says_what_became_of_each_image(pipe, labels):
    display = CandidateGridDisplay.from_estimator(pipe, labels, [*Y[:4], -1], rows=[0, 3, 4])
    assert [ax.get_title() for ax in display.ax_] == ["cat", "fox", "cat, dog, fox"]
    assert [ax.get_xlabel() for ax in display.ax_] == [
        "\N{RIGHTWARDS ARROW} cat 0.80\nclean 0.90\ntrue: cat",
        "\N{RIGHTWARDS ARROW} fox 0.60\nclean 0.30\ntrue: dog",
        "\N{RIGHTWARDS ARROW} dog 0.50\nclean 1.00",
    ]
    colors = [ax.xaxis.label.get_color() for ax in display.ax_]
    assert len(set(colors)) == 3 and colors[2] == "black"
    np.testing.assert_array_equal(np.asarray(display.images[1])[..., 0], IMAGES[3])


def test_grid_chooses_images_of_all_clean_probabilities():
    n = 100
    labels = PartialLabels.from_candidates(np.ones((n, 2)), data=np.zeros((n, 4, 4), np.uint8))
    clean = np.random.default_rng(0).permutation(n) / n
    display = CandidateGridDisplay.from_partial_labels(labels, n_images=4, clean_probability=clean)
    assert [int(4 * value) for value in display.clean_probability] == [0, 1, 2, 3]
    assert len(CandidateGridDisplay.from_partial_labels(labels[:3]).images) == 3


def test_grid_of_classes_in_another_order(labels):
    learner = Learner().fit(None)
    learner.classes_ = np.array(NAMES[::-1])
    display = CandidateGridDisplay.from_estimator(learner, labels, rows=[0])
    assert display.purified == ["fox"]


def test_long_candidate_lists_are_cut():
    names = [f"category {i}" for i in range(9)]
    labels = PartialLabels.from_candidates(
        np.ones((1, 9)), data=np.zeros((1, 4, 4), np.uint8), classes=names
    )
    display = CandidateGridDisplay.from_partial_labels(labels)
    assert display.ax_[0].get_title() == "category 0,\ncategory 1 +7"


@pytest.mark.parametrize("data", [None, np.zeros((5, 3))])
def test_grid_needs_images(data):
    labels = PartialLabels.from_sets(SETS, classes=NAMES, data=data)
    with pytest.raises(ValueError, match="needs images in labels.data"):
        CandidateGridDisplay.from_partial_labels(labels)


def test_missing_matplotlib_is_named_only_when_drawing(labels, monkeypatch):
    original = builtins.__import__

    def no_matplotlib(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    display = CandidateSetDisplay([1, 2], [3, 4])
    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    with pytest.raises(ImportError, match=r"pip install matplotlib"):
        display.plot()
