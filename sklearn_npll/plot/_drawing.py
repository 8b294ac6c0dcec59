"""Colours, axes and legends that all displays share."""

GOOD, BAD, NEUTRAL = "#2a7f9e", "#d9603b", "#8c8c8c"


def pyplot():
    """Import matplotlib's pyplot; an ImportError says how to install it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("Drawing needs matplotlib: pip install matplotlib.") from error
    return plt


def make_grid(n_panels, n_columns, width, height, layout="constrained"):
    """Axes of a new figure, row by row; width and height are those of a panel, in inches."""
    n_columns = min(n_panels, n_columns)
    n_rows = -(-n_panels // n_columns)
    size = (width * n_columns, height * n_rows)
    axes = pyplot().subplots(n_rows, n_columns, figsize=size, layout=layout, squeeze=False)[1]
    for unused in axes.ravel()[n_panels:]:
        unused.remove()
    return axes.ravel()[:n_panels]


def legend_below(axes):
    """Draw a legend below the axes, where it hides no line."""
    axes.legend(
        frameon=False, fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18)
    )
