"""Parts of error messages shared by all modules."""

import difflib

import numpy as np


def did_you_mean(name, options):
    """Say which option a misspelt name resembles.

    Parameters
    ----------
    name : object
        The name as given.
    options : iterable
        The names that exist.

    Returns
    -------
    str
        ``" Did you mean 'close'?"`` with a leading space, or an empty string.

    Examples
    --------
    >>> did_you_mean("sneker", ["Sandal", "Sneaker"])
    " Did you mean 'Sneaker'?"
    """
    lowered = {str(option).lower(): option for option in options}
    close = difflib.get_close_matches(str(name).lower(), lowered, n=1)
    if not close:
        return ""
    option = lowered[close[0]]
    option = option.item() if isinstance(option, np.generic) else option
    return f" Did you mean {option if isinstance(option, int | float) else str(option)!r}?"


def name_rows(wrong, limit=5):
    """Name the first rows marked in a mask.

    Parameters
    ----------
    wrong : array-like of bool of shape (n_samples,)
        The rows to name.
    limit : int, default=5
        How many rows to name before counting the rest.

    Returns
    -------
    str
        Such as ``"rows 0, 3"`` or ``"rows 0, 1, 2, 3, 4 and 995 more"``.

    Examples
    --------
    >>> name_rows([True, False, False, True])
    'rows 0, 3'
    """
    rows = np.flatnonzero(wrong)
    named = ", ".join(map(str, rows[:limit]))
    more = f" and {len(rows) - limit} more" if len(rows) > limit else ""
    return f"{'row' if len(rows) == 1 else 'rows'} {named}{more}"


def name_classes(names, limit=10):
    """Name the first of some classes.

    Parameters
    ----------
    names : list of str or number
    limit : int, default=10
        How many to name.

    Returns
    -------
    str

    Examples
    --------
    >>> name_classes(["cat", "dog", "fox"], limit=2)
    "'cat', 'dog', ..."
    """
    return ", ".join(map(repr, names[:limit])) + (", ..." if len(names) > limit else "")
