"""scikit-learn's common checks of VLMPartialAnnotator, on rows of features."""

from fakes import FeatureVLM
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_npll import VLMPartialAnnotator


@parametrize_with_checks(
    [
        VLMPartialAnnotator({0: "cat", 1: "dog", 2: "fox"}, vlm=FeatureVLM()),
        VLMPartialAnnotator(
            {0: "cat", 1: "dog", 2: "fox"},
            vlm=FeatureVLM(),
            rule="ratio",
            output="embeddings",
        ),
    ]
)
def test_common_checks(estimator, check):
    check(estimator)
