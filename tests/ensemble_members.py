"""Annotators to combine: tables of probabilities, and models that see colours."""

import numpy as np
import pytest
from fakes import ColourVLM, FeatureVLM
from sklearn.base import BaseEstimator, TransformerMixin

from sklearn_npll import PartialLabels, VLMPartialAnnotator
from sklearn_npll.annotators import EnsemblePartialAnnotator

CLASSES = ["red", "green", "blue"]
RGB = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 190, 0], [120, 0, 130]], np.uint8)
X = np.tile(RGB[:, None, None, :], (1, 4, 4, 1))
Y = np.array(["red", "green", "blue", "red", "blue"])


class Table(TransformerMixin, BaseEstimator):
    """Knows what to say of image i, whose pixels are i, and counts the rows it is asked about."""

    def __init__(self, scores=None, votes=None, candidates=None, classes=("a", "b", "c"), log=None):
        self.scores = scores
        self.votes = votes
        self.candidates = candidates
        self.classes = classes
        self.log = log

    def __sklearn_clone__(self):
        return type(self)(**self.get_params())  # clones write to the same log

    def fit(self, X, y=None, known_labels=None):
        self.classes_ = np.array(self.classes)
        self.known_labels_ = known_labels
        return self

    def transform(self, X):
        def plan(data):
            rows = np.asarray(data).reshape(len(data), -1)[:, 0].astype(int)
            if self.log is not None:
                self.log.append(len(rows))
            parts = {"scores": self.scores, "votes": self.votes}
            parts = {k: None if v is None else np.asarray(v)[rows] for k, v in parts.items()}
            if self.candidates is not None:
                return {"candidates": np.asarray(self.candidates)[rows], **parts}
            best = np.eye(len(self.classes), dtype=bool)[np.asarray(parts["scores"]).argmax(axis=1)]
            return {"candidates": best, **parts}

        return PartialLabels(X, self.classes, plan=plan)


def numbered(n):
    return np.arange(n, dtype=np.uint8).reshape(n, 1, 1)


@pytest.fixture
def vlms():
    return ColourVLM(), ColourVLM()


@pytest.fixture
def ensemble(vlms):
    clear = VLMPartialAnnotator(CLASSES, templates="a {} thing.", vlm=vlms[0])
    pale = VLMPartialAnnotator(CLASSES[::-1], templates=["{}", "a pale {}."], vlm=vlms[1])
    return EnsemblePartialAnnotator([("clear", clear), ("pale", pale)])


def feature_member(**params):
    return VLMPartialAnnotator({0: "cat", 1: "dog", 2: "fox"}, vlm=FeatureVLM(), **params)


FIRST = [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]
