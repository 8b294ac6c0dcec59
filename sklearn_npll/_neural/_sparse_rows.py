"""Wide matrices of the training rows, of which only the rows of a batch are ever dense.

Shapes: ``n`` rows, ``C`` classes. What is indexed by rows gives a dense tensor of these rows, so
that training steps read a `SparseRows` as they read a tensor (n, C).
"""

import torch
from scipy import sparse as sp

from ._blocks import join_blocks

# Entries of a block of rows that is dense for a moment: 16 MB of float32.
BLOCK_CELLS = 2**22


class SparseRows:
    """A matrix in compressed rows; indexing by rows makes them dense.

    Parameters
    ----------
    sizes : int Tensor of shape (n,)
        Number of entries in each row.
    columns : int Tensor of shape (n_entries,)
        Columns of the entries, row after row.
    values : Tensor of shape (n_entries,)
    n_columns : int
    """

    def __init__(self, sizes, columns, values, n_columns):
        self.sizes = sizes
        self.starts = sizes.cumsum(0) - sizes
        self.columns = columns
        self.values = values
        self.shape = (len(sizes), n_columns)

    @classmethod
    def from_blocks(cls, blocks, shape, max_entries, device):
        """Make one of the marked entries of dense blocks, one below the other.

        Parameters
        ----------
        blocks : iterable of (Tensor, bool Tensor) of shape (m, C)
            Rows, and which of their entries to keep.
        shape : tuple of int (n, C)
        max_entries : int
            No fewer than are kept.
        device : torch.device
        """
        # written in place, as by `join_blocks`
        sizes = torch.empty(shape[0], dtype=torch.long, device=device)
        columns = torch.empty(max_entries, dtype=torch.int32, device=device)
        values = torch.empty(max_entries, device=device)
        row = entry = 0
        for matrix, kept in blocks:
            found = kept.nonzero()[:, 1]
            sizes[row : row + len(kept)] = kept.sum(1)
            columns[entry : entry + len(found)] = found
            values[entry : entry + len(found)] = matrix[kept]
            row, entry = row + len(kept), entry + len(found)
        return cls(sizes, columns[:entry], values[:entry], shape[1])

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        """Return rows, given by a slice or an int Tensor of shape (m,), as a Tensor (m, C)."""
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(len(self)), device=self.device)
        sizes = self.sizes[rows]
        row = torch.arange(len(rows), device=self.device).repeat_interleave(sizes)
        shift = self.starts[rows] - (sizes.cumsum(0) - sizes)  # from the batch to all entries
        entry = torch.arange(len(row), device=self.device) + shift[row]
        dense = self.values.new_zeros(len(rows), self.shape[1])
        dense[row, self.columns[entry].long()] = self.values[entry]
        return dense

    @property
    def device(self):
        """Where the tensors are."""
        return self.columns.device

    def content_to_hash(self):
        """Return what tells it from another one, for a hash."""
        return [self.shape, self.sizes, self.columns, self.values]

    def to_scipy(self):
        """Return a csr_array."""
        parts = (self.values, self.columns, torch.cat([self.starts, self.sizes.sum()[None]]))
        values, columns, starts = (part.cpu().numpy() for part in parts)
        return sp.csr_array((values, columns, starts), shape=self.shape)


class SparseCandidates(SparseRows):
    """Candidates in compressed rows; a row of all classes is stored without any.

    Parameters
    ----------
    sizes : int Tensor of shape (n,)
        Number of candidates in each row; 0 where every class is one.
    columns : int Tensor of shape (n_candidates,)
    values : bool Tensor of shape (n_candidates,)
        All true.
    n_columns : int
    """

    @classmethod
    def from_scipy(cls, candidates, device):
        """Make one of a csr_array of bool, of which no row is empty."""
        sizes = torch.tensor(candidates.indptr, dtype=torch.long).diff()
        columns = torch.tensor(candidates.indices, dtype=torch.int32)
        is_full = sizes == candidates.shape[1]
        if is_full.any():
            columns = columns[~is_full.repeat_interleave(sizes)]
            sizes = sizes.masked_fill(is_full, 0)
        values = torch.ones(len(columns), dtype=torch.bool, device=device)
        return cls(sizes.to(device), columns.to(device), values, candidates.shape[1])

    def __getitem__(self, rows):
        """Return rows as a bool Tensor (m, C)."""
        dense = super().__getitem__(rows)
        return dense | (self.sizes[rows] == 0)[:, None]

    def all(self, axis):
        """Tell which rows (axis 1) hold every class: those without a label."""
        if axis != 1:
            raise ValueError(f"only rows can be asked, which is axis 1; got {axis}")
        return self.sizes == 0


