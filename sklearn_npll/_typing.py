"""Names for types that stand in many signatures.

scikit-learn, SciPy and skorch have no type hints, and many arguments may be nearly anything; their
docstrings say what, and what shape.
"""

import os
import sys
from typing import Any, TypeAlias

import numpy as np

if sys.version_info >= (3, 11):
    from typing import Self, dataclass_transform
else:  # type checkers know less there
    Self: TypeAlias = Any

    def dataclass_transform(**_options: Any) -> Any:
        """Return a decorator that changes nothing."""
        return lambda decorated: decorated


__all__ = [
    "Array",
    "Estimator",
    "MatrixLike",
    "PathLike",
    "Samples",
    "Seed",
    "Self",
    "dataclass_transform",
]

Array: TypeAlias = np.ndarray[Any, Any]
Estimator: TypeAlias = Any  # with the methods of scikit-learn's
MatrixLike: TypeAlias = Any  # an array-like, a sparse matrix or PartialLabels
PathLike: TypeAlias = str | os.PathLike[str]
Samples: TypeAlias = Any  # features; images, their paths or bytes; a dataset
Seed: TypeAlias = int | np.random.RandomState | None
