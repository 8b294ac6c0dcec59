"""What an annotator that asks others needs of them."""

import copy

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import has_fit_parameter

from .._evidence import annotator_shares
from .._inputs import last_step
from .._partial_labels import PartialLabels


def fit_annotator(annotator, X, known_labels=None):
    """Fit an annotator, without y.

    Parameters
    ----------
    annotator : estimator
        It is fitted itself, not a clone of it.
    X : samples
    known_labels : array-like of shape (n_samples,), default=None
        Passed on if the annotator's ``fit`` takes them.
    """
    if known_labels is not None and has_fit_parameter(annotator, "known_labels"):
        annotator.fit(X, None, known_labels=known_labels)
    else:
        annotator.fit(X, None)  # fit of a FrozenEstimator cannot do without y


def needs_labels(annotator):
    """Tell whether an annotator cannot be fitted without `known_labels`."""
    # A FrozenEstimator, which is not fitted, passes on the attributes of what it holds.
    return has_fit_parameter(annotator, "known_labels") and getattr(
        annotator, "_needs_labels", False
    )


def is_transductive(annotator):
    """Tell whether what a fitted annotator says of a sample depends on the others it comes with."""
    return getattr(last_step(annotator), "_is_transductive", False)


def embeds(annotator):
    """Tell whether what a fitted annotator returns holds embeddings in place of the samples."""
    return getattr(last_step(annotator), "_embeds", False)


def copy_estimators(value):
    """Copy an estimator and those in it, so that fitting one again does not reach the copy.

    Parameters
    ----------
    value : estimator, list or tuple of estimators, or anything else
        Estimators in its attributes, and in lists and tuples, are copied, too. All else, such as
        models, is shared.

    Returns
    -------
    object
        The copy.
    """
    if type(value) in (list, tuple):
        return type(value)(map(copy_estimators, value))
    if not isinstance(value, BaseEstimator):
        return value
    copied = copy.copy(value)
    vars(copied).update({name: copy_estimators(own) for name, own in vars(copied).items()})
    return copied


def check_classes(annotator, who):
    """Return the classes of a fitted annotator, sorted.

    Raises
    ------
    TypeError
        If it has none.
    """
    classes = getattr(annotator, "classes_", None)
    if classes is None:
        raise TypeError(f"{who} ({type(annotator).__name__}) has no classes_ after fit.")
    return np.sort(classes)


def check_answers(labels, who):
    """Return what an annotator said, if it is a `PartialLabels`.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if not isinstance(labels, PartialLabels):
        raise TypeError(
            f"{who} is no annotator: its transform must return a PartialLabels, as that of"
            f" VLMPartialAnnotator does; got {type(labels).__name__}."
        )
    return labels


def check_probabilities(labels, who):
    """Return the probabilities of an annotator that has scores or votes.

    Parameters
    ----------
    labels : PartialLabels
    who : str
        Who annotated, for the error.

    Returns
    -------
    ndarray of float32 of shape (n_samples, n_classes)
        The scores, or else the shares of the votes.

    Raises
    ------
    ValueError
        If there are neither, or the scores are not probabilities.
    """
    proba = annotator_shares(labels.scores, labels.votes, labels.shape[1])
    if proba is None:
        raise ValueError(f"{who} gives candidates without scores or votes, which are needed here.")
    return proba.astype(np.float32)


def abstained(labels):
    """Tell in which rows every prompt of an annotator abstained, as where no image can be read.

    Parameters
    ----------
    labels : PartialLabels

    Returns
    -------
    ndarray of bool of shape (n_samples,)
    """
    if labels.votes is None:
        return np.zeros(len(labels), dtype=bool)
    return (labels.votes < 0).all(axis=1)
