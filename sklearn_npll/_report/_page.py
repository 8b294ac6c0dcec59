"""The page: sections of text, charts, tables and pictures, in one file without links."""

import os
from html import escape
from pathlib import Path

import numpy as np

from .._evidence import pair_agreement, preferred_classes, rare_classes
from .._files import atomic_write
from ._charts import bar, column_chart, percent
from ._findings import (
    best_of_each,
    changes,
    class_shares,
    confused_pairs,
    template_agreement,
)
from ._thumbnails import thumbnail

N_IMAGES = 24  # of a grid
N_CHANGES, N_CHANGED = 6, 12  # changes shown with images, and images of each
MANY_CHANGES = 1 / 3  # of the images
N_ROWS = 15  # of a table of pairs
N_RARE = 10  # rare classes that are not folded
N_OPEN = 40  # rows of a table that is not folded
# Nothing may be loaded, whatever a name in the page says.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class _Labeller:
    """Labels, and the classes that whoever gave them prefers.

    Parameters
    ----------
    labels : PartialLabels
    """

    def __init__(self, labels):
        self.labels = labels
        self.names = [str(name) for name in labels.classes.tolist()]
        self.codes, self.confidence = preferred_classes(labels)


def write_report(
    path, labels, *, folder=None, annotation=(), learned=None, training=(), judged=None
):
    """Write a page about labels: how sure they are, what looks wrong, what a learner changed.

    Parameters
    ----------
    path : str or path-like
        The file. It holds all that it shows, and loads nothing.
    labels : PartialLabels
        What the annotator said, with paths of images.
    folder : str, default=None
        Folder that file names are shown relative to; whole paths by default.
    annotation : mapping, default=()
        How the labels were made, to be listed. Its ``"templates"``, a list of str, name the votes.
    learned : PartialLabels, default=None
        The same samples with the learner's probabilities as scores.
    training : mapping, default=()
        How these were made, to be listed.
    judged : tuple, default=None
        What `judge` returned, to be shown.

    Raises
    ------
    ValueError
        If there are no samples, or the learner's are others.
    """
    if not len(labels):
        raise ValueError("There are no images to report on.")
    annotator = _Labeller(labels)
    learner = None
    if learned is not None:
        if learned.data != labels.data or learned.classes.tolist() != labels.classes.tolist():
            raise ValueError("The learner's labels are of other images or classes.")
        learner = _Labeller(learned)
    annotation, training = dict(annotation), dict(training)
    templates = annotation.pop("templates", None)
    title = "Labels" if folder is None else f"Labels of {Path(folder).name or folder}"
    files = [os.path.relpath(file, folder) if folder else file for file in labels.data]
    sections = [
        f"<h1>{escape(title)}</h1>",
        _overview(annotator, learner),
        "" if judged is None else _judgement(annotator.names, *judged),
        _certainty(annotator, templates),
        _classes(annotator, learner),
        _pictures(annotator, files),
        "" if learner is None else _learnt(annotator, learner, files),
        _settings({**annotation, **{f"fit: {k}": v for k, v in training.items()}}),
    ]
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )
    with atomic_write(path) as file:
        file.write(page.encode(errors="backslashreplace"))


