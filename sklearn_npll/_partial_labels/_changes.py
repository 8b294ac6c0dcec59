"""Candidates with a part exchanged, or with labels that a human vouched for."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse as sp

from .._messages import did_you_mean
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

    def sort_classes(self, classes: ArrayLike | None = None) -> Self:
        """Return a container of the same labels with its columns in another order.

        Parameters
        ----------
        classes : array-like of shape (n_classes,), default=None
            The same classes in the order that is wanted, such as a classifier's ``classes_``;
            sorted by default.

        Returns
        -------
        labels : PartialLabels
            This one if it has the order already. Otherwise candidates and scores have their
            columns, and votes their indices, in the new order. The samples are shared.

        Raises
        ------
        ValueError
            If these are not the classes of the container.

        Examples
        --------
        >>> from sklearn_npll import PartialLabels
        >>> labels = PartialLabels.from_votes([[0, 0], [1, -1]], ["fox", "cat"])
        >>> labels = labels.sort_classes()
        >>> labels.classes
        array(['cat', 'fox'], dtype='<U3')
        >>> labels.votes
        array([[ 1,  1],
               [ 0, -1]], dtype=int8)
        """
        wanted = np.sort(self.classes) if classes is None else np.asarray(classes)
        names, order = wanted.tolist(), {c: i for i, c in enumerate(self.classes.tolist())}
        if names == list(order):
            return self
        if unknown := [name for name in names if name not in order]:
            raise ValueError(
                f"{unknown[0]!r} is no class of these labels.{did_you_mean(unknown[0], order)}"
            )
        if sorted(names) != sorted(order):
            raise ValueError(
                f"classes has {len(names)} names, but each of the {len(order)} classes of these"
                " labels must be in it once."
            )
        columns = np.array([order[name] for name in names])
        self._materialize()  # here, or the copy would call the plan again
        labels = object.__new__(type(self))
        vars(labels).update(vars(self), classes=self.classes[columns])
        labels._candidates = _take_columns(self._candidates, columns)
        if self._scores is not None:
            labels._scores = _take_columns(self._scores, columns)
        if self._votes is not None:
            codes = np.append(np.argsort(columns), -1)  # the last one is for votes of -1
            labels._votes = codes.astype(self._votes.dtype)[self._votes]
        return labels

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


def _take_columns(matrix, columns):
    if not sp.issparse(matrix):
        return np.take(matrix, columns, axis=1)
    matrix = matrix[:, columns]
    matrix.sort_indices()
    return matrix
