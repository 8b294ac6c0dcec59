"""Pictures of candidates, of training and of what was learnt, as scikit-learn displays.

Each display computes its figures in a ``from_...`` constructor, which also draws it, and can be
drawn again with ``plot``. Matplotlib is needed for drawing only.
"""

import numpy as np
from scipy.sparse import issparse
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state

from ._evidence import as_dense, largest_columns
from ._images import is_image_data, read_images
from .model_selection import _with_candidates

__all__ = [
    "CandidateGridDisplay",
    "CandidateSetDisplay",
    "ConfusionComparisonDisplay",
    "TrainingHistoryDisplay",
]

_GOOD, _BAD, _NEUTRAL = "#2a7f9e", "#d9603b", "#8c8c8c"


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
        labelled = _encode_some(labels, y) >= 0
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
        estimator = _best(estimator)
        if hasattr(estimator, "transform"):
            labels = estimator.transform(X)
        else:
            labels = _with_candidates(estimator, X, None)[2]
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
        ax = _pyplot().subplots(layout="constrained")[1] if ax is None else ax
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
        ax.bar(x, covered, color=_GOOD, label=label)
        title = f"mean set size {np.average(sizes, weights=n_covered + n_missed):.2f}"
        if self.n_missed is not None:
            ax.bar(x, missed, bottom=covered, color=_BAD, label="true class is missing")
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

    def __init__(self, annotator_confusion, learner_confusion, classes):
        self.annotator_confusion = annotator_confusion
        self.learner_confusion = learner_confusion
        self.classes = classes

    @classmethod
    def from_partial_labels(cls, labels, y_true, y_pred, *, ax=None):
        """Compare the annotator behind partial labels with predictions.

        Parameters
        ----------
        labels : PartialLabels
            The annotator's output. It counts for the class of the largest score; without scores
            each class counts by its share of the votes, and without votes each candidate alike.
        y_true : array-like of shape (n_samples,)
            True classes; rows of -1 are left out.
        y_pred : array-like of shape (n_samples,)
            The learner's predictions.
        ax : array-like of 3 matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.

        Returns
        -------
        display : ConfusionComparisonDisplay
            The drawn display.
        """
        true, predicted = _encode_some(labels, y_true), labels.encode_labels(y_pred)
        rows = np.flatnonzero(true >= 0)
        one_hot = np.eye(labels.shape[1])
        truth = one_hot[true[rows]].T
        annotator = truth @ _annotator_choice(labels[rows])
        return cls(annotator, truth @ one_hot[predicted[rows]], labels.classes).plot(ax=ax)

    @classmethod
    def from_estimator(cls, estimator, X, y, *, ax=None):
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
        learner, X, labels = _with_candidates(_best(estimator), X, None)
        return cls.from_partial_labels(labels, y, learner.predict(X), ax=ax)

    def plot(self, ax=None):
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
            ax = _pyplot().subplots(1, 3, figsize=size, layout="constrained")[1]
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
        ticks = np.arange(n_classes) if n_classes <= 25 else []
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
        learner = _learner(estimator)
        clean_probability, contained = learner.clean_probability_, None
        if y is not None:
            if labels is None:
                raise ValueError("y needs the labels the estimator was fitted on, too.")
            _check_rows_of_fit(labels, clean_probability)
            labelled = _encode_some(labels, y) >= 0
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
            ax = _grid(n_panels, n_columns=3, width=4.2, height=3.4)
        ax = np.asarray(ax).ravel()[:n_panels]
        epochs = np.array([row.get("epoch", i + 1) for i, row in enumerate(self.history)])
        for axes, (title, unit, lines) in zip(ax, panels):
            for label, values in lines:
                alone = np.isfinite(values).sum() == 1
                axes.plot(epochs, values, label=label, marker="." if alone else None)
            for change in _phase_changes(self.history):
                axes.axvline(epochs[change] - 0.5, color=_NEUTRAL, linestyle="--", linewidth=0.8)
            axes.set(title=title, xlabel="epoch", ylabel=unit, xlim=_padded(epochs))
            axes.xaxis.get_major_locator().set_params(integer=True)
            if len(lines) > 1:
                _legend_below(axes)
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
            axes.hist(clean, bins=20, range=(0, 1), color=_GOOD)
            return
        contained = np.asarray(self.contained, dtype=bool)
        axes.hist(
            [clean[contained], clean[~contained]],
            bins=20,
            range=(0, 1),
            stacked=True,
            color=[_GOOD, _BAD],
            label=["true class is a candidate", "true class is missing"],
        )
        _legend_below(axes)


