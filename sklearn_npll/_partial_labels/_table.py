"""Labels as the columns of a table."""

import os

import numpy as np

from .._evidence import pair_agreement, preferred_classes


def sample_columns(data, n_samples):
    """Return what a table calls the samples: a dict of one column, their paths or their numbers.

    Examples
    --------
    >>> sample_columns(["a.jpg", "b.jpg"], 2)
    {'path': ['a.jpg', 'b.jpg']}
    >>> sample_columns(None, 2)
    {'row': array([0, 1])}
    """
    if isinstance(data, (list, tuple)) or len(getattr(data, "shape", ())) == 1:
        values = list(data)
        if values and all(isinstance(value, (str, os.PathLike)) for value in values):
            return {"path": [os.fspath(value) for value in values]}
    return {"row": np.arange(n_samples)}


def label_columns(labels, votes=False):
    """Return what is known of the label of each sample, as columns of a table.

    Parameters
    ----------
    labels : PartialLabels
    votes : bool, default=False
        Whether the class that each prompt chose is a column.

    Returns
    -------
    dict of str to ndarray or list
    """
    classes, candidates = labels.classes, labels.tocsr()
    codes, confidence = preferred_classes(labels)
    columns = {
        "label": classes[codes],
        "confidence": np.asarray(confidence),
        "set_size": labels.set_sizes,
    }
    if labels.votes is not None:
        columns["agreement"] = pair_agreement(labels.votes)
    if labels.known is not None:
        columns["known"] = labels.known
    names = classes[candidates.indices].tolist()
    columns["candidates"] = [names[a:b] for a, b in zip(candidates.indptr, candidates.indptr[1:])]
    if votes:
        if labels.votes is None:
            raise ValueError("votes=True, but these labels have no votes; leave it out.")
        chosen = np.append(classes.astype(object), [None])  # which -1 stands for
        columns["votes"] = chosen[labels.votes].tolist()
    return columns
