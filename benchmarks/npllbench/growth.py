"""Time and memory of `fit` against the number of samples, of classes and of features.

Every fit has a process of its own, so that its peak memory is not that of an earlier one.
"""

import csv
import multiprocessing
import time
from pathlib import Path

import numpy as np
from reporting import peak_memory

from .methods import get_methods
from .runner import load_torch

AXES = {
    "n": (1000, 3000, 10_000, 30_000, 100_000),
    "C": (10, 30, 100, 300, 1000),
    "d": (16, 64, 256, 1024),
}
BASE = {"n": 10_000, "C": 10, "d": 64}
METHODS = ("Co-Reg", "PRODEN", "PL-kNN", "Logistic (best)")
COLUMNS = ("method", "axis", "size", "n", "C", "d", "epochs", "seconds", "memory_mb", "status")


def make_problem(n, C, d, seed=0):
    """Return PartialLabels of a Gaussian mixture: about two candidates, a tenth without truth."""
    from sklearn_npll import PartialLabels
    from sklearn_npll.datasets import make_candidates

    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % C)
    X = (rng.normal(size=(C, d))[y] + rng.normal(size=(n, d))).astype(np.float32)
    candidates = make_candidates(y, q=1 / (C - 1), eta=0.1, random_state=seed, classes=range(C))
    return PartialLabels.from_candidates(candidates, data=X)


def measure(method, n, C, d, epochs, timeout):
    """Return seconds and megabytes of one fit in a process of its own, and its status."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_fit, args=(sender, method, n, C, d, epochs))
    process.start()
    sender.close()
    try:
        seconds, memory, status = (
            receiver.recv() if receiver.poll(timeout) else (None, None, f"over {timeout} s")
        )
    except EOFError:
        seconds, memory, status = None, None, "the process died, probably of memory"
    process.kill()
    process.join()
    return {"seconds": seconds, "memory_mb": memory, "status": status}


def _fit(sender, method, n, C, d, epochs):
    try:
        labels = make_problem(n, C, d)
        schedule = {
            "shared": {"max_epochs": epochs, "warm_up": epochs // 2, "batch_size": 256},
            "coreg": {"contrastive_start": 0},
        }
        estimator = get_methods([method])[0].build(schedule, 0)
        load_torch()  # its own memory and its first step are not the method's
        before = peak_memory()
        start = time.perf_counter()
        estimator.fit(labels)
        seconds = time.perf_counter() - start
        sender.send((seconds, peak_memory() - before, "ok"))
    except Exception as error:  # the caller writes it into the row
        sender.send((None, None, " ".join(f"{type(error).__name__}: {error}".split())[:300]))


def run_growth(output, methods=METHODS, axes=None, *, epochs=2, timeout=600, report=print):
    """Measure methods along each axis, appending rows to ``growth.csv``.

    A method that fails or exceeds the time at a size is not tried at larger ones of that axis.

    Parameters
    ----------
    output : path-like
        Folder of the results.
    methods : list of str
        The methods; they learn from features.
    axes : dict, default=None
        Axis ("n", "C" or "d") -> sizes; `AXES` if None.
    epochs : int, default=2
        Epochs of the networks, half of them warm-up.
    timeout : float, default=600
        Seconds after which a fit, its start included, is ended.
    report : callable, default=print
        Called with a line of text for every fit.

    Returns
    -------
    rows : list of dict
        All rows of the file.
    """
    path = Path(output, "growth.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = read_growth(path)
    done = {(row["method"], row["axis"], row["size"]): row for row in rows}
    for method in methods:
        for axis, sizes in (axes or AXES).items():
            for size in sizes:
                row = done.get((method, axis, size))
                if row is None:
                    at = {**BASE, axis: size}
                    row = {"method": method, "axis": axis, "size": size, **at, "epochs": epochs}
                    row.update(measure(method, **at, epochs=epochs, timeout=timeout))
                    rows.append(row)
                    is_new = not path.exists()
                    with path.open("a", newline="", encoding="utf-8") as file:
                        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                        if is_new:
                            writer.writeheader()
                        writer.writerow(row)
                    report(
                        f"{method} {axis}={size}: {row['seconds']} s, {row['memory_mb']} MB, "
                        f"{row['status']}"
                    )
                if row["status"] != "ok":
                    break
    return rows


def read_growth(path):
    """Read the rows of ``growth.csv``."""
    if not Path(path).exists():
        return []
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for key in ("size", "n", "C", "d", "epochs"):
            row[key] = int(row[key])
        for key in ("seconds", "memory_mb"):
            row[key] = float(row[key]) if row[key] else None
    return rows


def exponents(rows, key="seconds"):
    """Return the log-log slope of a figure by method and axis, where there are two sizes or more.

    Parameters
    ----------
    rows : list of dict
        Rows of `run_growth`.
    key : {"seconds", "memory_mb"}, default="seconds"
        The figure.

    Returns
    -------
    slopes : dict
        ``{(method, axis): exponent}``.
    """
    points = {}
    for row in rows:
        if row["status"] == "ok" and row[key] and row[key] > 0:
            points.setdefault((row["method"], row["axis"]), []).append((row["size"], row[key]))
    return {
        where: float(np.polyfit(*np.log(np.array(values, dtype=float)).T, 1)[0])
        for where, values in points.items()
        if len(values) > 1
    }
