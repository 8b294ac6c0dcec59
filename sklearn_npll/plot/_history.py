"""What training recorded for each epoch."""

import numpy as np

from ._drawing import BAD, GOOD, NEUTRAL, legend_below, make_grid
from ._inputs import check_rows_of_fit, encode_some, learner_of


class TrainingHistoryDisplay:
    """What training recorded for each epoch, and the clean probabilities at its end.

    There is a panel for each of: losses, the division into a partial and an unlabelled split, means
    of the mixture behind it, share of pseudo-labels that changed, scores, and clean probabilities;
    those of which nothing was recorded are left out. A dashed line marks the end of the warm-up.

    Make one with :meth:`from_estimator`.

    Parameters
    ----------
    history : list of dict
        A row for each epoch, as ``history_`` of a :class:`~sklearn_npll.CoRegClassifier`.
    clean_probability : array-like of float of shape (n_samples,), default=None
        Estimated probability that each candidate set contains the truth.
    contained : array-like of bool of shape (n_samples,), default=None
        Whether it does.

    Attributes
    ----------
    ax_ : ndarray of matplotlib.axes.Axes of shape (n_panels,)
        The axes, one for each panel.
    figure_ : matplotlib.figure.Figure
        The figure.

    Examples
    --------
    >>> from sklearn_npll.plot import TrainingHistoryDisplay
    >>> history = [
    ...     {"epoch": 1, "phase": "warm_up", "loss_warm_up": 1.2},
    ...     {"epoch": 2, "phase": "co_regularisation", "loss_partial": 0.9, "partial_share": 0.8},
    ... ]
    >>> [ax.get_title() for ax in TrainingHistoryDisplay(history).plot().ax_]
    ['losses', 'division']
    """

    def __init__(self, history, clean_probability=None, contained=None):
        self.history = history
        self.clean_probability = clean_probability
        self.contained = contained

    @classmethod
    def from_estimator(cls, estimator, labels=None, y=None, *, ax=None):
        """Draw the history of a fitted classifier.

        Parameters
        ----------
        estimator : estimator
            A fitted :class:`~sklearn_npll.CoRegClassifier`, or a pipeline that ends in one.
        labels : PartialLabels, default=None
            The candidates it was fitted on, needed with y.
        y : array-like of shape (n_samples,), default=None
            True classes of the same samples; rows of -1 are left out. With them clean
            probabilities are drawn apart for valid and noisy candidate sets.
        ax : array-like of matplotlib.axes.Axes, default=None
            Where to draw, one for each panel; a new figure by default.

        Returns
        -------
        display : TrainingHistoryDisplay
            The drawn display.

        Raises
        ------
        ValueError
            If y is given without the candidates, or these are not those of the fit.
        """
        learner = learner_of(estimator)
        clean_probability, contained = learner.clean_probability_, None
        if y is not None:
            if labels is None:
                raise ValueError("y needs the labels the estimator was fitted on, too.")
            check_rows_of_fit(labels, clean_probability)
            labelled = encode_some(labels, y) >= 0
            clean_probability = clean_probability[labelled]
            contained = labels.contains(y)[labelled]
        return cls(learner.history_, clean_probability, contained).plot(ax=ax)

    def plot(self, ax=None):
        """Draw the display.

        Parameters
        ----------
        ax : array-like of matplotlib.axes.Axes, default=None
            Where to draw, one for each panel; a new figure by default.

        Returns
        -------
        display : TrainingHistoryDisplay
            This object.
        """
        panels = _history_panels(self.history)
        n_panels = len(panels) + (self.clean_probability is not None)
        if ax is None:
            ax = make_grid(n_panels, n_columns=3, width=4.2, height=3.4)
        ax = np.asarray(ax).ravel()[:n_panels]
        epochs = np.array([row.get("epoch", i + 1) for i, row in enumerate(self.history)])
        for axes, (title, unit, lines) in zip(ax, panels):
            for label, values in lines:
                alone = np.isfinite(values).sum() == 1
                axes.plot(epochs, values, label=label, marker="." if alone else None)
            for change in _phase_changes(self.history):
                axes.axvline(epochs[change] - 0.5, color=NEUTRAL, linestyle="--", linewidth=0.8)
            axes.set(title=title, xlabel="epoch", ylabel=unit, xlim=_padded(epochs))
            axes.xaxis.get_major_locator().set_params(integer=True)
            if len(lines) > 1:
                legend_below(axes)
        if self.clean_probability is not None:
            self._plot_clean_probability(ax[-1])
        for axes in ax:
            axes.spines[["top", "right"]].set_visible(False)
        self.ax_, self.figure_ = ax, ax[0].figure
        return self

    def _plot_clean_probability(self, axes):
        clean = np.asarray(self.clean_probability)
        axes.set(title="candidate sets at the end", xlabel="clean probability", ylabel="samples")
        if self.contained is None:
            axes.hist(clean, bins=20, range=(0, 1), color=GOOD)
            return
        contained = np.asarray(self.contained, dtype=bool)
        axes.hist(
            [clean[contained], clean[~contained]],
            bins=20,
            range=(0, 1),
            stacked=True,
            color=[GOOD, BAD],
            label=["true class is a candidate", "true class is missing"],
        )
        legend_below(axes)


def _padded(epochs):
    margin = 0.04 * (epochs[-1] - epochs[0]) + 0.5
    return epochs[0] - margin, epochs[-1] + margin


def _history_panels(history):
    """Title, unit and labelled lines of each panel for which something was recorded."""

    def line(label, key, index=0, factor=1):
        values = [row.get(key) for row in history]
        values = [np.nan if value is None else np.ravel(value)[index] for value in values]
        return label, factor * np.array(values, dtype=float)

    losses = dict.fromkeys(key for row in history for key in row if key.startswith("loss_"))
    panels = [
        ("losses", None, [line(key[5:].replace("_", " "), key) for key in losses]),
        (
            "division",
            "%",
            [
                line("samples in the partial split", "partial_share", factor=100),
                line("their mean clean probability", "partial_clean_probability", factor=100),
            ],
        ),
        (
            "means of the loss mixture",
            "scaled loss",
            [line("valid sets", "mixture_means", 0), line("noisy sets", "mixture_means", 1)],
        ),
        (
            "pseudo-labels that changed",
            "%",
            [line("pseudo-labels that changed", "label_change_rate", factor=100)],
        ),
        (
            "scores",
            "%",
            [
                line("covering rate", "covering_rate", factor=100),
                line("approximated accuracy", "approximated_accuracy", factor=100),
                line("accuracy, both networks", "eval_accuracy", factor=100),
                line("accuracy, one network", "eval_accuracy_single", factor=100),
            ],
        ),
    ]
    recorded = [
        (title, unit, [(label, values) for label, values in lines if np.isfinite(values).any()])
        for title, unit, lines in panels
    ]
    return [panel for panel in recorded if panel[2]]


def _phase_changes(history):
    phases = [row.get("phase") for row in history]
    return [i for i in range(1, len(phases)) if phases[i] != phases[i - 1]]
