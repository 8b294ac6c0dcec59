"""Candidates with a part exchanged, or with labels that a human vouched for."""

from typing import Any

from numpy.typing import ArrayLike

from .._rules import trust_labels
from .._typing import Self
from ._measures import MeasuredArray

PARTS = ("data", "candidates", "scores", "votes", "known")


class ChangedArray(MeasuredArray):
    """Candidates of which a changed copy can be made; see :class:`PartialLabels`."""

    def replace(self, **parts: Any) -> Self:
        """Return a container with other parts in place of some; nothing is changed in this one.

        Parameters
        ----------
        **parts : data, candidates, scores, votes or known
            As of the constructor; None leaves a part out. Those not named stay as they are.

        Returns
        -------
        labels : PartialLabels
            Of the same classes.

        Raises
        ------
        TypeError
            If a name is none of these.
        ValueError
            If the parts do not fit together.

        Examples
        --------
        >>> from sklearn_npll import PartialLabels
        >>> labels = PartialLabels.from_candidates([[1, 0], [1, 1]], data=["a.jpg", "b.jpg"])
        >>> labels.replace(data=["c.jpg", "d.jpg"]).data
        ['c.jpg', 'd.jpg']
        """
        if unknown := sorted(set(parts) - set(PARTS)):
            raise TypeError(f"replace has no {', '.join(unknown)}; it takes {', '.join(PARTS)}.")
        # what is exchanged is not asked for: samples may be many images still to be taken
        parts |= {name: getattr(self, name) for name in PARTS if name not in parts}
        return type(self)(parts.pop("data"), self.classes, parts.pop("candidates"), **parts)

    def with_known(self, y: ArrayLike) -> Self:
        """Return a container that trusts known labels: each is its row's one candidate.

        Parameters
        ----------
        y : array-like of shape (n_samples,)
            Name of the class where it is known, -1 or "-1" elsewhere. A row that was known before
            stays so, with the label given here if there is one.

        Returns
        -------
        labels : PartialLabels
            With `known` set. Scores and votes stay as they are.

        Raises
        ------
        ValueError
            If y has the wrong length or contains a name that is not a class.

        See Also
        --------
        VLMPartialAnnotator.fit : Takes them as `known_labels`.

        Examples
        --------
        >>> from sklearn_npll import PartialLabels
        >>> labels = PartialLabels.from_sets([["cat", "dog"], ["dog", "fox"], ["fox"]])
        >>> known = labels.with_known(["dog", "cat", "-1"])
        >>> known.candidates.astype(int)
        array([[0, 1, 0],
               [1, 0, 0],
               [0, 0, 1]])
        >>> known.known
        array([ True,  True, False])
        """
        codes = self.encode_labels(y)
        known = codes >= 0 if self.known is None else self.known | (codes >= 0)
        return self.replace(candidates=trust_labels(self.candidates, codes), known=known)
