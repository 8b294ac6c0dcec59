"""Confusion of the annotator beside that of the learner."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._evidence import largest_columns, majority_vote
from .._inputs import with_candidates
from .._messages import name_rows
from .._partial_labels import PartialLabels
from .._typing import Array, Estimator, Samples, Self
from ._drawing import pyplot
from ._inputs import best_of, encode_some


class ConfusionComparisonDisplay:
    """Confusion of the annotator beside that of the learner, and what changed.

    Make one with :meth:`from_partial_labels` or :meth:`from_estimator`.

    Parameters
    ----------
    annotator_confusion : array-like of float of shape (n_classes, n_classes)
        Number of samples of each true class (rows) the annotator took for each class (columns).
    learner_confusion : array-like of float of shape (n_classes, n_classes)
        The same for the learner.
    classes : array-like of shape (n_classes,)
        Names of the classes.

    Attributes
    ----------
    ax_ : ndarray of matplotlib.axes.Axes of shape (3,)
        The axes of the annotator, the learner and the change.
    figure_ : matplotlib.figure.Figure
        The figure.

    See Also
    --------
    sklearn.metrics.ConfusionMatrixDisplay : A single confusion matrix.

    Examples
    --------
    >>> from sklearn_npll import PartialLabels
    >>> from sklearn_npll.plot import ConfusionComparisonDisplay
    >>> labels = PartialLabels.from_votes([[0, 0], [0, 1], [1, 1]], ["cat", "dog"])
    >>> y_true, y_pred = ["cat", "dog", "dog"], ["cat", "dog", "dog"]
    >>> display = ConfusionComparisonDisplay.from_partial_labels(labels, y_true, y_pred)
    >>> display.annotator_confusion
    array([[1. , 0. ],
           [0.5, 1.5]])
    """

    def __init__(
        self, annotator_confusion: Array, learner_confusion: Array, classes: Sequence[Any] | Array
    ) -> None:
        self.annotator_confusion = annotator_confusion
        self.learner_confusion = learner_confusion
        self.classes = classes

    @classmethod
    def from_partial_labels(
        cls, labels: PartialLabels, y_true: ArrayLike, y_pred: ArrayLike, *, ax: Any = None
    ) -> Self:
        """Compare the annotator behind partial labels with predictions.

        Parameters
        ----------
        labels : PartialLabels
            The annotator's output. It counts for the class of the largest score; without scores
            each class counts by its share of the votes, and without votes each candidate alike.
        y_true : array-like of shape (n_samples,)
            True classes; rows of -1 are left out.
        y_pred : array-like of shape (n_samples,)
            The learner's predictions; -1 only where `y_true` is, too.
        ax : array-like of 3 matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.

        Returns
        -------
        display : ConfusionComparisonDisplay
            The drawn display.
        """
        true, predicted = encode_some(labels, y_true), labels.encode_labels(y_pred)
        rows = np.flatnonzero(true >= 0)
        wrong = (true >= 0) & (predicted < 0)
        if wrong.any():
            raise ValueError(
                f"y_pred is -1, no class, in {name_rows(wrong)}; to leave them out, set y_true to"
                " -1 there, too."
            )
        one_hot = np.eye(labels.shape[1])
        truth = one_hot[true[rows]].T
        annotator = truth @ _annotator_choice(labels[rows])
        return cls(annotator, truth @ one_hot[predicted[rows]], labels.classes).plot(ax=ax)

    @classmethod
    def from_estimator(
        cls, estimator: Estimator, X: Samples, y: ArrayLike, *, ax: Any = None
    ) -> Self:
        """Compare the annotator and the learner of a pipeline.

        Parameters
        ----------
        estimator : estimator
            A fitted pipeline of an annotator and a classifier; or a classifier, if X is a
            PartialLabels.
        X : PartialLabels or array-like of shape (n_samples, ...)
            Samples.
        y : array-like of shape (n_samples,)
            True classes; rows of -1 are left out.
        ax : array-like of 3 matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.

        Returns
        -------
        display : ConfusionComparisonDisplay
            The drawn display.
        """
        learner, X, labels = with_candidates(best_of(estimator), X, None)
        return cls.from_partial_labels(labels, y, learner.predict(X), ax=ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the display.

        Parameters
        ----------
        ax : array-like of 3 matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.

        Returns
        -------
        display : ConfusionComparisonDisplay
            This object.
        """
        n_classes = len(self.classes)
        if ax is None:
            side = np.clip(0.42 * n_classes, 3.5, 6)
            size = (3 * side + 2.5, side + 0.6)
            ax = pyplot().subplots(1, 3, figsize=size, layout="constrained")[1]
        annotator, learner = (
            np.asarray(confusion, dtype=float)
            for confusion in (self.annotator_confusion, self.learner_confusion)
        )
        accuracies = [np.trace(confusion) / confusion.sum() for confusion in (annotator, learner)]
        with np.errstate(invalid="ignore"):
            annotator = 100 * annotator / annotator.sum(axis=1, keepdims=True)
            learner = 100 * learner / learner.sum(axis=1, keepdims=True)
        change = learner - annotator
        limit = max(np.nanmax(np.abs(change)), 1)
        gain = 100 * (accuracies[1] - accuracies[0])
        panels = [
            (annotator, "Blues", (0, 100), f"annotator: {accuracies[0]:.1%} right"),
            (learner, "Blues", (0, 100), f"learner: {accuracies[1]:.1%} right"),
            (change, "RdBu", (-limit, limit), f"change: {gain:+.1f} points"),
        ]
        ticks = list(range(n_classes if n_classes <= 25 else 0))
        names = [str(self.classes[tick]) for tick in ticks]
        for axes, (values, colors, limits, title) in zip(ax, panels):
            image = axes.imshow(values, cmap=colors, vmin=limits[0], vmax=limits[1])
            axes.set(title=title, xlabel="predicted class")
            axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor")
            axes.set_yticks(ticks if axes is ax[0] else [], names if axes is ax[0] else [])
            if n_classes <= 12:
                _write_values(axes, values, limits)
            if axes is not ax[0]:
                label = "% of the true class" if axes is ax[1] else "points"
                axes.figure.colorbar(image, ax=axes, shrink=0.8, label=label)
        ax[0].set_ylabel("true class")
        self.ax_, self.figure_ = np.asarray(ax), ax[0].figure
        return self


def _annotator_choice(labels):
    """How much of each sample the annotator gave to each class, (n_samples, n_classes)."""
    n_classes = labels.shape[1]
    if labels.scores is not None:
        return np.eye(n_classes)[largest_columns(labels.scores)]
    if labels.votes is not None:
        return majority_vote(labels.votes, n_classes)
    return labels.toarray() / labels.set_sizes[:, None]


def _write_values(axes, values, limits):
    form = "+.0f" if limits[0] < 0 else ".0f"
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value) and round(abs(value)):
            color = "white" if abs(value) > 0.6 * limits[1] else "black"
            text = format(value, form)
            axes.text(column, row, text, ha="center", va="center", fontsize="small", color=color)
