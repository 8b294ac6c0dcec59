"""What annotators have in common, however they annotate."""

import copy
import os
import warnings

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils.validation import check_is_fitted

from .._compat import TagsMixin, fit_context
from .._evidence import largest_columns
from .._images import as_samples, check_collection, check_not_empty, is_image_data
from .._inputs import forget_features, validate_features
from .._partial_labels import PartialLabels, encode_labels
from .._rows import length, take
from .._rules import trust_labels
from .._typing import Array, Samples, Self


def sets_where(answered, scores, make_sets):
    """Make candidate sets of the rows with an answer; those without keep all classes.

    Parameters
    ----------
    answered : ndarray of bool of shape (n_samples,)
    scores : ndarray of shape (n_samples, n_classes)
    make_sets : callable
        ``make_sets(scores)`` returns bool (n_rows, n_classes). A rule that compares rows sees only
        those with an answer.

    Returns
    -------
    ndarray of bool of shape (n_samples, n_classes)
    """
    candidates = np.ones(scores.shape, dtype=bool)
    candidates[answered] = make_sets(scores[answered])
    return candidates


def looks_few_shot(y):
    """Whether y contains -1 for unlabelled, and labels besides."""
    if y is None:
        return False
    y = np.asarray(y)
    missing = y.astype(str) == "-1" if y.dtype.kind in "OSU" else y == -1
    return bool(missing.any() and not missing.all())


def _refuse_column_of_images(X, error):
    """Raise a ValueError if X is a data frame of paths, or of images, and not of numbers."""
    if (hasattr(X, "iloc") or hasattr(X, "row")) and len(X):
        for name, value in zip(X.columns, X.iloc[0] if hasattr(X, "iloc") else X.row(0)):
            if isinstance(value, (str, bytes, os.PathLike, Image.Image)):
                raise ValueError(
                    f"X is a data frame whose column {name!r} holds no numbers, but"
                    f" {type(value).__name__}. If these are images or their paths, pass the column"
                    f" alone: df[{name!r}]."
                ) from error


