"""Make Markdown tables and figures of the benchmark's results.

Usage::

    python benchmarks/report.py                                     # of benchmarks/results/suites
    python benchmarks/report.py --input DIR --output docs/benchmarks

Writes ``report.md`` and, beside it, one PNG a suite and one of the average ranks, and the tables as
CSV files, which the documentation includes.
"""

import argparse
import json
from pathlib import Path

from npllbench import SUITES, read_rows, tables
from npllbench.growth import exponents, read_growth

RESULTS = Path(__file__).resolve().parent / "results" / "suites"
TRACKS = {
    "default": "default settings",
    "tuned-label-free": "tuned by the approximated accuracy on held-out candidates",
    "tuned-labelled": "tuned by the accuracy on a small labelled validation set",
}
RANKED = ("fashion", "fashion-embeddings", "cifar10n", "pll", "caltech-clip")


def suite_section(path, output):
    """Return the Markdown of one result file, and write its figure."""
    rows = read_rows(path)
    suite = SUITES.get(path.stem.removesuffix("_ablations"))
    parts = [f"## {path.stem}\n", f"{suite.description}.\n" if suite else ""]
    single = []
    if path.stem.endswith("_ablations"):  # tasks that vary the annotator
        rows, single = tables.split_single(rows)
    for track, text in TRACKS.items():
        of_track = [row for row in rows if row["track"] == track]
        if not any(row["status"] == "ok" for row in of_track):
            continue
        seeds = len({row["seed"] for row in of_track})
        name = path.stem if track == "default" else f"{path.stem}-{track}"
        table = tables.accuracy_table(rows, track, tables.comma_separated)
        (output / f"{name}.csv").write_text(table, encoding="utf-8")
        parts += [
            f"Test accuracy (%), {text}: mean ± standard deviation over {seeds} seeds.\n",
            tables.accuracy_table(rows, track),
            "Paired over tasks and seeds.\n",
            tables.paired_table(rows, track),
        ]
    if any(row["track"] == "default" and row["status"] == "ok" for row in rows):
        figure = f"{path.stem}.png"
        plot = tables.plot_few_shot if path.stem.startswith("few-shot") else tables.plot_accuracy
        plot(rows, output / figure)
        parts += [
            f"![Test accuracy on {path.stem}]({figure})\n",
            "Work, the mean over tasks and seeds.\n",
            tables.work_table(rows),
        ]
    if single:
        table = tables.accuracy_table(single, form=tables.comma_separated)
        (output / f"{path.stem}-annotators.csv").write_text(table, encoding="utf-8")
        parts += ["Test accuracy (%) by annotator.\n", tables.accuracy_table(single)]
    info = json.loads(path.with_suffix(".json").read_text())
    runs = {(s.get("git"), s.get("command")) for s in info["sessions"]}
    lines = [f"- `{command}` at revision {str(git)[:12]}" for git, command in sorted(runs, key=str)]
    return "\n".join([*parts, "Made by\n", *lines, ""])


def _detection(result):
    """Return a table: a row for a data set and noise, a column for a detector."""
    cells, detectors = {}, {}
    for key, figures in result["summary"].items():
        data, noise, learner, detector = key.split(" | ")
        value = " / ".join(f"{100 * figures[name]['mean']:.1f}" for name in ("f1", "accuracy"))
        cells.setdefault((data, noise, learner), {})[detector] = value
        detectors[detector] = True
    lines = [[*where, *(row.get(d, "") for d in detectors)] for where, row in cells.items()]
    return ["data", "noise", "learner", *detectors], lines


def _cell(figures):
    if not figures:
        return ""
    std = figures["std"]
    return f"{figures['mean']:.1f}" + ("" if std is None else f" ± {std:.1f}")


def _options(result):
    """Return a table: a row for an option, a column for a task."""
    tasks = result["summary"]
    names = dict.fromkeys(name for cell in tasks.values() for name in cell)
    lines = []
    for name in names:
        shown = (task.get(name) for task in tasks.values())
        lines.append([name, *map(_cell, shown)])
    return ["option", *tasks], lines


NESTED = {  # results that are summaries of two levels: title, what is shown
    "detection": ("F1 of the rows believed / test accuracy after training on them", _detection),
    "detection_coreg": ("the same with Co-Reg, divided by the detector", _detection),
    "oracles": ("validation accuracy (%) with what only the true labels can tell", _options),
    "oracles_images": ("the same on images", _options),
    "options": ("validation accuracy (%) of Co-Reg's options", _options),
}


def nested_section(name, path, output):
    """Return the Markdown of a result that is no suite, and write its table as CSV."""
    title, make = NESTED[name]
    result = json.loads(path.read_text())
    header, lines = make(result)
    table = tables.comma_separated(header, lines)
    (output / f"{name}.csv").write_text(table, encoding="utf-8")
    made = f"Made by `{result['environment']['command']}`."
    return "\n".join([f"## {name}\n", f"{title}.\n", tables.markdown(header, lines), made, ""])


def growth_section(path, output):
    """Return the Markdown of the growth benchmark, and write its figure."""
    rows = read_growth(path)
    tables.plot_growth(rows, output / "growth.png")
    seconds, memory = exponents(rows), exponents(rows, "memory_mb")
    lines = [
        [method, axis, f"{slope:.2f}", f"{memory.get((method, axis), float('nan')):.2f}"]
        for (method, axis), slope in seconds.items()
    ]
    table = tables.markdown(["method", "size", "exponent of time", "exponent of memory"], lines)
    return f"## Growth\n\n{table}\n![Time and memory of fit](growth.png)\n"


def main(arguments=None):
    """Write the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--input", type=Path, default=RESULTS)
    parser.add_argument("--output", type=Path, help="by default the folder report of the input")
    args = parser.parse_args(arguments)
    output = args.output or args.input / "report"
    output.mkdir(parents=True, exist_ok=True)
    parts = ["# Benchmark results\n"]
    files = [
        path
        for path in sorted(args.input.glob("*.csv"))
        if path.stem != "growth" and path.with_suffix(".json").exists()
    ]
    ranked = [row for path in files if path.stem in RANKED for row in read_rows(path)]
    if any(row["status"] == "ok" and row["track"] == "default" for row in ranked):
        tables.plot_ranks(ranked, output / "ranks.png")
        table = tables.rank_table(ranked, form=tables.comma_separated)
        (output / "ranks.csv").write_text(table, encoding="utf-8")
        parts += [
            "Average rank of the methods that have a result in every task of every suite here.\n",
            tables.rank_table(ranked),
            "![Average ranks](ranks.png)\n",
        ]
    parts += [suite_section(path, output) for path in files]
    for name in NESTED:
        if (path := args.input.parent / f"{name}.json").exists():
            parts.append(nested_section(name, path, output))
    if (args.input / "growth.csv").exists():
        parts.append(growth_section(args.input / "growth.csv", output))
    (output / "report.md").write_text("\n".join(parts), encoding="utf-8")
    print(output / "report.md")


if __name__ == "__main__":
    main()
