"""Detectors of noisy labels: their rules by hand, and as estimators."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_npll.detection import (
    CLIPCleanerDetector,
    ConfidentLearningDetector,
    DeFTClassifier,
    LabelMatchDetector,
    NeighborVoteDetector,
    SmallLossDetector,
)


class FirstFeatures(BaseEstimator):
    """An annotator for any data: the classes are numbers, the scores the first feature's digits."""

    def fit(self, X):
        self.classes_ = np.arange(-1, 10)
        return self

    def predict_proba(self, X):
        centres = np.linspace(-3, 3, 11)
        proba = np.exp(-np.abs(np.asarray(X, dtype=float)[:, :1] - centres))
        return proba / proba.sum(axis=1, keepdims=True)


CHECKED = [
    LabelMatchDetector(FirstFeatures()),
    CLIPCleanerDetector(FirstFeatures(), random_state=0),
    SmallLossDetector(random_state=0),
    NeighborVoteDetector(),
]


@parametrize_with_checks([*CHECKED, ConfidentLearningDetector()])
def test_common_checks(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore:fewer than min_per_class:UserWarning")
@parametrize_with_checks(
    [
        DeFTClassifier(NeighborVoteDetector(), LogisticRegression()),
        DeFTClassifier(SmallLossDetector(random_state=0), LogisticRegression(), use="weights"),
    ]
)
def test_common_checks_of_the_classifier(estimator, check):
    check(estimator)
