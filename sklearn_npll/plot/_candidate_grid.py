"""Images with their candidates and what became of them."""

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_random_state

from .._evidence import as_dense
from .._images import is_image_data, read_images
from ._drawing import BAD, GOOD, make_grid
from ._inputs import check_rows_of_fit, learner_of


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
        learner = learner_of(estimator)
        check_rows_of_fit(labels, learner.clean_probability_)
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
            ax = make_grid(
                len(self.images), n_columns, width=2.1, height=height, layout="compressed"
            )
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
                color = GOOD if purified == truth else BAD
        if self.clean_probability is not None:
            lines.append(f"clean {self.clean_probability[number]:.2f}")
        if truth:
            lines.append(f"true: {truth}")
        return "\n".join(lines), color


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
