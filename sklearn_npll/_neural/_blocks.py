"""What is kept of many batches, in tensors that are made once.

A small tensor of each batch, kept while batches come and go, would lie between them in memory and
leave gaps that the next batch does not fit in: that took gigabytes in an epoch.
"""

import torch


class Losses:
    """The losses of an epoch's batches, in one tensor that grows.

    Parameters
    ----------
    like : Tensor
        Whose type and device they have.
    """

    def __init__(self, like):
        self.values = like.new_empty(64)
        self.n = 0

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.values[: self.n][i]

    def append(self, loss):
        """Add the loss of a batch, a Tensor of shape ()."""
        if self.n == len(self.values):
            self.values = torch.cat([self.values, torch.empty_like(self.values)])
        self.values[self.n] = loss
        self.n += 1


def join_blocks(n, blocks):
    """Return blocks of rows as one Tensor.

    Parameters
    ----------
    n : int
        Number of rows.
    blocks : iterable of (int Tensor of shape (m,) or slice, Tensor of shape (m, ...))
        Rows, and what belongs there.

    Returns
    -------
    Tensor of shape (n, ...)
    """
    whole = None
    for rows, block in blocks:
        if whole is None:
            whole = block.new_empty(n, *block.shape[1:])
        whole[rows] = block
    return whole
