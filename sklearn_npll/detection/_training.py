"""Training any scikit-learn classifier on candidate sets, and predicting rows it has not seen."""

import numpy as np
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import has_fit_parameter

from ._rules import candidate_shares


def default_estimator():
    """Logistic regression on standardised features, with a penalty that withstands noise."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=1000))


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


def fit_on_candidates(estimator, data, candidates):
    """Fit a clone on every row once for each of its candidates, with weights of sum 1 a row.

    Parameters
    ----------
    estimator : estimator
    data : ndarray of shape (n, n_features)
    candidates : bool ndarray of shape (n, C)

    Returns
    -------
    estimator
        Fitted; its classes are columns of `candidates`.
    """
    rows, codes = np.nonzero(candidates)
    if len(rows) == len(data):  # single labels, which any estimator can learn from
        return clone(estimator).fit(data, codes)
    weights = {weight_name(estimator): candidate_shares(candidates)[rows, codes]}
    return clone(estimator).fit(data[rows], codes, **weights)


def predict_columns(estimator, data, n_classes):
    """Predict probabilities (n, C) with a classifier whose classes are columns; 0 for others."""
    proba = np.zeros((len(data), n_classes))
    proba[:, estimator.classes_] = estimator.predict_proba(data)
    return proba


def cross_val_proba(estimator, data, candidates, cv):
    """Predict each row by a clone that was not trained on it.

    Parameters
    ----------
    estimator : estimator
    data : ndarray of shape (n, n_features)
    candidates : bool ndarray of shape (n, C)
    cv : int or cross-validation generator
        Each row must be in one test set. Folds of a number are stratified by the first candidate.

    Returns
    -------
    ndarray of shape (n, C)

    Raises
    ------
    ValueError
        If a row is in no or in several test sets.
    """
    labels = candidates.argmax(axis=1)
    proba, n_tests = np.zeros(candidates.shape), np.zeros(len(data), dtype=int)
    for train, test in check_cv(cv, labels, classifier=True).split(data, labels):
        model = fit_on_candidates(estimator, data[train], candidates[train])
        proba[test] = predict_columns(model, data[test], candidates.shape[1])
        n_tests[test] += 1
    if (n_tests != 1).any():
        raise ValueError(
            f"cv={cv!r} does not put every row into exactly one test set, as KFold and "
            "StratifiedKFold do"
        )
    return proba
