"""scikit-learn's common checks of CoRegClassifier, on features."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_npll import CoRegClassifier


@parametrize_with_checks(
    [
        CoRegClassifier(max_epochs=10, warm_up=5, contrastive_start=2, batch_size=32, lr=0.05),
        CoRegClassifier(max_epochs=5, warm_up=10, deploy="single", batch_size=32, lr=0.05),
    ]
)
def test_common_checks(estimator, check):
    check(estimator)
