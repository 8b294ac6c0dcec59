"""Tables (Markdown and CSV) and figures of the results."""

import csv
import io
import warnings

import numpy as np
from scipy.stats import rankdata, wilcoxon

REFERENCE = "Co-Reg"


def summarise(rows, column="accuracy", track="default"):
    """Return mean, standard deviation and number of seeds of each task and method.

    Parameters
    ----------
    rows : list of dict
        Rows of the runner; those that failed are left out.
    column : str, default="accuracy"
        The figure.
    track : str, default="default"
        The track.

    Returns
    -------
    summary : dict
        ``{(suite, task): {method: (mean, std, n)}}``; the deviation of one seed is NaN.
    """
    values = {}
    for row in _valid(rows, column, track):
        cell = values.setdefault((row["suite"], row["task"]), {})
        cell.setdefault(row["method"], []).append(row[column])
    return {
        task: {
            method: (float(np.mean(v)), float(np.std(v, ddof=1)) if len(v) > 1 else np.nan, len(v))
            for method, v in cell.items()
        }
        for task, cell in values.items()
    }


def split_single(rows):
    """Take apart the tasks that only one method ran on, and name its rows by their tasks.

    Parameters
    ----------
    rows : list of dict
        Rows of the runner.

    Returns
    -------
    compared : list of dict
        Rows of the tasks of several methods.
    single : list of dict
        The others, with the task as the method and the method as the task, so that the tasks are
        what a table compares.
    """
    methods = {}
    for row in rows:
        methods.setdefault(row["task"], set()).add(row["method"])
    compared = [row for row in rows if len(methods[row["task"]]) > 1]
    single = [
        {**row, "task": row["method"], "method": row["task"]}
        for row in rows
        if len(methods[row["task"]]) == 1
    ]
    return compared, single


def ranks(rows, methods=None, track="default"):
    """Return the rank of each method in each task, 1 for the best mean accuracy.

    Parameters
    ----------
    rows : list of dict
        Rows of the runner.
    methods : list of str, default=None
        Methods to rank; by default those with a result in every task, as ranks among different
        rivals do not compare.
    track : str, default="default"
        The track.

    Returns
    -------
    ranks : dict
        ``{(suite, task): {method: rank}}``; equal means share the mean of their ranks.
    """
    summary = summarise(rows, track=track)
    if methods is None:
        methods = _in_all(summary)
    result = {}
    for task, cell in summary.items():
        present = [m for m in methods if m in cell]
        order = rankdata([-round(cell[m][0], 12) for m in present]) if present else []
        result[task] = dict(zip(present, map(float, order)))
    return result


def average_ranks(rows, methods=None, track="default"):
    """Return each method's rank averaged over the tasks of a suite, then over the suites.

    Parameters
    ----------
    rows : list of dict
        Rows of one or several suites.
    methods : list of str, default=None
        As in `ranks`.
    track : str, default="default"
        The track.

    Returns
    -------
    average : dict
        ``{method: rank}``, best first.
    """
    suites = {}
    for (suite, _), cell in ranks(rows, methods, track).items():
        for method, rank in cell.items():
            suites.setdefault(method, {}).setdefault(suite, []).append(rank)
    average = {
        method: float(np.mean([np.mean(v) for v in per_suite.values()]))
        for method, per_suite in suites.items()
    }
    return dict(sorted(average.items(), key=lambda item: item[1]))


def paired(rows, reference=REFERENCE, track="default"):
    """Compare each method with the reference on the same suites, tasks and seeds.

    Parameters
    ----------
    rows : list of dict
        Rows of the runner.
    reference : str, default="Co-Reg"
        The method to compare with.
    track : str, default="default"
        The track.

    Returns
    -------
    comparison : dict
        ``{method: {"pairs", "difference", "wins", "ties", "losses", "p"}}``: the mean of the
        reference's accuracy less the method's, how often the reference was better, and the
        two-sided p value of Wilcoxon's signed-rank test, None for fewer than six pairs.
    """
    scores = {}
    for row in _valid(rows, "accuracy", track):
        key = row["suite"], row["task"], row["seed"]
        scores.setdefault(row["method"], {})[key] = row["accuracy"]
    own, result = scores.pop(reference, {}), {}
    for method, other in scores.items():
        d = np.array([own[key] - other[key] for key in own if key in other])
        d[np.abs(d) < 1e-12] = 0.0
        if not len(d):
            continue
        p = None
        if len(d) >= 6:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # ties have only a normal approximation
                p = float(wilcoxon(d).pvalue) if d.any() else 1.0
        result[method] = {
            "pairs": len(d),
            "difference": float(d.mean()),
            "wins": int((d > 0).sum()),
            "ties": int((d == 0).sum()),
            "losses": int((d < 0).sum()),
            "p": p,
        }
    return result


