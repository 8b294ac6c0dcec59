"""Time and accuracy of the default on a part of its epochs, against the paper's variant on all.

Each suite's first task, with the epochs that its table has for both methods; "equal epochs" is the
default on as many as the paper's variant. All fits of a seed run one after another in one process,
and the time is of the processor.

Usage::

    python benchmarks/bench_variants.py
"""

import argparse
import csv
import time

import numpy as np
from npllbench import SUITES, get_methods
from reporting import ROOT, mean_and_std, write_result

PAPER = "Co-Reg (paper)"
PARTS = {"a quarter": 0.25, "half": 0.5, "three quarters": 0.75, "all": 1.0}


def epochs_of(suite, task, method, seed):
    """Return the epochs of a run that is in the suite's results."""
    with open(ROOT / "benchmarks" / "results" / "suites" / f"{suite}.csv", newline="") as file:
        for row in csv.DictReader(file):
            key = row["task"], row["method"], row["seed"], row["track"]
            if key == (task, method, str(seed), "default"):
                return int(row["epochs"])
    raise ValueError(f"run benchmarks/run.py {suite} --methods '{method}' --seeds {seed} first")


def run(suite, seed):
    """Return a row for the paper's variant and for each number of the default's epochs."""
    name = next(iter(suite.tasks))
    task = suite.tasks[name](seed, n_train=suite.n_train, n_test=suite.n_test, n_val=0)
    paper, default = (epochs_of(suite.name, name, m, seed) for m in (PAPER, "Co-Reg"))
    settings = {"paper": (PAPER, paper), "equal epochs": ("Co-Reg", paper)}
    settings |= {k: ("Co-Reg", round(part * default)) for k, part in PARTS.items()}
    rows = []
    for setting, (method, epochs) in settings.items():
        (method,) = get_methods(method)
        clf = method.build(suite.task_schedule(name), seed, len(task.labels), epochs=epochs)
        start = time.process_time()
        clf.fit(task.labels)
        seconds = time.process_time() - start
        accuracy = float(np.mean(clf.predict(task.X_test) == task.y_test))
        row = {"task": suite.name, "seed": seed, "option": setting, "epochs": epochs}
        rows.append({**row, "accuracy": accuracy, "seconds": seconds})
    return [{**row, "time_ratio": row["seconds"] / rows[0]["seconds"]} for row in rows]


def summary(runs):
    """Return the accuracy (%) and the median time, in units of the paper's, of each setting."""
    ratios = {}
    for row in runs:
        ratios.setdefault(row["task"], {}).setdefault(row["option"], []).append(row["time_ratio"])
    median = {
        task: {k: float(np.median(v)) for k, v in row.items()} for task, row in ratios.items()
    }
    return {"accuracy": mean_and_std(runs), "time_ratio_median": median}


def main():
    """Run all, and write the file after each seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    suites = ["fashion-embeddings", "fashion", "cifar10n", "caltech-clip"]
    parser.add_argument("--suites", nargs="+", default=suites)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output")
    args = parser.parse_args()
    runs = []
    for name in args.suites:
        for seed in args.seeds:
            rows = run(SUITES[name], seed)
            print(*rows, sep="\n", flush=True)
            runs += rows
            write_result("variants", {**summary(runs), "runs": runs}, args.output)


if __name__ == "__main__":
    main()
