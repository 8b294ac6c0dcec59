"""Candidate rules: from the votes or scores of an annotator to sets of candidate classes."""

import numbers

import numpy as np
from scipy import sparse as sp

from ._messages import did_you_mean, name_rows

# Thresholds are written as decimals and probabilities are often float32, so 0.3 + 0.6 is 0.9.
TOLERANCE = 1e-6


def union_candidates(votes, n_classes, *, sparse=False):
    """Take every class that at least one prompt votes for.

    Parameters
    ----------
    votes : array-like of int of shape (n_samples, n_prompts)
        Index of the class each prompt chose; -1 where it abstained.
    n_classes : int
        Number of classes.
    sparse : bool, default=False
        Whether to return a CSR array, whose memory does not depend on the number of classes.

    Returns
    -------
    candidates : ndarray or csr_array of bool of shape (n_samples, n_classes)
        The candidate classes. A row in which every prompt abstained says nothing about its
        label, so all its classes are candidates.

    Raises
    ------
    ValueError
        If a vote is not -1 or the index of a class.

    Examples
    --------
    >>> union_candidates([[0, 2, 0], [1, 1, -1]], n_classes=3).astype(int)
    array([[1, 0, 1],
           [0, 1, 0]])
    """
    votes = np.asarray(votes)
    if votes.ndim != 2 or not np.issubdtype(votes.dtype, np.integer):
        raise ValueError(
            "votes must be integers of shape (n_samples, n_prompts), the index of the class each"
            f" prompt chose, or -1; got dtype {votes.dtype} and shape {votes.shape}."
        )
    wrong = (votes < -1) | (votes >= n_classes)
    if wrong.any():
        row, prompt = np.argwhere(wrong)[0]
        raise ValueError(
            f"votes[{row}, {prompt}] is {votes[row, prompt]}; a vote is the index of a class, 0 to"
            f" {n_classes - 1}, or -1 for a prompt that abstained."
        )
    # Sorted rows are the CSR structure itself once repeated votes are dropped.
    ordered = np.sort(votes, axis=1)
    chosen = ordered >= 0
    chosen[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    sizes = chosen.sum(axis=1)
    silent = sizes == 0
    sizes[silent] = n_classes
    in_silent_row = np.repeat(silent, sizes)
    columns = np.empty(sizes.sum(), dtype=np.int32)
    columns[~in_silent_row] = ordered[chosen]
    columns[in_silent_row] = np.tile(np.arange(n_classes), silent.sum())
    candidates = sp.csr_array(
        (np.ones(len(columns), dtype=bool), columns, np.concatenate([[0], np.cumsum(sizes)])),
        shape=(len(votes), n_classes),
    )
    return candidates if sparse else candidates.toarray()


def topk_candidates(scores, k=3):
    """Take the k classes with the largest scores; the first of equal ones wins.

    Parameters
    ----------
    scores : array-like of float of shape (n_samples, n_classes)
        Any scores, the larger the likelier.
    k : int, default=3
        Number of candidates in each row.

    Returns
    -------
    candidates : ndarray of bool of shape (n_samples, n_classes)
        The candidate classes.

    Raises
    ------
    ValueError
        If k is not between 1 and the number of classes.

    Examples
    --------
    >>> topk_candidates([[0.2, 0.5, 0.3]], k=2)
    array([[False,  True,  True]])
    """
    scores = _check_scores(scores)
    if not isinstance(k, numbers.Integral) or not 1 <= k <= scores.shape[1]:
        raise ValueError(
            f"k is {k!r}; rule 'topk' needs a whole number from 1 to n_classes={scores.shape[1]}."
        )
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return _mark(best, scores.shape)


def threshold_candidates(proba, threshold=0.1):
    """Take every class whose probability reaches a threshold.

    Parameters
    ----------
    proba : array-like of float of shape (n_samples, n_classes)
        Probabilities of the classes.
    threshold : float in (0, 1], default=0.1
        Smallest probability of a candidate.

    Returns
    -------
    candidates : ndarray of bool of shape (n_samples, n_classes)
        The candidate classes; a row where none reaches the threshold keeps its most probable
        class.

    Raises
    ------
    ValueError
        If the threshold is not in (0, 1] or the scores are not probabilities.

    Examples
    --------
    >>> threshold_candidates([[0.6, 0.3, 0.1], [0.2, 0.4, 0.4]], threshold=0.5)
    array([[ True, False, False],
           [False,  True, False]])
    """
    proba = _check_scores(proba, probabilities=True)
    _check_share(threshold, "threshold")
    return (proba >= threshold - TOLERANCE) | topk_candidates(proba, 1)


def ratio_candidates(proba, ratio=0.5):
    """Take every class at least a given share as probable as the most probable one.

    Parameters
    ----------
    proba : array-like of float of shape (n_samples, n_classes)
        Probabilities of the classes.
    ratio : float in (0, 1], default=0.5
        Smallest probability of a candidate relative to the largest of its row.

    Returns
    -------
    candidates : ndarray of bool of shape (n_samples, n_classes)
        The candidate classes.

    Raises
    ------
    ValueError
        If the ratio is not in (0, 1] or the scores are not probabilities.

    Examples
    --------
    >>> ratio_candidates([[0.6, 0.3, 0.1], [0.2, 0.4, 0.4]], ratio=0.6)
    array([[ True, False, False],
           [False,  True,  True]])
    """
    proba = _check_scores(proba, probabilities=True)
    _check_share(ratio, "ratio")
    return proba >= ratio * proba.max(axis=1, keepdims=True) * (1 - TOLERANCE)


def cumulative_candidates(proba, mass=0.9):
    """Take the smallest set of classes whose probabilities sum to a given mass.

    Parameters
    ----------
    proba : array-like of float of shape (n_samples, n_classes)
        Probabilities of the classes, which sum to one in each row.
    mass : float in (0, 1], default=0.9
        Total probability the candidates must reach.

    Returns
    -------
    candidates : ndarray of bool of shape (n_samples, n_classes)
        The candidate classes; the first of equally probable ones is taken first.

    Raises
    ------
    ValueError
        If the mass is not in (0, 1] or the rows do not sum to one.

    Examples
    --------
    >>> cumulative_candidates([[0.6, 0.3, 0.1], [0.95, 0.04, 0.01]], mass=0.9)
    array([[ True,  True, False],
           [ True, False, False]])
    """
    proba = _check_scores(proba, probabilities=True)
    _check_share(mass, "mass")
    wrong = np.abs(proba.sum(axis=1) - 1) > 1e-2
    if wrong.any():
        raise ValueError(
            f"The probabilities do not sum to one in {name_rows(wrong)}, which rule 'cumulative'"
            " needs; divide each row by its sum."
        )
    order = np.argsort(-proba, axis=1, kind="stable")
    ordered = np.take_along_axis(proba, order, axis=1).astype(np.float64)
    mass_before = np.cumsum(ordered, axis=1) - ordered
    needed = mass_before < mass - TOLERANCE
    return _mark(order, proba.shape, needed)


def cpl_candidates(proba, quantiles=(0.6, 0.9)):
    """Take classes that are probable for their row and, of all rows, for this one.

    The rule of Candidate Pseudolabel Learning [1]_ looks at the whole batch, so the candidates of
    a row depend on the others. Within a row it takes the smallest set of classes whose
    probabilities sum to a threshold: the quantile alpha of the rows' largest probabilities. Of
    these it keeps a class where its probability reaches the quantile beta of its own over all rows.

    Parameters
    ----------
    proba : array-like of float of shape (n_samples, n_classes)
        Probabilities of the classes, which sum to one in each row.
    quantiles : pair of float in [0, 1], default=(0.6, 0.9)
        Alpha and beta. A larger alpha makes sets larger, a larger beta smaller.

    Returns
    -------
    candidates : ndarray of bool of shape (n_samples, n_classes)
        The candidate classes; a row where none passes both keeps its most probable class.

    Raises
    ------
    ValueError
        If the quantiles are not two numbers in [0, 1] or the rows do not sum to one.

    References
    ----------
    .. [1] J. Zhang, Q. Wei, F. Liu, L. Feng, "Candidate Pseudolabel Learning: Enhancing
       Vision-Language Models by Prompt Tuning with Unlabeled Data", ICML 2024, arXiv:2406.10502.

    Examples
    --------
    The largest probabilities have the median 0.6, so the first and second row begin with two
    classes; the second keeps the one that is more probable here than in most rows.

    >>> cpl_candidates([[0.5, 0.4, 0.1], [0.5, 0.1, 0.4], [0.6, 0.3, 0.1], [0.7, 0.2, 0.1],
    ...                 [0.8, 0.1, 0.1]], (0.5, 0.6)).astype(int)
    array([[0, 1, 0],
           [0, 0, 1],
           [1, 0, 0],
           [1, 0, 0],
           [1, 0, 0]])
    """
    proba = _check_scores(proba, probabilities=True)
    try:
        alpha, beta = quantiles
    except (TypeError, ValueError):
        alpha = beta = None
    for share in (alpha, beta):
        if not isinstance(share, numbers.Real) or not 0 <= share <= 1:
            raise ValueError(
                f"quantiles are {quantiles!r}; rule 'cpl' needs two numbers in [0, 1], alpha and"
                " beta, such as (0.6, 0.9)."
            )
    if len(proba) == 0:
        return np.zeros(proba.shape, dtype=bool)
    threshold = min(np.quantile(proba.max(axis=1), alpha), 1.0)
    candidates = cumulative_candidates(proba, threshold)
    candidates &= proba >= np.quantile(proba, beta, axis=0)
    empty = ~candidates.any(axis=1)
    candidates[empty] = topk_candidates(proba[empty], 1)
    return candidates


def largest_scores(scores, n_kept):
    """Keep the largest scores of each row, divided by their sum.

    Parameters
    ----------
    scores : ndarray of float of shape (n_samples, n_classes)
        Not negative.
    n_kept : int
        How many to keep; the first of equal ones wins. A row of equal scores, which prefers no
        class, keeps all.

    Returns
    -------
    csr_array of float32 of shape (n_samples, n_classes)

    Examples
    --------
    >>> largest_scores(np.array([[0.5, 0.25, 0.25, 0.0], [0.25, 0.25, 0.25, 0.25]]), 2).toarray()
    array([[0.6666667 , 0.33333334, 0.        , 0.        ],
           [0.25      , 0.25      , 0.25      , 0.25      ]], dtype=float32)
    """
    kept = topk_candidates(scores, min(n_kept, scores.shape[1]))
    kept |= (np.ptp(scores, axis=1) < TOLERANCE)[:, np.newaxis]
    largest = np.where(kept, scores, 0)
    largest /= largest.sum(axis=1, keepdims=True)
    return sp.csr_array(largest.astype(np.float32))


_MAX_CELLS = 2**22  # of sparse scores that are dense for a moment

# Rule -> function of the scores and the rule's one argument, and the argument's default.
SCORE_RULES = {
    "topk": (topk_candidates, 3),
    "threshold": (threshold_candidates, 0.1),
    "ratio": (ratio_candidates, 0.5),
    "cumulative": (cumulative_candidates, 0.9),
    "cpl": (cpl_candidates, (0.6, 0.9)),
}
BATCH_RULES = {"cpl"}  # those that need the scores of all rows at once


def candidates_from_scores(scores, rule, value=None):
    """Apply a candidate rule by name.

    Parameters
    ----------
    scores : array-like or sparse matrix of float of shape (n_samples, n_classes)
        Scores of the classes: probabilities, or anything for "topk". Classes that a sparse matrix
        does not store never become candidates.
    rule : {"topk", "threshold", "ratio", "cumulative", "cpl"}
        The rule.
    value : float, int or pair of float, default=None
        The rule's argument: k=3 (or the number of classes if smaller), threshold=0.1, ratio=0.5,
        mass=0.9 or quantiles=(0.6, 0.9) by default.

    Returns
    -------
    candidates : ndarray or csr_array of bool of shape (n_samples, n_classes)
        The candidate classes; sparse if the scores are.

    Raises
    ------
    ValueError
        If the rule is unknown, or it cannot use the value or the scores.

    Examples
    --------
    >>> candidates_from_scores([[0.6, 0.3, 0.1]], "topk", 2)
    array([[ True,  True, False]])
    """
    check_rule(rule, SCORE_RULES)
    apply, default = SCORE_RULES[rule]
    if sp.issparse(scores):
        return _candidates_from_sparse(sp.csr_array(scores), rule, value)
    scores = _check_scores(scores)
    if value is None:
        value = min(default, scores.shape[1]) if rule == "topk" else default
    return apply(scores, value)


def _candidates_from_sparse(scores, rule, value):
    """Apply a rule to blocks of rows of a CSR array, made dense."""
    if rule in BATCH_RULES:
        raise ValueError(
            f"rule {rule!r} compares all scores of all rows, so it needs dense ones; choose another"
            " rule, or pass scores.toarray() if it fits into memory."
        )
    step = max(1, _MAX_CELLS // scores.shape[1])
    blocks = []
    for start in range(0, max(scores.shape[0], 1), step):
        block = scores[start : start + step].toarray()
        blocks.append(sp.csr_array(candidates_from_scores(block, rule, value) & (block > 0)))
    return sp.csr_array(sp.vstack(blocks, format="csr"))


def check_rule_value(rule, value, n_classes):
    """Raise a ValueError if a rule is unknown, or cannot use its argument with so many classes.

    Parameters
    ----------
    rule : str
    value : float, int, pair of float or None
    n_classes : int

    Raises
    ------
    ValueError
        If the rule is unknown, the argument of the wrong type or out of range, or "union" has one.

    Examples
    --------
    >>> check_rule_value("topk", 4, n_classes=3)
    Traceback (most recent call last):
    ...
    ValueError: k is 4; rule 'topk' needs a whole number from 1 to n_classes=3.
    """
    check_rule(rule)
    if rule != "union":
        candidates_from_scores(np.full((1, n_classes), 1 / n_classes), rule, value)
    elif value is not None:
        raise ValueError(f"rule='union' has no argument; got rule_value={value!r}.")


def check_rule(rule, rules=("union", *SCORE_RULES)):
    """Raise a ValueError that lists the rules if a rule is unknown.

    Parameters
    ----------
    rule : str
        The rule as given.
    rules : iterable of str, default=all rules
        The rules that exist.

    Raises
    ------
    ValueError
        If the rule is not one of them.

    Examples
    --------
    >>> check_rule("ratios", ["union", "ratio"])
    Traceback (most recent call last):
    ...
    ValueError: Unknown rule 'ratios'. Did you mean 'ratio'? The rules are 'union', 'ratio'.
    """
    if rule not in rules:
        hint = did_you_mean(rule, rules)
        if rule == "union":
            hint = " It needs the vote of each prompt, not scores: use PartialLabels.from_votes."
        known = ", ".join(map(repr, rules))
        raise ValueError(f"Unknown rule {rule!r}.{hint} The rules are {known}.")


def _mark(columns, shape, marks=True):
    """Boolean array with marks at the given columns of each row."""
    marked = np.zeros(shape, dtype=bool)
    np.put_along_axis(marked, columns, marks, axis=1)
    return marked


def _check_scores(scores, probabilities=False):
    scores = np.asarray(scores)
    if scores.ndim != 2 or not (np.issubdtype(scores.dtype, np.number) or scores.dtype == bool):
        raise ValueError(
            "scores must be numbers of shape (n_samples, n_classes); got dtype"
            f" {scores.dtype} and shape {scores.shape}."
        )
    scores = scores.astype(np.result_type(scores.dtype, np.float32), copy=False)
    wrong = ~np.isfinite(scores).all(axis=1)
    if wrong.any():
        raise ValueError(f"scores contain NaN or infinity in {name_rows(wrong)}.")
    if probabilities:
        wrong = ((scores < 0) | (scores > 1 + 1e-2)).any(axis=1)
        if wrong.any():
            values = scores[np.flatnonzero(wrong)[0]]
            raise ValueError(
                f"scores are not probabilities in {name_rows(wrong)} (values from"
                f" {values.min():.3g} to {values.max():.3g}); apply softmax, or use rule 'topk',"
                " which takes any scores."
            )
    return scores


def _check_share(value, name):
    if not isinstance(value, numbers.Real) or not 0 < value <= 1:
        raise ValueError(f"{name} is {value!r}; it must be a number in (0, 1].")


def only_rows(candidates, rows):
    """Empty the candidates of all rows but those of a mask.

    Parameters
    ----------
    candidates : ndarray or csr_array of bool of shape (n_samples, n_classes)
    rows : ndarray of bool of shape (n_samples,)

    Returns
    -------
    ndarray or csr_array of bool of shape (n_samples, n_classes)
    """
    if sp.issparse(candidates):
        return sp.csr_array(candidates.multiply(rows[:, None]))
    return candidates & rows[:, None]


def trust_labels(candidates, codes):
    """Make known labels the only candidates of their rows.

    Parameters
    ----------
    candidates : ndarray or csr_array of bool of shape (n_samples, n_classes)
    codes : ndarray of int of shape (n_samples,)
        Index of the class; -1 where it is not known.

    Returns
    -------
    ndarray or csr_array of bool of shape (n_samples, n_classes)
    """
    rows = np.flatnonzero(codes >= 0)
    ones = sp.csr_array((np.ones(len(rows), dtype=bool), (rows, codes[rows])), candidates.shape)
    free = only_rows(candidates, codes < 0)
    return free + (ones if sp.issparse(candidates) else ones.toarray())  # of bool: or
