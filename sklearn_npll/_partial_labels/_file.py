"""The file that partial labels are saved in."""

import os


def _are_counts(values, largest):
    """Whether an array of one dimension holds integers from 0 to the largest."""
    if values.ndim != 1 or values.dtype.kind not in "iu":
        return False
    return not len(values) or bool(values.min() >= 0 and values.max() <= largest)


def _npz(path):
    path = os.fspath(path)
    return path if path.endswith(".npz") else path + ".npz"
