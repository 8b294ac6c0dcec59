"""Predicting rows with a scikit-learn classifier that has not seen them."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import check_cv
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .._candidate_rows import fit_on_candidates
from .._distributions import restrict


def default_estimator():
    """Logistic regression on standardised features, with a penalty that withstands noise."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=1000))


def predict_columns(estimator, data, n_classes):
    """Predict probabilities (n, C) with a classifier whose classes are columns; 0 for others."""
    proba = np.zeros((len(data), n_classes))
    proba[:, estimator.classes_] = estimator.predict_proba(data)
    return proba


def cross_val_proba(estimator, data, weights, cv, n_rounds=1):
    """Predict each row by a clone that was not trained on it.

    Parameters
    ----------
    estimator : estimator
    data : ndarray of shape (n, n_features)
    weights : ndarray of shape (n, C)
        Of the candidates: rows of sum 1, 0 elsewhere.
    cv : int or cross-validation generator
        Each row must be in one test set. Folds of a number are stratified by the largest weight.
    n_rounds : int, default=1
        After each round the candidates are weighted by the predictions. Single labels take one.

    Returns
    -------
    proba : ndarray of shape (n, C)
    weights : ndarray of shape (n, C)
        What another round would start from.
    judged : bool ndarray of shape (n,)
        Rows of which some candidate was among the classes of the clone that predicted them. Of the
        others it cannot tell whether the label is right.

    Raises
    ------
    ValueError
        If a row is in no or in several test sets, or the rows cannot be split.
    """
    candidates, labels = weights > 0, weights.argmax(axis=1)
    try:
        folds = list(check_cv(cv, labels, classifier=True).split(data, labels))
    except ValueError as error:
        raise ValueError(
            f"cv={cv!r} cannot split the {len(data)} rows with a label, so set cv, as to fewer "
            f"folds: {error}"
        ) from error
    tested = np.concatenate([test for _, test in folds])
    if len(tested) != len(data) or len(np.unique(tested)) != len(data):
        raise ValueError(
            f"cv={cv!r} does not put every row into exactly one test set, as KFold and "
            "StratifiedKFold do"
        )
    proba, judged = np.empty(weights.shape), np.empty(len(data), dtype=bool)
    for _ in range(n_rounds if candidates.sum() > len(data) else 1):
        for train, test in folds:
            known = weights[train].any(axis=0)
            if np.count_nonzero(known) == 1:  # which many classifiers refuse to learn
                proba[test] = known
            else:
                model = fit_on_candidates(estimator, data[train], weights[train])
                proba[test] = predict_columns(model, data[test], weights.shape[1])
            judged[test] = candidates[test][:, known].any(axis=1)
        weights = restrict(proba, candidates)
    return proba, weights, judged
