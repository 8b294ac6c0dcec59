"""What displays are made from: fitted estimators, their rows, true classes."""

from .._inputs import last_step


def best_of(estimator):
    """The fitted estimator of a search, or the estimator itself."""
    return getattr(estimator, "best_estimator_", estimator)


def learner_of(estimator):
    """The classifier of a search, of a pipeline or of one in the other, or the estimator itself."""
    return best_of(last_step(best_of(estimator)))


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
