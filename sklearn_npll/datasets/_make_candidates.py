"""Synthetic noisy candidate sets made from true labels."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets

from .._inputs import as_array, as_labels, unlabelled_rows
from .._messages import did_you_mean, name_rows
from .._typing import Seed

PROTOCOLS = ("uniform", "pico", "fredis", "instance")


def make_candidates(
    y: ArrayLike,
    *,
    protocol: str = "uniform",
    q: float = 0.1,
    eta: float = 0.0,
    classes: ArrayLike | None = None,
    proba: ArrayLike | None = None,
    random_state: Seed = None,
) -> Any:
    """Draw noisy candidate sets from true labels.

    Papers on noisy partial labels draw their sets in different ways, and figures obtained under
    one protocol do not compare with those under another: name the protocol with the figures.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        True labels.
    protocol : {"uniform", "pico", "fredis", "instance"}, default="uniform"
        How sets are drawn.

        * "uniform", of ALIM [2]_ and Co-Reg [1]_: the set holds the true label and each wrong one
          with probability `q`. Then, with probability `eta`, the true label is swapped for a
          label drawn evenly from those outside the set; a set of all classes is left as it is.
        * "pico", of PiCO+ [3]_: each wrong label enters with probability `q` and the true one
          with probability ``1 - eta``; empty sets are drawn again. As an empty set lacks the
          truth, the share of sets without it comes out below `eta`.
        * "fredis", of FREDIS [4]_: a label is drawn first, a wrong one with probability `eta`,
          else the true one. The set holds it, each other label with probability `q`, and at least
          two labels. As the truth may return among the others, the share of sets without it
          comes out below `eta`.
        * "instance": as "uniform", but the two rates depend on the sample through `proba`, as in
          VALEN [5]_. A wrong label j enters with a probability proportional to ``proba[i, j]``,
          scaled to a mean of `q` over the wrong labels of the sample; the truth is swapped with
          a probability proportional to ``1 - proba[i, y[i]]``, scaled to a mean of `eta` over
          the samples, for a label outside the set drawn in proportion to `proba`. Probabilities
          above 1 are cut, so that large rates come out lower.
    q : float in [0, 1], default=0.1
        Ambiguity: the probability that a wrong label enters a set.
    eta : float in [0, 1], default=0.0
        Noise rate: the probability that the true label is left out.
    classes : array-like of shape (n_classes,), default=None
        The labels that the columns stand for. None means the sorted labels of `y`.
    proba : array-like of shape (n_samples, n_classes), default=None
        Class probabilities from any model, needed by and only by ``protocol="instance"``; those
        of an out-of-sample prediction are best, for example from
        :func:`~sklearn.model_selection.cross_val_predict`.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws.

    Returns
    -------
    candidates : ndarray of shape (n_samples, n_classes), dtype bool
        True where a label is a candidate. No row is empty.

    Raises
    ------
    ValueError
        For a label of `y` outside `classes`, an unknown protocol, a rate outside [0, 1] or a
        `proba` of another shape.

    See Also
    --------
    sklearn_npll.PartialLabels.from_candidates : Wrap the sets with their samples.

    References
    ----------
    .. [1] Wang et al., "Pre-Trained Vision-Language Models as Noisy Partial Annotators",
       AAAI 2025, arXiv:2406.18550.
    .. [2] Xu et al., "ALIM: Adjusting Label Importance Mechanism for Noisy Partial Label
       Learning", NeurIPS 2023.
    .. [3] Wang et al., "PiCO+: Contrastive Label Disambiguation for Robust Partial Label
       Learning", TPAMI 2023.
    .. [4] Qiao et al., "FREDIS: A Fusion Framework of Refinement and Disambiguation for
       Unreliable Partial Label Learning", ICML 2023.
    .. [5] Xu et al., "Instance-Dependent Partial Label Learning", NeurIPS 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_npll.datasets import make_candidates
    >>> y = np.repeat(["cat", "dog", "fox"], 1000)
    >>> candidates = make_candidates(y, q=0.3, eta=0.2, random_state=0)
    >>> candidates.shape
    (3000, 3)
    >>> truth_in_set = candidates[np.arange(3000), np.repeat([0, 1, 2], 1000)]
    >>> print(f"{candidates.sum(1).mean():.2f} candidates, {truth_in_set.mean():.2f} covered")
    1.61 candidates, 0.82 covered
    """
    if protocol not in PROTOCOLS:
        raise ValueError(
            f"protocol must be one of {PROTOCOLS}, got {protocol!r}."
            + did_you_mean(protocol, PROTOCOLS)
        )
    for name, rate in (("q", q), ("eta", eta)):
        if not 0 <= rate <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {rate!r}.")
    codes, n_classes = _encode(y, classes)
    truth = np.arange(n_classes) == codes[:, None]
    rng = check_random_state(random_state)

    if protocol == "instance":
        return _instance(truth, _check_proba(proba, truth.shape), q, eta, rng)
    if proba is not None:
        raise ValueError(f"proba is not used by protocol={protocol!r}: leave it out.")
    draw = {"uniform": _uniform, "pico": _pico, "fredis": _fredis}[protocol]
    return draw(truth, q, eta, rng)


def _uniform(truth, q, eta, rng):
    candidates = truth | (rng.uniform(size=truth.shape) < q)
    swapped = rng.uniform(size=len(truth)) < eta
    return _swap_truth(candidates, truth, swapped, np.ones(truth.shape), rng)


def _pico(truth, q, eta, rng):
    rates = np.where(truth, 1 - eta, q)
    if eta * (1 - q) ** (truth.shape[1] - 1) > 0.99:
        raise ValueError(
            f"q={q} and eta={eta} leave nearly every set empty, and empty sets are drawn again "
            "under protocol='pico': raise q or lower eta."
        )
    candidates = np.zeros(truth.shape, dtype=bool)
    while len(empty := np.flatnonzero(~candidates.any(axis=1))):
        candidates[empty] = rng.uniform(size=(len(empty), truth.shape[1])) < rates[empty]
    return candidates


def _fredis(truth, q, eta, rng):
    wrong = _draw_one(np.where(truth, 0.0, 1.0), rng)
    first = np.where((rng.uniform(size=len(truth)) < eta)[:, None], wrong, truth)
    candidates = first | (rng.uniform(size=truth.shape) < q)
    alone = candidates.sum(axis=1) == 1
    candidates[alone] |= _draw_one(np.where(first[alone], 0.0, 1.0), rng)
    return candidates


def _instance(truth, proba, q, eta, rng):
    wrong = np.where(truth, 0.0, proba)
    wrong_mean = wrong.sum(axis=1, keepdims=True) / (truth.shape[1] - 1)
    candidates = truth | (rng.uniform(size=truth.shape) < q * wrong / wrong_mean)
    doubt = np.maximum(1 - proba[truth], 1e-12)
    swapped = rng.uniform(size=len(truth)) < eta * doubt / doubt.mean()
    return _swap_truth(candidates, truth, swapped, proba, rng)


def _swap_truth(candidates, truth, swapped, weights, rng):
    """Replace the truth of the swapped rows by a label outside the set, drawn by `weights`."""
    rows = np.flatnonzero(swapped & ~candidates.all(axis=1))
    entering = _draw_one(np.where(candidates[rows], 0.0, weights[rows]), rng)
    candidates[rows] = (candidates[rows] & ~truth[rows]) | entering
    return candidates


def _draw_one(weights, rng):
    """One-hot draw of a column of each row with probability proportional to the weights."""
    # The first of independent exponential clocks with these rates rings in that proportion.
    with np.errstate(divide="ignore"):
        clocks = rng.standard_exponential(size=weights.shape) / weights
    return np.arange(weights.shape[1]) == clocks.argmin(axis=1)[:, None]


def _encode(y, classes):
    """Column of each label, and the number of columns."""
    y = as_array(y)
    if y.ndim != 1:
        raise ValueError(f"y must be of shape (n_samples,), got {y.shape}.")
    y = as_labels(y)
    check_classification_targets(y)
    classes = np.unique(y[~unlabelled_rows(y)]) if classes is None else np.asarray(classes)
    if len(np.unique(classes)) != len(classes) or len(classes) < 2:
        raise ValueError(f"classes must be two or more distinct labels, got {classes.tolist()}.")
    column = {label: j for j, label in enumerate(classes.tolist())}
    codes = np.array([column.get(label, -1) for label in y.tolist()], dtype=np.intp)
    unknown = codes == -1
    if unknown.any():
        label = y[unknown].tolist()[0]
        raise ValueError(
            f"y holds {label!r} in {name_rows(y == label)}, which is not among the classes "
            f"{classes.tolist()}: leave out unlabelled rows, or name every class."
            + ("" if label in (-1, "-1") else did_you_mean(label, column))
        )
    return codes, len(classes)


def _check_proba(proba, shape):
    if proba is None:
        raise ValueError(
            "protocol='instance' needs proba, class probabilities of shape (n_samples, n_classes),"
            " for example from sklearn.model_selection.cross_val_predict(estimator, X, y, "
            "method='predict_proba')."
        )
    proba = np.asarray(proba, dtype=np.float64)
    if proba.shape != shape:
        raise ValueError(f"proba must be of shape {shape}, got {proba.shape}.")
    valid = (proba >= 0).all(axis=1) & np.isclose(proba.sum(axis=1), 1, atol=1e-3)
    if not valid.all():
        raise ValueError(
            f"proba must be at least 0 and sum to 1 in each row, but not in {name_rows(~valid)}: "
            f"the first holds {proba[~valid][0].tolist()}."
        )
    # A weight of exactly 0 leaves nothing to draw from or to scale by, as with a saturated softmax.
    return np.maximum(proba, 1e-12)
