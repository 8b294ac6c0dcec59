"""The differences between supported scikit-learn releases (1.4.2 to 1.9.1), in one place."""

from collections.abc import Callable
from typing import Any, TypeVar

from sklearn.base import _fit_context
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.metaestimators import _BaseComposition as BaseComposition

try:
    from sklearn.utils.validation import validate_data
except ImportError:  # scikit-learn < 1.6

    def validate_data(_estimator, /, X="no_validation", y="no_validation", **check_params):
        """Validate X and y and set or check ``n_features_in_`` and ``feature_names_in_``."""
        if "ensure_all_finite" in check_params:
            check_params["force_all_finite"] = check_params.pop("ensure_all_finite")
        return _estimator._validate_data(X=X, y=y, **check_params)


_Method = TypeVar("_Method", bound=Callable[..., Any])


def fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[_Method], _Method]:
    """Return scikit-learn's decorator that validates parameters, with the type it has."""
    return _fit_context(prefer_skip_nested_validation=prefer_skip_nested_validation)


__all__ = [
    "BaseComposition",
    "HasMethods",
    "Interval",
    "StrOptions",
    "TagsMixin",
    "fit_context",
    "validate_data",
    "validate_parameter_constraints",
]

# Tags whose name before scikit-learn 1.6 is not the last part of the name since.
_OLD_TAG_NAMES = {
    "target_tags.required": "requires_y",
    "target_tags.multi_output": "multioutput",
    "classifier_tags.multi_label": "multilabel",
}


class TagsMixin:
    """Lets an estimator state its tags once for every scikit-learn release.

    A subclass, with this mixin first among its bases, defines ``_tag_values()``, which returns
    what differs from the defaults under the names of ``sklearn.utils.Tags``, such as
    ``{"non_deterministic": True, "classifier_tags.poor_score": True}``.
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        for name, value in self._tag_values().items():
            group, _, leaf = name.rpartition(".")
            setattr(getattr(tags, group) if group else tags, leaf, value)
        return tags

    def _more_tags(self):  # scikit-learn < 1.6
        return {
            _OLD_TAG_NAMES.get(name, name.rpartition(".")[2]): value
            for name, value in self._tag_values().items()
        }
