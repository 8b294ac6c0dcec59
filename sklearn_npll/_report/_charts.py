"""Small charts as inline SVG, whose colours come from the style sheet of the page."""

from html import escape

WIDTH, HEIGHT = 360, 190  # of a phone's screen, so that letters keep their size there
_TOP, _BOTTOM = 22, 36


def column_chart(names, counts, title, axis):
    """Draw counts as columns.

    Parameters
    ----------
    names : sequence of str
        What is written below each column.
    counts : sequence of int
        Their heights.
    title : str
        What the chart shows.
    axis : str
        What the names are.

    Returns
    -------
    str
        A ``<figure>``. Its counts are also in its text, for who cannot see it.

    Examples
    --------
    >>> "1: 3 images, 2: 5 images" in column_chart(["1", "2"], [3, 5], "Set sizes", "classes")
    True
    """
    step, largest = WIDTH / len(names), max(*counts, 1)
    total = max(sum(counts), 1)
    parts = []
    for i, (name, count) in enumerate(zip(names, counts)):
        height = (HEIGHT - _TOP - _BOTTOM) * count / largest
        x, y = step * (i + 0.5), HEIGHT - _BOTTOM - height
        parts.append(
            f'<rect x="{x - 0.4 * step:.1f}" y="{y:.1f}" width="{0.8 * step:.1f}"'
            f' height="{height:.1f}"/>'
            f'<text x="{x:.1f}" y="{y - 4:.1f}">{_rounded(count / total)}</text>'
            f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 15}">{escape(name)}</text>'
        )
    text = ", ".join(f"{name}: {count} images" for name, count in zip(names, counts))
    return (
        f"<figure class='chart'><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{escape(f"{title}. {text}")}">'
        f'<line x1="0" x2="{WIDTH}" y1="{HEIGHT - _BOTTOM}" y2="{HEIGHT - _BOTTOM}"/>'
        f'{"".join(parts)}<text class="axis" x="{WIDTH / 2}" y="{HEIGHT - 4}">{escape(axis)}</text>'
        "</svg></figure>"
    )


def bar(share, largest):
    """Draw a share as a bar for a cell of a table, which the reader has as a number beside it.

    Parameters
    ----------
    share : float
    largest : float
        The share with a bar of full length.

    Returns
    -------
    str
        An ``<svg>``.

    Examples
    --------
    >>> bar(0.1, 0.4)
    '<svg class="bar" ...><rect width="25.0" height="10"/></svg>'
    """
    width = 100 * share / largest if largest else 0
    return (
        '<svg class="bar" viewBox="0 0 100 10" aria-hidden="true">'
        f'<rect width="{width:.1f}" height="10"/></svg>'
    )


def _rounded(share):
    """A share in whole percent, which fits above a narrow column; empty for zero."""
    return f"{share:.0%}" if share >= 0.005 else "<1%" if share else ""


def percent(share):
    """Write a share in percent, with a decimal below ten.

    Examples
    --------
    >>> percent(0.5), percent(0.042), percent(0), percent(0.0001)
    ('50%', '4.2%', '0%', '<0.1%')
    """
    if share == 0:
        return "0%"
    if share < 0.001:
        return "<0.1%"
    return f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}"
