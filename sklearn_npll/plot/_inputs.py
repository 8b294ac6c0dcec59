"""What displays are made from: fitted estimators, their rows, true classes."""

from sklearn.pipeline import Pipeline


def best_of(estimator):
    """The fitted estimator of a search, or the estimator itself."""
    return getattr(estimator, "best_estimator_", estimator)


def learner_of(estimator):
    """The classifier at the end of searches and pipelines, or the estimator itself."""
    estimator = best_of(estimator)
    while isinstance(estimator, Pipeline):
        estimator = best_of(estimator[-1])
    return estimator


def check_rows_of_fit(labels, clean_probability):
    """Raise a ValueError unless labels have as many rows as the fit had."""
    if len(labels) != len(clean_probability):
        raise ValueError(
            f"labels has {len(labels)} rows but the estimator was fitted on"
            f" {len(clean_probability)}; pass the ones it was fitted on."
        )


def encode_some(labels, y):
    """Codes of the true classes, of which at least one is known."""
    codes = labels.encode_labels(y)
    if not (codes >= 0).any():
        raise ValueError("No sample in y is labelled, so there is no truth to compare with.")
    return codes
