"""What annotators have in common, however they annotate."""

import copy
import warnings

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils.validation import check_is_fitted

from .._compat import fit_context, validate_data
from .._images import as_samples, check_collection, check_not_empty, is_image_data
from .._partial_labels import PartialLabels
from ._vlm_annotator import _encode_labels, _looks_few_shot


class PartialAnnotatorMixin:
    """The methods of an annotator, made of two of its own.

    ``_fit(X, y, known_labels)`` fits, sets ``classes_``, and returns the checked samples and the
    codes of the trusted labels. ``_plan()`` returns a callable that does not change any more:
    ``plan(data, codes=None)`` returns the parts of a :class:`~sklearn_npll.PartialLabels`.
    """

    _shared_by_clones = ()  # parameters that a clone has the same object of

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, known_labels=None):
        """Check the parameters and the kind of the samples. None is annotated.

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
        self._fit(X, y, known_labels)
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X, y=None, known_labels=None):
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
        X, codes = self._fit(X, y, known_labels)
        return PartialLabels(X, self.classes_, **self._plan()(X, codes))

    def transform(self, X):
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
        return PartialLabels(self._check_X(X), self.classes_, plan=self._plan())

    def predict_proba(self, X):
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
        return self._plan()(X)["scores"]

    def predict(self, X):
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
        codes = self.predict_proba(X).argmax(axis=1)
        return self.classes_[codes]

    def score(self, X, y):
        """Accuracy of :meth:`predict`.

        Parameters
        ----------
        X : images or array-like of shape (n_samples, n_features)
            The samples.
        y : array-like of shape (n_samples,)
            Class labels; rows with -1 are left out.

        Returns
        -------
        accuracy : float
            Share of labelled rows predicted correctly. NaN, with a warning, if there are none.
        """
        X = self._check_X(X)
        codes = _encode_labels(X, self.classes_, y)
        labelled = codes >= 0
        if not labelled.any():
            warnings.warn(
                "No sample in y is labelled, so the accuracy is NaN.",
                UndefinedMetricWarning,
                stacklevel=2,
            )
            return float("nan")
        correct = self.predict_proba(X).argmax(axis=1) == codes
        return float(correct[labelled].mean())

    def set_output(self, *, transform=None):
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

    def _trusted_codes(self, X, classes, y, known_labels):
        """Codes of the labels to trust, -1 where there is none; None without any."""
        if known_labels is None and self.use_y:
            known_labels = y
        elif known_labels is None and _looks_few_shot(y):
            warnings.warn(
                "y contains -1, so it seems to hold a few known labels, but it is ignored. To"
                " trust them set use_y=True, or pass known_labels to fit.",
                stacklevel=5,
            )
        return None if known_labels is None else _encode_labels(X, classes, known_labels)

    def _check_X(self, X, reset=False):
        """Check samples; a 2-D array is copied if need be, images never."""
        if not reset:
            check_is_fitted(self)
        check_collection(X)
        check_not_empty(X)
        if not is_image_data(X):
            return validate_data(self, X, reset=reset, dtype=[np.float64, np.float32])
        as_samples(X)
        if reset:
            for name in ("n_features_in_", "feature_names_in_"):
                vars(self).pop(name, None)  # of a fit on features
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
