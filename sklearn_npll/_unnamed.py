"""The classes that an annotator never or hardly ever prefers, and the warning of them."""

import warnings

import numpy as np

from ._evidence import largest_columns, prefers_some, rare_classes
from ._messages import name_classes
from .exceptions import UnnamedClassWarning

# With fewer rows a class, that it is not named may be chance: in parts of a cross-validation, say.
_ROWS_PER_CLASS = 10


def unnamed_classes(problem):
    """Return the classes that the annotator never or hardly ever prefers, rarest first.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    int ndarray
        Empty if there are too few rows to tell.

    Examples
    --------
    >>> from sklearn_npll._inputs import Problem
    >>> candidates = np.tile([[True, True, False], [False, True, False]], (15, 1))
    >>> unnamed_classes(Problem(None, np.arange(3), candidates, np.zeros(30, dtype=bool)))
    array([2])
    """
    n_classes, guessed = len(problem.classes), ~problem.known
    if problem.scores is not None:
        guessed &= prefers_some(problem.scores)
        named = np.bincount(largest_columns(problem.scores)[guessed], minlength=n_classes)
    elif problem.votes is not None:
        guessed &= (problem.votes >= 0).any(axis=1)
        votes = problem.votes[guessed]
        named = np.bincount(votes[votes >= 0], minlength=n_classes)
    else:
        # Sets do not say what is preferred: all that are named are as good as the others.
        guessed &= problem.labelled
        named = (np.ravel(problem.candidates[guessed].sum(axis=0)) > 0).astype(int)
    if np.count_nonzero(guessed) < _ROWS_PER_CLASS * n_classes:
        return np.array([], dtype=int)
    return rare_classes(named / named.sum())


def warn_of_unnamed(problem, corrected=False):
    """Warn of classes that the annotator never or hardly ever prefers; for ``fit`` to call.

    Parameters
    ----------
    problem : Problem
    corrected : bool, default=False
        Whether known labels correct the annotator, so that a class that has some is learned.
    """
    unnamed = unnamed_classes(problem)
    if corrected:
        known = np.ravel(problem.candidates[problem.known].sum(axis=0)) > 0
        unnamed = unnamed[~known[unnamed]]
    if len(unnamed):
        warnings.warn(
            "the annotator never or hardly ever prefers these classes to others, so they can hardly"
            f" be learned: {name_classes(problem.classes[unnamed].tolist())}. If they are in the"
            " data, give them other names or prompts; or trust known labels of some of their rows"
            " with CoRegClassifier(doubly_robust=True), on the command line --known"
            " --doubly-robust",
            UnnamedClassWarning,
            stacklevel=4,  # the caller of fit, whose parameters are validated on the way
        )