class BasePartialAnnotator(TagsMixin, TransformerMixin, BaseEstimator):
    """The methods of an annotator, made of two of its own.

    ``_fit(X, y, known_labels, annotate)`` checks and fits, sets ``classes_``, and, if `annotate`,
    returns what `_annotate` does of the checked samples and the codes of the trusted labels, or
    None. ``_plan()`` returns a callable that does not change any more:
    ``plan(data, codes=None)`` returns the parts of a :class:`~sklearn_npll.PartialLabels`; a row
    with a code of at least 0 gets this class as its only candidate.
    """

    _shared_by_clones: tuple[str, ...] = ()  # parameters that a clone has the same object of
    _needs_labels = False  # whether fit takes known_labels, and cannot do without
    _is_transductive = False  # whether scores of a sample depend on the others in the same call
    _embeds = False  # whether containers hold embeddings in place of the samples

    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self, X: Samples, y: ArrayLike | None = None, known_labels: ArrayLike | None = None
    ) -> Self:
        """Fit. Samples are annotated only where the notes of the class say so.

        Parameters
        ----------
        X : images or array-like of shape (n_samples, n_features)
            The samples; see the notes of the class for what they may be.
        y : array-like of shape (n_samples,), default=None
            Ignored, unless `use_y`.
        known_labels : array-like of shape (n_samples,), default=None
            Labels to trust; -1 where there is none. Only :meth:`fit_transform` uses them.

        Returns
        -------
        self : object
            The fitted annotator.

        Raises
        ------
        ValueError
            If a parameter, a name or a label is not usable.
        """
        self._fit(X, y, known_labels, annotate=False)
        return self

    @fit_context(prefer_skip_nested_validation=False)
    def fit_transform(
        self, X: Samples, y: ArrayLike | None = None, known_labels: ArrayLike | None = None
    ) -> PartialLabels:
        """Fit, and annotate the samples at once.

        Parameters
        ----------
        X : images or array-like of shape (n_samples, n_features)
            The samples; see the notes of the class for what they may be.
        y : array-like of shape (n_samples,), default=None
            Ignored, unless `use_y`; then class labels to trust, and -1 where there is none.
        known_labels : array-like of shape (n_samples,), default=None
            Class labels to trust, and -1 where there is none. If given, y is ignored.

        Returns
        -------
        labels : PartialLabels of shape (n_samples, n_classes)
            Candidates, with scores and votes. Rows with a trusted label have it as their only
            candidate and are marked in ``known``.

        Raises
        ------
        ImageReadError
            If an image cannot be read and `on_error` is "raise". A ValueError that has its
            ``index`` and ``path``.
        """
        data, parts = self._fit(X, y, known_labels, annotate=True)
        return PartialLabels(data, self.classes_, **parts)

    def transform(self, X: Samples) -> PartialLabels:
        """Return a container that annotates the samples when its candidates are first used.

        Parameters
        ----------
        X : images or array-like of shape (n_samples, n_features)
            The samples; see the notes of the class for what they may be.

        Returns
        -------
        labels : PartialLabels of shape (n_samples, n_classes)
            The container. What it will hold is settled now: changing or fitting this annotator
            again has no effect on it.
        """
        data, plan = self._data_and_plan(self._check_X(X))
        return PartialLabels(data, self.classes_, plan=plan)

    def predict_proba(self, X: Samples) -> Array:
        """Scores of the classes by the annotator alone.

        Parameters
        ----------
        X : images or array-like of shape (n_samples, n_features)
            The samples.

        Returns
        -------
        proba : ndarray of float32 of shape (n_samples, n_classes)
            The scores, which sum to one.
        """
        X = self._check_X(X)
        return self._all_scores(X)

    def predict(self, X: Samples) -> Array:
        """Classes with the largest score.

        Parameters
        ----------
        X : images or array-like of shape (n_samples, n_features)
            The samples.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Class labels.
        """
        X = self._check_X(X)
        codes = largest_columns(self._plan()(X)["scores"])
        return self.classes_[codes]

    def score(self, X: Samples, y: ArrayLike) -> float:
        """Accuracy of :meth:`predict`.

        Parameters
        ----------
        X : images or array-like of shape (n_samples, n_features)
            The samples.
        y : array-like of shape (n_samples,)
            Class labels; rows with -1 are left out. They are not even annotated, unless scores
            depend on all samples.

        Returns
        -------
        accuracy : float
            Share of labelled rows predicted correctly. NaN, with a warning, if there are none.
        """
        X = self._check_X(X)
        codes = encode_labels(y, self.classes_, length(X, "X"))
        labelled = codes >= 0
        if not labelled.any():
            warnings.warn(
                "No sample in y is labelled, so the accuracy is NaN.",
                UndefinedMetricWarning,
                stacklevel=2,
            )
            return float("nan")
        if not labelled.all() and not self._is_transductive:  # asking may cost money
            X, codes = take(X, np.flatnonzero(labelled)), codes[labelled]
        correct = largest_columns(self._plan()(X)["scores"]) == codes
        return float(correct[codes >= 0].mean())

    def set_output(self, *, transform: str | None = None) -> Self:
        """Do nothing: the output is always a :class:`~sklearn_npll.PartialLabels`.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"}, default=None
            Ignored.

        Returns
        -------
        self : object
            The annotator.
        """
        return self

    def _all_scores(self, X):
        """Return the scores of all classes for checked samples."""
        return self._plan()(X)["scores"]

    def _data_and_plan(self, X):
        """Decide what a container for checked samples carries, and how it is annotated."""
        return X, self._plan()

    def _annotate(self, X, codes):
        """Return what a container for checked samples carries, and all else that it holds."""
        data, plan = self._data_and_plan(X)
        return data, plan(data, codes)

    def _trusted_labels(self, y, known_labels):
        """Return the labels to trust, or None, and what they are called; for ``_fit`` to call."""
        if known_labels is None and not self.use_y and looks_few_shot(y):
            warnings.warn(
                "y contains -1, so it seems to hold a few known labels, but it is ignored. To"
                " trust them set use_y=True, or pass known_labels to fit.",
                stacklevel=5,  # this method, _fit, fit, its validation, the caller
            )
        if known_labels is not None:
            return known_labels, "known_labels"
        return y if self.use_y else None, "y"

    def _check_X(self, X, reset=False):
        """Check samples; a 2-D array is copied if need be, images never."""
        if not reset:
            check_is_fitted(self)
        if isinstance(X, PartialLabels):
            raise ValueError(
                "X is a PartialLabels, whose samples are annotated already; pass its data to"
                " annotate them again."
            )
        if X is None:
            raise ValueError("X is None; pass the samples to annotate.")
        check_collection(X)
        check_not_empty(X)
        if not is_image_data(X):
            try:
                return validate_features(self, X, reset, [np.float64, np.float32])
            except (TypeError, ValueError) as error:
                _refuse_column_of_images(X, error)
                raise
        as_samples(X)
        if reset:
            forget_features(self)
        return X

    def _tag_values(self):
        return {"transformer_tags.preserves_dtype": []}

    def __sklearn_clone__(self):
        params = {
            name: value if name in self._shared_by_clones else clone(value, safe=False)
            for name, value in self.get_params(deep=False).items()
        }
        new = type(self)(**params)
        if hasattr(self, "_metadata_request"):
            new._metadata_request = copy.deepcopy(self._metadata_request)
        return new


class MetaPartialAnnotator(BasePartialAnnotator):
    """An annotator that asks other annotators.

    Its plan has a method ``decide`` that makes the parts of a `PartialLabels` of what the others
    said, and its ``_fit`` returns what `_decide` does.
    """

    def _check_X(self, X, reset=False):
        """Check samples; a data frame is returned as it is, for annotators go by its columns."""
        checked = super()._check_X(X, reset=reset)
        return X if hasattr(X, "columns") else checked

    def _decide(self, X, answers, codes):
        """Return what a container for checked samples carries, given what the others said."""
        decided = self._plan().decide(answers)
        if codes is not None:
            decided["candidates"] = trust_labels(decided["candidates"], codes)
            decided["known"] = codes >= 0
        return X, decided
