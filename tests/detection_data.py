"""Noisy labels of blobs, with sets and scores of them, and photos of noise with class names."""

import numpy as np
from sklearn.datasets import make_blobs

CLASSES = ["red", "green", "blue shoe"]


def random_photos():
    """Return images and names."""
    images = np.random.default_rng(0).integers(0, 256, size=(24, 20, 20, 3), dtype=np.uint8)
    return images, np.array(CLASSES)[np.arange(24) % 3]


def noisy_blobs(n):
    """Return samples, true and noisy labels, and scores and sets of an annotator."""
    X, y = make_blobs(n, centers=3, cluster_std=0.6, random_state=0)
    noisy = np.where(np.arange(n) % 5 == 0, (y + 1) % 3, y)
    scores = np.where(np.arange(3) == y[:, None], 0.8, 0.1)
    sets = np.arange(3) == noisy[:, None]
    sets[1::3, 0] = True  # a wrong class besides
    sets[7] = True  # no label
    return X, y, noisy, scores, sets


X, T, NOISY, SCORES, SETS = noisy_blobs(120)