def markdown(header, lines):
    """Return a Markdown table, the first column to the left and the others to the right."""
    rows = [header, ["---", *["---:"] * (len(header) - 1)], *lines]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows) + "\n"


def comma_separated(header, lines):
    """Return a table as CSV, for the documentation."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([header, *lines])
    return file.getvalue()


def accuracy_table(rows, track="default", form=markdown):
    """Return a table: methods by tasks, in percent, with a column of average ranks.

    Methods of two networks have two lines, one for the ensemble and one for a single network.
    The best ensemble or only network of each task is bold. A cell without a result names its
    failed runs.
    """
    summary, single = (summarise(rows, c, track) for c in ("accuracy", "accuracy_single"))
    tasks = list(summary)
    failed = {}
    for row in rows:
        if row["track"] == track and row["status"] == "error":
            key = (row["suite"], row["task"]), row["method"]
            failed[key] = failed.get(key, 0) + 1
    average = average_ranks(rows, track=track)
    methods = dict.fromkeys([*average, *(m for cell in summary.values() for m in cell)])
    methods = list(dict.fromkeys([*methods, *(method for _, method in failed)]))
    best = {task: max(mean for mean, *_ in cell.values()) for task, cell in summary.items()}
    lines = []
    for method in methods:
        cells = []
        for task in tasks:
            cell = _cell(summary[task].get(method))
            if method in summary[task] and summary[task][method][0] >= best[task] - 1e-12:
                cell = f"**{cell}**"
            if count := failed.get((task, method)):
                cell = f"{cell} ({count} failed)".strip()
            cells.append(cell)
        rank = f"{average[method]:.1f}" if method in average else ""
        lines.append([method, *cells, rank])
        if any(method in cell for cell in single.values()):
            cells = [_cell(single.get(task, {}).get(method)) for task in tasks]
            lines.append([f"{method}, single network", *cells, ""])
    return form(["method", *(task for _, task in tasks), "rank"], lines)


def paired_table(rows, track="default"):
    """Return a Markdown table of the paired comparison with the reference, closest rival first."""
    lines = [
        [
            method,
            f"{100 * c['difference']:+.2f}",
            f"{c['wins']} / {c['ties']} / {c['losses']}",
            "" if c["p"] is None else f"{c['p']:.2g}",
        ]
        for method, c in sorted(
            paired(rows, track=track).items(), key=lambda item: item[1]["difference"]
        )
    ]
    return markdown(["method", f"{REFERENCE} ahead by (points)", "won / tied / lost", "p"], lines)


def work_table(rows, track="default"):
    """Return a Markdown table of each method's work: epochs, gradient samples and seconds."""
    columns = ("epochs", "gradient_samples", "seconds_fit", "train_accuracy")
    lines = []
    for method in dict.fromkeys(row["method"] for row in _valid(rows, "accuracy", track)):
        cells = []
        for column in columns:
            values = [r[column] for r in _valid(rows, column, track) if r["method"] == method]
            digits = 3 if column == "train_accuracy" else 1 if column == "seconds_fit" else 0
            cells.append(f"{np.mean(values):,.{digits}f}" if values else "")
        lines.append([method, *cells])
    header = ["method", "epochs", "gradient samples", "seconds", "accuracy on training rows"]
    return markdown(header, lines)


def rank_table(rows, track="default", form=markdown):
    """Return a table of average ranks by suite and over the suites."""
    suites = list(dict.fromkeys(row["suite"] for row in rows))
    overall = average_ranks(rows, track=track)
    per_suite = {
        s: average_ranks([r for r in rows if r["suite"] == s], list(overall), track) for s in suites
    }
    lines = [
        [method, *(f"{per_suite[s].get(method, np.nan):.1f}" for s in suites), f"{rank:.2f}"]
        for method, rank in overall.items()
    ]
    return form(["method", *suites, "average"], lines)