class CandidateGridDisplay:
    """A grid of images with their candidates and what became of them.

    Above each image are its candidates; below it the purified label with its probability and the
    clean probability, and the true class where it is known. Purified labels that are right and
    wrong have different colours.

    Make one with :meth:`from_partial_labels` or :meth:`from_estimator`.

    Parameters
    ----------
    images : list of PIL.Image.Image of length n_images
        The images.
    candidates : list of list of str
        Names of the candidates of each image.
    purified : list of str, default=None
        Name of the purified label of each image.
    confidence : array-like of float of shape (n_images,), default=None
        Its probability.
    clean_probability : array-like of float of shape (n_images,), default=None
        Estimated probability that the candidates contain the truth.
    truth : list of str, default=None
        True class of each image; an empty string where unknown.

    Attributes
    ----------
    ax_ : ndarray of matplotlib.axes.Axes of shape (n_images,)
        The axes, one for each image.
    figure_ : matplotlib.figure.Figure
        The figure.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_npll import PartialLabels
    >>> from sklearn_npll.plot import CandidateGridDisplay
    >>> images = np.zeros((3, 8, 8), dtype=np.uint8)
    >>> labels = PartialLabels.from_sets([["cat"], ["cat", "dog"], ["dog"]], data=images)
    >>> display = CandidateGridDisplay.from_partial_labels(labels, rows=[1, 2])
    >>> display.candidates
    [['cat', 'dog'], ['dog']]
    """

    def __init__(
        self,
        images,
        candidates,
        purified=None,
        confidence=None,
        clean_probability=None,
        truth=None,
    ):
        self.images = images
        self.candidates = candidates
        self.purified = purified
        self.confidence = confidence
        self.clean_probability = clean_probability
        self.truth = truth

    @classmethod
    def from_partial_labels(
        cls,
        labels,
        y=None,
        *,
        rows=None,
        n_images=12,
        label_distributions=None,
        clean_probability=None,
        random_state=0,
        n_columns=6,
    ):
        """Draw images of a container.

        Parameters
        ----------
        labels : PartialLabels
            Images and candidates.
        y : array-like of shape (n_samples,), default=None
            True classes; -1 where unlabelled.
        rows : array-like of int, default=None
            Which images to draw; by default a random choice, which is stratified by clean
            probability and ordered by it if there is one.
        n_images : int, default=12
            How many to draw if rows is None.
        label_distributions : array-like or csr_array (n_samples, n_classes), default=None
            Purified labels.
        clean_probability : array-like of float of shape (n_samples,), default=None
            Estimated probability that each set of candidates contains the truth.
        random_state : int, RandomState instance or None, default=0
            For the random choice.
        n_columns : int, default=6
            Images side by side.

        Returns
        -------
        display : CandidateGridDisplay
            The drawn display.

        Raises
        ------
        ValueError
            If the samples are not images.
        """
        if labels.data is None or not is_image_data(labels.data):
            kind = "None" if labels.data is None else type(labels.data).__name__
            raise ValueError(f"CandidateGridDisplay needs images in labels.data; it is {kind}.")
        if rows is None:
            rows = _choose_rows(len(labels), n_images, clean_probability, random_state)
        rows = np.asarray(rows)
        names = labels.classes.astype(str)
        shown = {"truth": None, "purified": None, "confidence": None, "clean_probability": None}
        if y is not None:
            codes = labels.encode_labels(y)[rows]
            shown["truth"] = [names[code] if code >= 0 else "" for code in codes]
        if label_distributions is not None:
            if not issparse(label_distributions):
                label_distributions = np.asarray(label_distributions)
            distributions = as_dense(label_distributions[rows])
            shown["purified"] = names[distributions.argmax(axis=1)].tolist()
            shown["confidence"] = distributions.max(axis=1)
        if clean_probability is not None:
            shown["clean_probability"] = np.asarray(clean_probability)[rows]
        candidates = [names[row].tolist() for row in labels[rows].toarray()]
        images = read_images(labels.data, rows)
        return cls(images, candidates, **shown).plot(n_columns=n_columns)

    @classmethod
    def from_estimator(
        cls, estimator, labels, y=None, *, rows=None, n_images=12, random_state=0, n_columns=6
    ):
        """Draw images a classifier was fitted on, with what it made of their candidates.

        Parameters
        ----------
        estimator : estimator
            A fitted :class:`~sklearn_npll.CoRegClassifier`, or a pipeline that ends in one.
        labels : PartialLabels
            The images and candidates it was fitted on.
        y : array-like of shape (n_samples,), default=None
            True classes; -1 where unlabelled.
        rows : array-like of int, default=None
            Which images to draw; by default a random choice stratified by clean probability.
        n_images : int, default=12
            How many to draw if rows is None.
        random_state : int, RandomState instance or None, default=0
            For the random choice.
        n_columns : int, default=6
            Images side by side.

        Returns
        -------
        display : CandidateGridDisplay
            The drawn display.

        Raises
        ------
        ValueError
            If the samples are not images, or not those of the fit.
        """
        learner = _learner(estimator)
        _check_rows_of_fit(labels, learner.clean_probability_)
        columns = [learner.classes_.tolist().index(name) for name in labels.classes.tolist()]
        return cls.from_partial_labels(
            labels,
            y,
            rows=rows,
            n_images=n_images,
            label_distributions=learner.label_distributions_[:, columns],
            clean_probability=learner.clean_probability_,
            random_state=random_state,
            n_columns=n_columns,
        )

    def plot(self, ax=None, *, n_columns=6):
        """Draw the display.

        Parameters
        ----------
        ax : array-like of matplotlib.axes.Axes, default=None
            Where to draw, one for each image; a new figure by default.
        n_columns : int, default=6
            Images side by side in a new figure.

        Returns
        -------
        display : CandidateGridDisplay
            This object.
        """
        titles = [_in_lines(names) for names in self.candidates]
        below = [self._describe(number) for number in range(len(self.images))]
        if ax is None:
            n_lines = max(
                len(title.splitlines()) + len(text.splitlines())
                for title, (text, _) in zip(titles, below)
            )
            height = 2.2 + 0.17 * n_lines
            ax = _grid(len(self.images), n_columns, width=2.1, height=height, layout="compressed")
        ax = np.asarray(ax).ravel()[: len(self.images)]
        for number, axes in enumerate(ax):
            axes.imshow(np.asarray(self.images[number]), cmap="gray")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(titles[number], fontsize="small")
            text, color = below[number]
            axes.set_xlabel(text, color=color, fontsize="small")
        self.ax_, self.figure_ = ax, ax[0].figure
        return self

    def _describe(self, number):
        """The lines below an image and their colour."""
        lines, color = [], "black"
        truth = self.truth[number] if self.truth is not None else ""
        if self.purified is not None:
            purified = self.purified[number]
            lines.append(f"\N{RIGHTWARDS ARROW} {purified} {self.confidence[number]:.2f}")
            if truth:
                color = _GOOD if purified == truth else _BAD
        if self.clean_probability is not None:
            lines.append(f"clean {self.clean_probability[number]:.2f}")
        if truth:
            lines.append(f"true: {truth}")
        return "\n".join(lines), color


