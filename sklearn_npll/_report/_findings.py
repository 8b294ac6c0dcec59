"""What is worth telling of candidate labels, in figures."""

import numpy as np
from scipy import sparse as sp

from .._evidence import preferred_classes


def class_shares(labels, codes):
    """Return how often each class is preferred, and how often it is a candidate.

    Parameters
    ----------
    labels : PartialLabels
    codes : int ndarray of shape (n_samples,)
        The class preferred for each sample.

    Returns
    -------
    preferred, candidate : ndarray of shape (n_classes,)
        Shares of the samples.

    Examples
    --------
    >>> from sklearn_npll import PartialLabels
    >>> labels = PartialLabels.from_candidates([[1, 1, 0], [0, 1, 0]])
    >>> class_shares(labels, np.array([0, 1]))
    (array([0.5, 0.5, 0. ]), array([0.5, 1. , 0. ]))
    """
    n_samples, n_classes = labels.shape
    preferred = np.bincount(codes, minlength=n_classes) / n_samples
    return preferred, np.bincount(labels.tocsr().indices, minlength=n_classes) / n_samples


def confused_pairs(labels, least=0.25, n_least=2):
    """Return the classes that are often candidates of the same sample.

    Parameters
    ----------
    labels : PartialLabels
    least : float, default=0.25
        Of the samples with either as a candidate, the share with both from which to tell.
    n_least : int, default=2
        The number of samples with both from which to tell.

    Returns
    -------
    list of (int, int, int, float)
        Two classes, the number of samples with both, and their share; the largest share first.

    Examples
    --------
    >>> from sklearn_npll import PartialLabels
    >>> labels = PartialLabels.from_candidates([[1, 1, 0], [1, 1, 0], [0, 1, 1], [0, 1, 0]])
    >>> confused_pairs(labels)
    [(0, 1, 2, 0.5)]
    """
    csr = sp.csr_array(labels.tocsr(), dtype=np.int64)
    together = sp.coo_array(sp.triu(csr.T @ csr, k=1))
    counts = np.bincount(csr.indices, minlength=csr.shape[1])
    first, second, both = together.row, together.col, together.data
    shares = both / (counts[first] + counts[second] - both)
    order = np.lexsort((-both, -shares))
    order = order[(shares[order] >= least) & (both[order] >= n_least)]
    columns = (values[order].tolist() for values in (first, second, both, shares))
    return list(zip(*columns))


def template_agreement(votes, codes):
    """Return the share of samples for which each prompt chose the preferred class.

    Parameters
    ----------
    votes : int ndarray of shape (n_samples, n_prompts)
    codes : int ndarray of shape (n_samples,)

    Returns
    -------
    ndarray of shape (n_prompts,)

    Examples
    --------
    >>> template_agreement(np.array([[0, 1], [1, 1]]), np.array([0, 1]))
    array([1. , 0.5])
    """
    return (votes == codes[:, None]).mean(axis=0)


def changes(before, after):
    """Count the changes of labels from each class to each other.

    Parameters
    ----------
    before, after : int ndarray of shape (n_samples,)
        Classes.

    Returns
    -------
    list of (int, int, int)
        From, to and how many; the most frequent first.

    Examples
    --------
    >>> changes(np.array([0, 0, 1, 2]), np.array([1, 1, 1, 0]))
    [(0, 1, 2), (2, 0, 1)]
    """
    changed = before != after
    pairs = np.stack([before[changed], after[changed]], axis=1)
    pairs, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(*pairs[i].tolist(), int(counts[i])) for i in order]


def best_of_each(codes, confidence, n):
    """Return the most confident samples, as many of each class as possible.

    Parameters
    ----------
    codes : int ndarray of shape (n_samples,)
        Classes.
    confidence : ndarray of shape (n_samples,)
    n : int
        How many samples.

    Returns
    -------
    int ndarray of shape (n,) or less
        Rows, class by class.

    Examples
    --------
    >>> best_of_each(np.array([0, 0, 0, 1]), np.array([0.9, 0.7, 0.8, 0.2]), 3)
    array([0, 2, 3])
    """
    order = np.lexsort((-confidence, codes))
    starts = np.searchsorted(codes[order], codes[order])
    rank = np.arange(len(order)) - starts
    chosen = np.lexsort((-confidence[order], rank))[:n]
    return order[np.sort(chosen)]


def judge(labels, y, learned=None):
    """Compare labels with true ones.

    Parameters
    ----------
    labels : PartialLabels
        What the annotator said.
    y : array-like of shape (n_samples,)
        True classes; -1 where the truth is not known.
    learned : PartialLabels, default=None
        The same samples with the learner's probabilities as scores. Those that are known in it are
        not judged, as the learner was given their labels.

    Returns
    -------
    codes : int ndarray of shape (n_judged,)
        True classes of the samples that are judged.
    right : dict of str to bool ndarray of shape (n_judged,)
        What is the case for which of them: ``"annotator right"``, ``"truth in the set"`` of
        candidates and, if it is given, ``"learner right"``.

    Examples
    --------
    >>> from sklearn_npll import PartialLabels
    >>> labels = PartialLabels.from_votes([[0, 0], [0, 0], [1, 0]], ["cat", "dog"])
    >>> codes, right = judge(labels, ["-1", "dog", "dog"])
    >>> codes
    array([1, 1])
    >>> right
    {'annotator right': array([False, False]), 'truth in the set': array([False,  True])}
    """
    codes = labels.encode_labels(y)
    judged = codes >= 0
    if learned is not None and learned.known is not None:
        judged &= ~learned.known
    right = {
        "annotator right": preferred_classes(labels)[0] == codes,
        "truth in the set": labels.contains(y),
    }
    if learned is not None:
        right["learner right"] = preferred_classes(learned)[0] == codes
    return codes[judged], {name: values[judged] for name, values in right.items()}
