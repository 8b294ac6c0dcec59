"""Sizes of candidate sets, and how often they contain the truth."""

import numpy as np

from .._inputs import with_candidates
from ._drawing import BAD, GOOD, pyplot
from ._inputs import best_of, encode_some


class CandidateSetDisplay:
    """Sizes of the candidate sets and how often they contain the truth.

    Make one with :meth:`from_partial_labels` or :meth:`from_estimator`.

    Parameters
    ----------
    sizes : array-like of int of shape (n_sizes,)
        Set sizes, ascending.
    n_covered : array-like of int of shape (n_sizes,)
        Number of sets of each size that contain the true class; all sets where that is not known.
    n_missed : array-like of int of shape (n_sizes,), default=None
        Number of sets of each size that miss the true class.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes.
    figure_ : matplotlib.figure.Figure
        The figure.

    See Also
    --------
    sklearn_npll.PartialLabels.summary : The same in figures.

    Examples
    --------
    >>> from sklearn_npll import PartialLabels
    >>> from sklearn_npll.plot import CandidateSetDisplay
    >>> labels = PartialLabels.from_sets([["cat"], ["cat", "dog"], ["dog", "fox"]])
    >>> display = CandidateSetDisplay.from_partial_labels(labels, ["cat", "dog", "cat"])
    >>> display.n_covered, display.n_missed
    (array([1, 1]), array([0, 1]))
    """

    def __init__(self, sizes, n_covered, n_missed=None):
        self.sizes = sizes
        self.n_covered = n_covered
        self.n_missed = n_missed

    @classmethod
    def from_partial_labels(cls, labels, y=None, *, ax=None, max_size=10):
        """Draw the sets of a container.

        Parameters
        ----------
        labels : PartialLabels
            The candidates.
        y : array-like of shape (n_samples,), default=None
            True classes; rows of -1 are left out. If None, only sizes are drawn.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.
        max_size : int, default=10
            Sets of this size and larger share the last bar.

        Returns
        -------
        display : CandidateSetDisplay
            The drawn display.
        """
        set_sizes = labels.set_sizes
        if y is None:
            sizes, n_covered = np.unique(set_sizes, return_counts=True)
            return cls(sizes, n_covered).plot(ax=ax, max_size=max_size)
        labelled = encode_some(labels, y) >= 0
        contained = labels.contains(y)[labelled]
        sizes, size_index = np.unique(set_sizes[labelled], return_inverse=True)
        n_covered = np.bincount(size_index[contained], minlength=len(sizes))
        n_missed = np.bincount(size_index[~contained], minlength=len(sizes))
        return cls(sizes, n_covered, n_missed).plot(ax=ax, max_size=max_size)

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, ax=None, max_size=10):
        """Annotate samples and draw their sets.

        Parameters
        ----------
        estimator : estimator
            A fitted annotator, or a pipeline with one.
        X : array-like of shape (n_samples, ...)
            Samples.
        y : array-like of shape (n_samples,), default=None
            True classes; rows of -1 are left out. If None, only sizes are drawn.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.
        max_size : int, default=10
            Sets of this size and larger share the last bar.

        Returns
        -------
        display : CandidateSetDisplay
            The drawn display.
        """
        estimator = best_of(estimator)
        if hasattr(estimator, "transform"):
            labels = estimator.transform(X)
        else:
            labels = with_candidates(estimator, X, None)[2]
        return cls.from_partial_labels(labels, y, ax=ax, max_size=max_size)

    def plot(self, ax=None, *, max_size=10):
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.
        max_size : int, default=10
            Sets of this size and larger share the last bar.

        Returns
        -------
        display : CandidateSetDisplay
            This object.
        """
        ax = pyplot().subplots(layout="constrained")[1] if ax is None else ax
        sizes, n_covered = np.asarray(self.sizes), np.asarray(self.n_covered)
        n_missed = np.zeros_like(n_covered) if self.n_missed is None else np.asarray(self.n_missed)
        n_bars = min(max_size, sizes.max())
        bar = np.minimum(sizes, n_bars)
        covered, missed = (
            np.bincount(bar, 100 * counts / (n_covered + n_missed).sum(), n_bars + 1)[1:]
            for counts in (n_covered, n_missed)
        )
        x = np.arange(1, n_bars + 1)
        label = "samples" if self.n_missed is None else "true class is a candidate"
        ax.bar(x, covered, color=GOOD, label=label)
        title = f"mean set size {np.average(sizes, weights=n_covered + n_missed):.2f}"
        if self.n_missed is not None:
            ax.bar(x, missed, bottom=covered, color=BAD, label="true class is missing")
            for position, inside, outside in zip(x, covered, missed, strict=True):
                if inside + outside:
                    share = f"{inside / (inside + outside):.0%}"
                    ax.annotate(
                        share,
                        (position, inside + outside),
                        xytext=(0, 2),
                        textcoords="offset points",
                        ha="center",
                    )
            title += f", coverage {n_covered.sum() / (n_covered + n_missed).sum():.1%}"
            ax.legend(frameon=False)
        names = [str(size) for size in x]
        if sizes.max() > n_bars:
            names[-1] += "+"
        ax.set_xticks(x, names)
        ax.set(xlabel="candidates per sample", ylabel="share of samples (%)", title=title)
        ax.margins(y=0.08)
        ax.spines[["top", "right"]].set_visible(False)
        self.ax_, self.figure_ = ax, ax.figure
        return self
