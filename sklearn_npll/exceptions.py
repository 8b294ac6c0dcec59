"""Warnings of the package, to be filtered by their category."""

__all__ = ["UnnamedClassWarning"]


class UnnamedClassWarning(UserWarning):
    """Classes that the annotator hardly ever prefers to others, so that they are hardly learned.

    Learners warn of them in ``fit`` if there are at least ten rows a class. "Hardly ever" is less
    than a tenth of an equal share of the classes that scores or votes prefer, never among them. A
    class that is often second counts, though it may be in many sets. Sets alone do not say what is
    preferred: of them, only a class that is in none counts.

    See Also
    --------
    PartialLabels.with_known : Gives known labels to a few rows.

    Examples
    --------
    If you know that these classes are rare or missing in your data:

    >>> import warnings
    >>> from sklearn_npll.exceptions import UnnamedClassWarning
    >>> warnings.simplefilter("ignore", category=UnnamedClassWarning)
    """
