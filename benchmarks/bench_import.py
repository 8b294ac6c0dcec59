"""Seconds to import the package against those to import what any scikit-learn program imports.

Each import runs in a fresh process, and they take turns. The time is of the processor, from the
start of the interpreter to its end. ``import sklearn_npll`` alone loads next to nothing, so what is
commonly asked of it is timed too: the labels and metrics, which need no torch, and the learner,
beside the packages that it is built on.

Usage::

    python benchmarks/bench_import.py [--repeats 5]
"""

import argparse
import resource
import statistics
import subprocess
import sys

from reporting import write_result

STATEMENTS = {
    "nothing": "pass",
    "scikit-learn": "import sklearn, numpy",
    "package": "import sklearn_npll",
    "labels and metrics": "from sklearn_npll import PartialLabels, datasets, metrics",
    "learner": "from sklearn_npll import CoRegClassifier",
    "dependencies of the learner": "import sklearn.mixture, torch, skorch",
}


def seconds(statement):
    """Return the processor's seconds of a fresh interpreter that runs a statement."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output")
    args = parser.parse_args()
    for statement in STATEMENTS.values():
        seconds(statement)  # reads the files once
    times = {name: [] for name in STATEMENTS}
    for _ in range(args.repeats):
        for name, statement in STATEMENTS.items():
            times[name].append(seconds(statement))
    median = {name: statistics.median(values) for name, values in times.items()}
    result = {
        "wanted": 1.5,
        "ratio": median["package"] / median["scikit-learn"],
        # the package imports nothing until it is asked for, so what is asked for counts
        "ratio_labels_and_metrics": median["labels and metrics"] / median["scikit-learn"],
        "ratio_learner": median["learner"] / median["dependencies of the learner"],
        "median_seconds": median,
        "seconds": times,
    }
    write_result("import", result, args.output)


if __name__ == "__main__":
    main()
