"""Any scikit-learn classifier on candidate sets: what it can do, a weighted row a candidate."""

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter


def estimator_has_predict_proba(self):
    """Tell whether a meta-estimator's estimator predicts probabilities."""
    return hasattr(getattr(self, "estimator_", self.estimator), "predict_proba")


def weight_name(estimator):
    """Return under which name `fit` of a classifier, or of a pipeline, takes sample weights.

    Parameters
    ----------
    estimator : estimator

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If it takes none.
    """
    prefix = ""
    while isinstance(estimator, Pipeline):
        step, estimator = estimator.steps[-1]
        prefix += f"{step}__"
    if not has_fit_parameter(estimator, "sample_weight"):
        raise ValueError(
            f"rows are to be weighted, but fit of {type(estimator).__name__} has no "
            "sample_weight; choose another estimator"
        )
    return f"{prefix}sample_weight"


def fit_on_candidates(estimator, data, weights):
    """Fit a clone on every row once for each of its candidates, weighted.

    The repeated rows are a dense copy, as estimators take no other form of it.

    Parameters
    ----------
    estimator : estimator
    data : ndarray of shape (n, n_features)
    weights : ndarray of shape (n, C)
        Rows of sum 1, 0 outside the candidates; rows of sum 0 are left out.

    Returns
    -------
    estimator
        Fitted; its classes are columns of `weights`.

    Raises
    ------
    ValueError
        If a row has several candidates and the estimator takes no sample weights.
    """
    rows, codes = np.nonzero(weights)
    if len(np.unique(rows)) == len(rows):  # single labels, which any estimator can learn from
        return clone(estimator).fit(data[rows], codes)
    sample_weight = {weight_name(estimator): weights[rows, codes]}
    return clone(estimator).fit(data[rows], codes, **sample_weight)