def _overview(annotator, learner):
    summary = annotator.labels.summary()
    facts = {
        "images": f"{summary['n_samples']:,}",
        "classes": f"{summary['n_classes']:,}",
        "candidates an image": f"{summary['mean_set_size']:.2f}",
        "with a single one": percent(summary["single_share"]),
    }
    if summary["agreement"] is not None:
        facts["template agreement"] = percent(summary["agreement"])
    if learner is not None:
        changed, learned = _changed(annotator, learner)
        facts["changed by the learner"] = percent(changed.sum() / max(learned.sum(), 1))
    rows = (f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{"".join(rows)}</dl>'


def _judgement(names, codes, right):
    """Shares of right labels among those whose truth is known, of all and of each class."""
    shares = np.array(list(right.values()), dtype=float)
    rows = [("all", f"{len(codes):,}", *map(percent, shares.mean(axis=1)))]
    classes = [(shares[:, codes == code].mean(axis=1), code) for code in np.unique(codes)]
    rows += [
        (escape(names[code]), f"{(codes == code).sum():,}", *map(percent, own))
        for own, code in sorted(classes, key=lambda pair: pair[0][0])
    ]
    head = ("class", "images", *right)
    table = _table("true labels", head, rows, numbers=range(1, len(head)))
    return (
        "<h2>How right the labels are</h2><p>By the true labels that were given to judge by. Images"
        f" whose label the training was given do not count.</p>{_fold_if_long(table, len(classes))}"
    )


def _certainty(annotator, templates):
    labels = annotator.labels
    charts = [
        _set_sizes(labels.set_sizes),
        _deciles(annotator.confidence, "Confidence in the preferred class", "confidence"),
    ]
    text = (
        "<p>The annotator names one or several candidate classes for each image. The fewer they"
        " are, and the better its templates agree, the surer it is; that does not mean that it is"
        " right.</p>"
    )
    table = ""
    if labels.votes is not None:
        agreement = pair_agreement(labels.votes)
        agreement = agreement[~np.isnan(agreement)]
        if len(agreement):
            axis = "pairs of templates that chose the same class"
            charts.insert(1, _deciles(agreement, "Agreement between templates", axis))
        if templates is not None:
            shares = template_agreement(labels.votes, annotator.codes)
            rows = [
                (escape(templates[i]), percent(shares[i]), bar(shares[i], 1))
                for i in np.argsort(shares, kind="stable")
            ]
            table = _folded(
                "Each template: how often it chose the preferred class",
                _table("templates", ("template", "agrees", ""), rows, numbers=(1,)),
            )
    drawn = f'<div class="charts">{"".join(charts)}</div>'
    return f"<h2>How sure the annotator is</h2>{text}{drawn}{table}"


def _set_sizes(sizes, n_columns=8):
    """Chart of set sizes, the last column for all larger ones."""
    counts = np.bincount(np.minimum(sizes, n_columns), minlength=2)[1:].tolist()
    names = [str(size) for size in range(1, len(counts) + 1)]
    if sizes.max() > n_columns:
        names[-1] += "+"
    return column_chart(names, counts, "Candidates of an image", "number of candidates")


def _deciles(values, title, axis):
    """Chart of shares in ten steps."""
    counts, _ = np.histogram(values, bins=np.linspace(0, 1, 11))
    names = [f"{10 * i}" for i in range(10)]
    return column_chart(names, counts.tolist(), title, f"{axis}, from this % on")


def _classes(annotator, learner):
    names = annotator.names
    preferred, candidate = class_shares(annotator.labels, annotator.codes)
    rare, pairs = rare_classes(preferred), confused_pairs(annotator.labels)
    parts = ["<h2>Classes</h2>"]
    if len(rare):
        items = [
            f"<li>{escape(names[i])}: preferred for {percent(preferred[i])} of the images, a"
            f" candidate of {percent(candidate[i])}</li>"
            for i in rare
        ]
        parts.append(
            '<p class="alert">Never or hardly ever preferred (less than a tenth of an equal share)'
            f"</p><ul>{''.join(items[:N_RARE])}</ul>"
        )
        if len(items) > N_RARE:
            more = f"<ul>{''.join(items[N_RARE:])}</ul>"
            parts.append(_folded(f"and {len(items) - N_RARE} more", more))
        parts.append(
            "<p>Where such a class is in the images, take a model that knows it, try other names"
            " for it, or give a few known labels; it cannot be learned otherwise.</p>"
        )
    else:
        parts.append("<p>No class has less than a tenth of an equal share.</p>")
    head = ["class", "preferred", "", "candidate"]
    columns = [preferred, candidate]
    if learner is not None:
        head.append("by the learner")
        columns.append(class_shares(learner.labels, learner.codes)[0])
    rows = [
        (
            escape(names[i]),
            percent(preferred[i]),
            bar(preferred[i], preferred.max()),
            *(percent(column[i]) for column in columns[1:]),
        )
        for i in np.argsort(-preferred, kind="stable")
    ]
    table = _table("shares of the classes", head, rows, numbers=(1, 3, 4))
    parts.append("<h3>Shares of the images</h3>")
    parts.append(_fold_if_long(table, len(names)))
    parts.append("<h3>Classes that are often candidates together</h3>")
    if pairs:
        rows = [
            (escape(names[a]), escape(names[b]), f"{both:,}", percent(share))
            for a, b, both, share in pairs[:N_ROWS]
        ]
        head = ("class", "and class", "images with both", "of those with either")
        parts.append(_table("classes together", head, rows, numbers=(2, 3)))
        parts.append("<p>Names that tell the two apart better may help, or known labels.</p>")
    else:
        parts.append("<p>None: no two share a quarter of their images.</p>")
    return "".join(parts)


def _pictures(annotator, files):
    confidence = annotator.confidence
    n = min(N_IMAGES, len(files))
    sizes = annotator.labels.set_sizes
    ambiguous = np.lexsort((confidence, -sizes))[:n]
    ambiguous = ambiguous[sizes[ambiguous] > 1]  # one candidate is no ambiguity
    grids = [
        ("The surest of each class", best_of_each(annotator.codes, confidence, n)),
        ("The least sure", np.argsort(confidence, kind="stable")[:n]),
        ("The most ambiguous: the most candidates", ambiguous),
    ]
    return "<h2>Images</h2>" + "".join(
        f"<h3>{title}</h3>"
        + (_grid(rows, files, annotator) if len(rows) else "<p>None: one candidate each.</p>")
        for title, rows in grids
    )


def _grid(rows, files, labeller):
    """Images with the preferred class, its confidence and the other candidates."""
    names, figures = labeller.names, []
    for row in rows.tolist():
        label = f"{names[labeller.codes[row]]} {percent(labeller.confidence[row])}"
        own = labeller.labels[row].nonzero()[0].tolist()
        others = [names[code] for code in own if code != labeller.codes[row]]
        more = f" +{len(others) - 3}" if len(others) > 3 else ""
        or_else = f"or {', '.join(others[:3])}{more}" if others else ""
        figures.append(_figure(row, files, labeller, label, or_else))
    return f'<div class="grid">{"".join(figures)}</div>'


def _figure(row, files, labeller, label, comment):
    file = files[row]
    picture = thumbnail(labeller.labels.data[row], f"{file}: {label}")
    return (
        f"<figure>{picture}<figcaption>{escape(label)}"
        f'<span class="comment">{escape(comment)}</span>'
        f'<span class="name" title="{escape(file)}">{escape(file)}</span></figcaption></figure>'
    )


def _changed(annotator, learner):
    """Which labels the learner has changed, and which it had to find, as nobody knew them."""
    known = learner.labels.known
    learned = np.ones(len(learner.codes), dtype=bool) if known is None else ~known
    return (annotator.codes != learner.codes) & learned, learned


def _learnt(annotator, learner, files):
    names = annotator.names
    changed, learned = _changed(annotator, learner)
    counted = changes(annotator.codes[changed], learner.codes[changed])
    n_known = int((~learned).sum())
    besides = f" {n_known:,} known ones are left out." if n_known else ""
    parts = [
        "<h2>What the learner changed</h2>",
        f"<p>{changed.sum():,} of {learned.sum():,} images got another label than the annotator"
        f" prefers.{besides} Look at some of each change: a wrong one repeated many times points"
        " to a class that the learner has lost.</p>",
    ]
    if changed.sum() > MANY_CHANGES * learned.sum():
        parts.append(
            '<p class="alert">So many changes are seldom right: more often the training was too'
            " short, or the learner has lost classes. Train for more epochs, and compare again.</p>"
        )
    if counted:
        rows = [
            (escape(names[a]), escape(names[b]), f"{count:,}") for a, b, count in counted[:N_ROWS]
        ]
        parts.append(_table("changes", ("from", "to", "images"), rows, numbers=(2,)))
        if len(counted) > N_ROWS:
            rest = sum(count for *_, count in counted[N_ROWS:])
            parts.append(
                f'<p class="muted">and {len(counted) - N_ROWS} other changes, of {rest:,} images'
                " together</p>"
            )
    for a, b, count in counted[:N_CHANGES]:
        rows = np.flatnonzero(changed & (annotator.codes == a) & (learner.codes == b))
        rows = rows[np.argsort(-learner.confidence[rows], kind="stable")][:N_CHANGED]
        figures = (
            _figure(
                row,
                files,
                learner,
                f"{names[b]} {percent(learner.confidence[row])}",
                f"was {names[a]} {percent(annotator.confidence[row])}",
            )
            for row in rows.tolist()
        )
        shown = f"{len(rows)} of {count:,}" if count > len(rows) else f"{count}"
        parts.append(
            f"<h3>{escape(names[a])} to {escape(names[b])} ({shown} images)</h3>"
            f'<div class="grid">{"".join(figures)}</div>'
        )
    return "".join(parts)


def _settings(settings):
    rows = [(escape(k), escape(str(v))) for k, v in settings.items() if v is not None]
    if not rows:
        return ""
    return f"<h2>How this was made</h2>{_table('settings', ('setting', 'value'), rows)}"


def _table(name, head, rows, numbers=()):
    """A table of cells that are HTML already; columns of numbers are set to the right."""

    def line(cells, tag, scope=""):
        marks = (' class="number"' if i in numbers else "" for i in range(len(cells)))
        row = (f"<{tag}{scope}{mark}>{cell}</{tag}>" for mark, cell in zip(marks, cells))
        return f"<tr>{''.join(row)}</tr>"

    heading = line(head, "th", ' scope="col"')
    body = "".join(line(row, "td") for row in rows)
    return (
        f'<div class="scroll" role="region" aria-label="{name}" tabindex="0"><table>'
        f"<thead>{heading}</thead><tbody>{body}</tbody></table></div>"
    )


def _fold_if_long(table, n_classes):
    return table if n_classes <= N_OPEN else _folded(f"All {n_classes:,} classes", table)


def _folded(summary, content):
    return f"<details><summary>{summary}</summary>{content}</details>"
