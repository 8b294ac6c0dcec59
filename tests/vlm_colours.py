"""Coloured images and an annotator that sees their colours, photos and a tiny real model."""

import numpy as np
import pytest
from fakes import ColourVLM, write_tiny_clip
from sklearn.base import BaseEstimator, ClassifierMixin

from sklearn_npll import VLMPartialAnnotator

CLASSES = ["red", "green", "blue"]
TEMPLATES = ["a {} thing.", "a pale {} thing."]
RGB = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 190, 0], [120, 0, 130]], np.uint8)
X = np.tile(RGB[:, None, None, :], (1, 4, 4, 1))
Y = np.array(["red", "green", "blue", "red", "blue"])


@pytest.fixture
def vlm():
    return ColourVLM()


@pytest.fixture
def annotator(vlm):
    return VLMPartialAnnotator(CLASSES, templates=TEMPLATES, vlm=vlm)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_clip(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def photos():
    return np.random.default_rng(0).integers(0, 256, size=(7, 20, 20, 3), dtype=np.uint8)


class Learner(ClassifierMixin, BaseEstimator):
    """Predicts the brightest colour from the images alone; needs PartialLabels to fit."""

    def __init__(self, power=1):
        self.power = power

    def fit(self, X, y=None):
        self.labels_ = X
        self.candidates_ = np.asarray(X)
        self.classes_ = X.classes
        return self

    def predict(self, X):
        return np.array(CLASSES)[np.asarray(X.data).mean(axis=(1, 2)).argmax(axis=1)]
