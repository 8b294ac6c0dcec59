"""Parts of several rules: the mean over labelled rows, a bounded loss, the best rows."""

import torch


def labelled_mean(cost, candidates):
    """Mean of the costs (n,) over the rows that carry a label; 0 where none does."""
    labelled = ~candidates.all(1)
    return (cost * labelled).sum() / labelled.sum().clamp(min=1)


def power_loss(log_proba, q):
    """``(1 - p^q) / q``, whose gradient is finite where p underflows."""
    return -torch.expm1(q * log_proba) / q


def top_share(score, label, share):
    """Mark the given share of each label's rows with the largest scores, at least one."""
    if not len(score):
        return torch.zeros_like(label, dtype=torch.bool)
    # sorted by label, and by score within it
    order = score.sort(descending=True, stable=True).indices
    order = order[label[order].sort(stable=True).indices]
    count = label.bincount()
    # 0.29 * 100 is a little less than 29 in floating point
    n_kept = torch.tensor([max(1, int(share * c + 1e-6)) for c in count.tolist()]).to(label)
    rank = torch.arange(len(label)).to(label) - (count.cumsum(0) - count)[label[order]]
    kept = torch.zeros_like(label, dtype=torch.bool)
    kept[order] = rank < n_kept[label[order]]
    return kept