def _pyplot():
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("Drawing needs matplotlib: pip install sklearn-npll[plot].") from error
    return plt


def _grid(n_panels, n_columns, width, height, layout="constrained"):
    """Axes of a new figure, row by row; width and height are those of a panel, in inches."""
    n_columns = min(n_panels, n_columns)
    n_rows = -(-n_panels // n_columns)
    size = (width * n_columns, height * n_rows)
    axes = _pyplot().subplots(n_rows, n_columns, figsize=size, layout=layout, squeeze=False)[1]
    for unused in axes.ravel()[n_panels:]:
        unused.remove()
    return axes.ravel()[:n_panels]


def _padded(epochs):
    margin = 0.04 * (epochs[-1] - epochs[0]) + 0.5
    return epochs[0] - margin, epochs[-1] + margin


def _legend_below(axes):
    axes.legend(
        frameon=False, fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18)
    )


def _best(estimator):
    """The fitted estimator of a search, or the estimator itself."""
    return getattr(estimator, "best_estimator_", estimator)


def _learner(estimator):
    estimator = _best(estimator)
    return estimator[-1] if isinstance(estimator, Pipeline) else estimator


def _check_rows_of_fit(labels, clean_probability):
    if len(labels) != len(clean_probability):
        raise ValueError(
            f"labels has {len(labels)} rows but the estimator was fitted on"
            f" {len(clean_probability)}; pass the ones it was fitted on."
        )


def _annotator_choice(labels):
    """How much of each sample the annotator gave to each class, (n_samples, n_classes)."""
    n_samples, n_classes = labels.shape
    if labels.scores is not None:
        return np.eye(n_classes)[largest_columns(labels.scores)]
    if labels.votes is None:
        return labels.toarray() / labels.set_sizes[:, None]
    shares = np.zeros((n_samples, n_classes + 1))  # the last column gathers abstentions
    for vote in labels.votes.T:
        shares[np.arange(n_samples), vote] += 1
    shares = shares[:, :-1]
    silent = shares.sum(axis=1) == 0
    shares[silent] = 1
    return shares / shares.sum(axis=1, keepdims=True)


def _write_values(axes, values, limits):
    form = "+.0f" if limits[0] < 0 else ".0f"
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value) and round(abs(value)):
            color = "white" if abs(value) > 0.6 * limits[1] else "black"
            text = format(value, form)
            axes.text(column, row, text, ha="center", va="center", fontsize="small", color=color)


def _encode_some(labels, y):
    """Codes of the true classes, of which at least one is known."""
    codes = labels.encode_labels(y)
    if not (codes >= 0).any():
        raise ValueError("No sample in y is labelled, so there is no truth to compare with.")
    return codes


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


def _choose_rows(n_samples, n_images, clean_probability, random_state):
    """Random rows; with clean probabilities one of each quantile, in ascending order."""
    random = check_random_state(random_state)
    n_images = min(n_images, n_samples)
    if clean_probability is None:
        return np.sort(random.choice(n_samples, n_images, replace=False))
    order = np.argsort(clean_probability, kind="stable")
    return np.array([random.choice(part) for part in np.array_split(order, n_images)])


def _in_lines(names, width=20, n_lines=2):
    """Names separated by commas in a few lines, the number of those left out at the end."""
    lines = [""]
    for number, name in enumerate(names):
        if lines[-1] and len(lines[-1]) + len(name) + 2 > width:
            if len(lines) == n_lines:
                return "\n".join(lines) + f" +{len(names) - number}"
            lines[-1] += ","
            lines.append("")
        lines[-1] += f", {name}" if lines[-1] else name
    return "\n".join(lines)
