"""What `score` means for every classifier of the package."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.metrics import accuracy_score
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted

from ._inputs import as_array, as_labels, is_matrix, is_unlabelled
from ._messages import did_you_mean, name_classes
from ._partial_labels import PartialLabels
from ._typing import MatrixLike, Samples
from .model_selection import approximated_accuracy_scorer, covering_rate_scorer


class ScoreMixin:
    """Gives a classifier `score`, which takes true labels, candidates or the annotator's output."""

    def score(
        self: Any, X: Samples, y: MatrixLike | None = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Score predictions against labels, candidate sets, or the annotator.

        Parameters
        ----------
        X : PartialLabels or samples
            Samples as in `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_classes), PartialLabels, default=None
            True labels, of which -1 are left out; or candidates. A label that is no class of the
            classifier counts as wrong, as everywhere in scikit-learn.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, for true labels only.

        Returns
        -------
        float
            Accuracy for labels; covering rate (share of predictions among the candidates) for
            candidates; and without y, for X a `PartialLabels`, the approximated accuracy (mean
            candidate-restricted confidence of the prediction). The last two measure agreement
            with the annotator, not correctness.

        Raises
        ------
        ValueError
            If y is missing while X brings no candidates, has names where the classes are numbers
            or the other way round, every label is -1, or candidates are weighted.

        Warns
        -----
        UserWarning
            If y names classes that the classifier does not know.
        """
        is_partial = isinstance(y, PartialLabels)
        if not (y is None or is_partial or issparse(y)):
            y = as_array(y)
        is_candidates = is_partial or (y is not None and is_matrix(y))
        if sample_weight is not None and (y is None or is_candidates):
            raise ValueError("sample_weight needs true labels y; candidates cannot be weighted")
        if y is None:
            if not isinstance(X, PartialLabels):
                raise ValueError("score needs y unless X is a PartialLabels")
            return approximated_accuracy_scorer(self, X)
        if is_candidates:
            return covering_rate_scorer(self, X, y)
        check_is_fitted(self)
        y = as_labels(y)
        labelled = np.full(len(y), True) if -1 in self.classes_.tolist() else ~is_unlabelled(y)
        if not labelled.any():
            raise ValueError("every label in y is -1 (unlabelled); there is nothing to score")
        _warn_of_unknown(y[labelled], self.classes_)
        y_pred = self.predict(X)
        check_consistent_length(y, y_pred, sample_weight)
        if sample_weight is not None:
            sample_weight = np.asarray(sample_weight, dtype=np.float64)[labelled]
        return float(accuracy_score(y[labelled], y_pred[labelled], sample_weight=sample_weight))


def _warn_of_unknown(y, classes):
    """Warn of labels that no prediction can match; refuse names in place of numbers, or reverse."""
    classes = classes.tolist()
    known = set(classes)
    unknown = [label for label in y.tolist() if label not in known]
    if not unknown:
        return
    if isinstance(unknown[0], str) != isinstance(classes[0], str):
        raise ValueError(
            f"y has the label {unknown[0]!r}, but the classes of the classifier are"
            f" {name_classes(classes)}: compare names with names, or numbers with numbers."
        )
    names = sorted(set(unknown))
    warnings.warn(
        f"y names classes that the classifier does not know: {name_classes(names)}. Their rows,"
        f" {len(unknown) / len(y):.1%} of those with a label, count as wrong."
        f"{did_you_mean(names[0], classes)}",
        UserWarning,
        stacklevel=3,  # the caller of score
    )
