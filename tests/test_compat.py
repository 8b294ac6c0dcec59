"""The layer over scikit-learn releases behaves the same on each of them."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin

from sklearn_npll._compat import TagsMixin, fit_context, validate_data

try:
    from sklearn.utils import get_tags
except ImportError:  # scikit-learn < 1.6
    get_tags = None


class Tagged(TagsMixin, TransformerMixin, ClassifierMixin, BaseEstimator):
    _parameter_constraints = {"size": [int]}

    def __init__(self, size=1):
        self.size = size

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        validate_data(self, X, ensure_all_finite="allow-nan")
        return self

    def _tag_values(self):
        return {
            "non_deterministic": True,
            "classifier_tags.poor_score": True,
            "target_tags.required": False,
            "transformer_tags.preserves_dtype": [],
        }


def test_tags_are_seen_by_scikit_learn():
    if get_tags is None:
        tags = Tagged()._get_tags()
        seen = [tags[name] for name in ("non_deterministic", "poor_score", "requires_y")]
        dtypes = tags["preserves_dtype"]
    else:
        tags = get_tags(Tagged())
        seen = [tags.non_deterministic, tags.classifier_tags.poor_score, tags.target_tags.required]
        dtypes = tags.transformer_tags.preserves_dtype
    assert seen == [True, True, False] and dtypes == []


def test_validate_data_sets_and_checks_the_number_of_features():
    estimator = Tagged().fit([[1.0, np.nan]])
    assert estimator.n_features_in_ == 2
    with pytest.raises(ValueError, match="expecting 2 features"):
        validate_data(estimator, [[1.0, 2.0, 3.0]], reset=False)
    with pytest.raises(ValueError, match="NaN"):
        validate_data(estimator, [[1.0, np.nan]], reset=False)


def test_parameters_are_checked_in_fit():
    with pytest.raises(ValueError, match="The 'size' parameter of Tagged"):
        Tagged(size="large").fit([[1.0]])
