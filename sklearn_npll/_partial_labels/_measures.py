"""Figures on candidates and votes."""

import numpy as np


class _Summary(dict):
    """A dict that prints as a table."""

    def __repr__(self):
        width = max(map(len, self))
        return "\n".join(
            f"{key:<{width}}  {value if value is None else format(value, '.4g')}"
            for key, value in self.items()
        )


def _mean(values):
    return float(np.mean(values)) if len(values) else float("nan")