class MappedRows:
    """A row-wise function of matrices (n, C), evaluated for the rows that are asked for.

    Parameters
    ----------
    function : callable
        Maps the rows of each matrix, Tensors (m, C), to a Tensor (m, C).
    *matrices : Tensor, SparseRows or MappedRows of shape (n, C)
    """

    def __init__(self, function, *matrices):
        self.function = function
        self.matrices = matrices
        self.shape = matrices[0].shape

    def __getitem__(self, rows):
        """Return rows as a Tensor (m, C)."""
        return self.function(*(matrix[rows] for matrix in self.matrices))

    def content_to_hash(self):
        """Return the matrices, which tell it from another one by the same function, for a hash."""
        return list(self.matrices)


def map_rows(function, *matrices):
    """Apply a row-wise function of matrices (n, C), at once if they are tensors, else lazily."""
    if all(map(torch.is_tensor, matrices)):
        return function(*matrices)
    return MappedRows(function, *matrices)


def row_blocks(matrix):
    """Return slices of rows that are to be dense together: for a tensor, one of all its rows."""
    n, n_classes = matrix.shape
    step = n if torch.is_tensor(matrix) else max(1, BLOCK_CELLS // n_classes)
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def collect_rows(function, matrix):
    """Return what a function of slices of a matrix's rows finds in each row.

    Parameters
    ----------
    function : callable
        Maps a slice of m rows to a tuple of Tensors (m,).
    matrix : Tensor, SparseRows or MappedRows of shape (n, C)

    Returns
    -------
    list of Tensor of shape (n,)
    """
    collected = []
    for rows in row_blocks(matrix):
        found = function(rows)
        collected = collected or [part.new_empty(matrix.shape[0]) for part in found]
        for whole, part in zip(collected, found, strict=True):
            whole[rows] = part
    return collected


def reduce_rows(function, *matrices):
    """Return a Tensor (n,) by a function of matrices (n, C): at once if they are tensors."""
    if all(map(torch.is_tensor, matrices)):
        return function(*matrices)
    blocks = ((rows, function(*(m[rows] for m in matrices))) for rows in row_blocks(matrices[0]))
    return join_blocks(matrices[0].shape[0], blocks)


def largest_or_candidates(proba, candidates, n_kept):
    """Mark the candidates and the most probable classes of each row.

    Parameters
    ----------
    proba : Tensor of shape (n, C)
    candidates : bool Tensor of shape (n, C)
        Rows of all classes do not count.
    n_kept : int
        Number of most probable classes.

    Returns
    -------
    bool Tensor of shape (n, C)
    """
    top = proba.topk(min(n_kept, proba.shape[1]), dim=1).indices
    return (candidates & ~candidates.all(1, keepdim=True)).scatter_(1, top, True)


def mean_predictions(blocks, candidates, rescale):
    """Return means over all rows, of which only a block is dense at a time.

    Parameters
    ----------
    blocks : iterable of (int Tensor of shape (m,), Tensor of shape (m, C))
        Rows, and their predictions.
    candidates : SparseCandidates of shape (n, C)
    rescale : callable or None
        A row-wise function of predictions and candidates.

    Returns
    -------
    mean : Tensor of shape (C,)
        Mean prediction.
    mean_rescaled : Tensor of shape (C,) or None
        Mean of what `rescale` returns.
    """
    n, n_classes = candidates.shape
    # in float64, as a float32 sum over many rows stops growing
    total = torch.zeros(2, n_classes, dtype=torch.float64, device=candidates.device)
    for rows, proba in blocks:
        total[0] += proba.sum(0, dtype=torch.float64)
        if rescale is not None:
            total[1] += rescale(proba, candidates[rows]).sum(0, dtype=torch.float64)
    mean, mean_rescaled = (total / n).float()
    return mean, mean_rescaled if rescale is not None else None
