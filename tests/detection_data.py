"""Noisy labels of blobs, with sets and scores of them."""

import numpy as np
from sklearn.datasets import make_blobs

X, T = make_blobs(120, centers=3, cluster_std=0.6, random_state=0)
NOISY = np.where(np.arange(120) % 5 == 0, (T + 1) % 3, T)

SCORES = np.where(np.arange(3) == T[:, None], 0.8, 0.1)
SETS = np.arange(3) == NOISY[:, None]
SETS[1::3, 0] = True  # a wrong class besides
SETS[7] = True  # no label