# -- figures -------------------------------------------------------------------------------------


def plot_accuracy(rows, path, track="default"):
    """Write a figure of one suite: a panel a task, a dot a method, with the deviation."""
    plt = _pyplot()
    summary = summarise(rows, track=track)
    average = average_ranks(rows, track=track)
    methods = list(dict.fromkeys([*average, *(m for cell in summary.values() for m in cell)]))[::-1]
    columns = min(4, len(summary))
    height = -(-len(summary) // columns)
    figure, axes = plt.subplots(
        height,
        columns,
        figsize=(2 + 2.6 * columns, height * (0.8 + 0.22 * len(methods))),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax in axes.flat[len(summary) :]:
        ax.set_visible(False)
    for ax, ((_, task), cell) in zip(axes.flat, summary.items()):
        for position, method in enumerate(methods):
            if method in cell:
                mean, std, _ = cell[method]
                colour = "C3" if method == REFERENCE else "C0"
                error = 100 * np.nan_to_num(std)
                ax.errorbar(100 * mean, position, xerr=error, fmt="o", color=colour, markersize=4)
        ax.set_yticks(range(len(methods)), methods, fontsize=8)
        ax.set_title(task, fontsize=9)
        ax.set_xlabel("test accuracy (%)", fontsize=8)
        ax.grid(axis="x", alpha=0.3)
    _save(plt, figure, path)


def plot_few_shot(rows, path):
    """Write a figure of accuracy against known labels a class, of tasks ``labels-<number>``."""
    plt = _pyplot()
    curves = {}
    for (_, task), cell in summarise(rows).items():
        for method, (mean, std, _) in cell.items():
            curves.setdefault(method, []).append((int(task.split("-")[1]), mean, std))
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for method, points in sorted(curves.items(), key=lambda item: -max(item[1])[1]):
        x, mean, std = np.array(sorted(points)).T
        error = 100 * np.nan_to_num(std)
        axes.errorbar(x, 100 * mean, error, marker="o", markersize=4, capsize=2, label=method)
    ticks = sorted({point[0] for points in curves.values() for point in points})
    axes.set_xscale("symlog", base=2, linthresh=1)
    axes.set_xticks(ticks, ticks)
    axes.set(xlabel="known labels a class", ylabel="test accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    _save(plt, figure, path)


def plot_ranks(rows, path, track="default"):
    """Write a figure of the average ranks over the suites, the best on top."""
    plt = _pyplot()
    average = average_ranks(rows, track=track)
    figure, ax = plt.subplots(figsize=(6, 0.8 + 0.25 * len(average)), layout="constrained")
    colours = ["C3" if method == REFERENCE else "C0" for method in average]
    ax.barh(range(len(average)), list(average.values()), color=colours)
    ax.set_yticks(range(len(average)), list(average), fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("average rank (1 is best)")
    _save(plt, figure, path)


def plot_growth(rows, path):
    """Write a figure of seconds and memory against each size, on logarithmic axes."""
    plt = _pyplot()
    axes_of = list(dict.fromkeys(row["axis"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = plt.subplots(
        2, len(axes_of), figsize=(1 + 3.2 * len(axes_of), 5.5), squeeze=False, layout="constrained"
    )
    for column, axis in enumerate(axes_of):
        for line, (key, text) in enumerate((("seconds", "fit (s)"), ("memory_mb", "memory (MB)"))):
            for method in methods:
                points = [
                    (row["size"], row[key])
                    for row in rows
                    if (row["axis"], row["method"], row["status"]) == (axis, method, "ok")
                ]
                if points:
                    axes[line, column].loglog(*zip(*points), "o-", label=method, markersize=4)
            axes[line, column].set(xlabel=axis, ylabel=text)
            axes[line, column].grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8)
    _save(plt, figure, path)


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(plt, figure, path):
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def _valid(rows, column, track):
    return [
        row
        for row in rows
        if row["track"] == track and row["status"] == "ok" and row.get(column) is not None
    ]


def _in_all(summary):
    cells = list(summary.values())
    return [m for m in (cells[0] if cells else {}) if all(m in cell for cell in cells)]


def _cell(figures):
    if figures is None:
        return ""
    mean, std, _ = figures
    return f"{100 * mean:.2f}" + ("" if np.isnan(std) else f" ± {100 * std:.2f}")
