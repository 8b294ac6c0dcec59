"""Run methods on the tasks of a suite and append one row a run to a CSV file.

Every method of a (task, seed) gets the same training rows, candidates, test rows, network and
schedule. Methods that train networks also get the same number of gradient samples (rows passed
forward with gradients, over all networks), so many passes per training row. Where an epoch takes
as many as the data decide, the epochs are corrected until the samples are within `TOLERANCE`.
"""

import platform
import shlex
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

import numpy as np

from .methods import get_methods, params_json, sample_settings, why_not
from .results import Results

TOLERANCE = 0.1


@dataclass(frozen=True)
class _Run:
    """What is to be run: a method on a task with a seed, in a track."""

    task: str
    method: object
    seed: int
    track: str = "default"
    params: dict | None = None

    @property
    def key(self):
        return self.task, self.method.name, self.seed, self.track


def run_suite(
    suite,
    methods=None,
    seeds=None,
    output="benchmarks/results/suites",
    *,
    tasks=None,
    passes=None,
    n_train=None,
    n_test=None,
    n_val=None,
    track="default",
    trials=8,
    ablations=False,
    retry=False,
    environment=None,
    report=print,
):
    """Run methods on a suite, leaving out what the results hold already.

    Parameters
    ----------
    suite : Suite
        The suite.
    methods : list of str, default=None
        Names or groups of methods; the suite's default group if None.
    seeds : list of int, default=None
        Seeds; the suite's if None.
    output : path-like, default="benchmarks/results/suites"
        Folder of ``<suite>.csv`` and ``<suite>.json``.
    tasks : list of str, default=None
        Only these tasks.
    passes : int, default=None
        Gradient samples per training row; the suite's if None, and where that has none every
        method trains the epochs of the schedule.
    n_train, n_test, n_val : int, default=None
        Sizes; those of the suite if None.
    track : {"default", "tuned"}, default="default"
        "tuned" runs `trials` settings of each method on the training rows left by the validation
        rows. One row of the results is the trial with the best approximated accuracy on the
        candidates of the validation rows (its covering rate for methods without probabilities),
        another that with the best accuracy on their true labels. The test rows choose nothing.
    trials : int, default=8
        Trials of each method in the tuned track, the first with its default setting.
    ablations : bool, default=False
        Run the variants of Co-Reg instead, with results in ``<suite>_ablations.csv``.
    retry : bool, default=False
        Repeat runs that ended in an error.
    environment : dict, default=None
        What to record of machine, versions and command; found out if None.
    report : callable, default=print
        Called with a line of text for every run.

    Returns
    -------
    rows : list of dict
        All rows of the results, see `results.COLUMNS`.

    Raises
    ------
    SkipSuite
        If the suite cannot run here.
    """
    if suite.check is not None:
        suite.check()
    loaders, name = dict(suite.tasks), suite.name
    if ablations:
        loaders.update(suite.ablation_tasks)
        name, methods = f"{suite.name}_ablations", methods or ["Co-Reg", "ablation"]
    if unknown := set(tasks or ()) - set(loaders):
        raise ValueError(f"unknown tasks {sorted(unknown)}; {suite.name} has {list(loaders)}")
    tasks = list(tasks or loaders)
    chosen = []
    for method in get_methods(methods or suite.methods):
        if reason := why_not(method, suite):
            report(f"{method.name} does not apply to {suite.name}: {reason}")
        else:
            chosen.append(method)
    sizes = {
        "n_train": n_train or suite.n_train,
        "n_test": n_test or suite.n_test,
        "n_val": suite.n_val if n_val is None else n_val,
    }
    schedules = {t: suite.task_schedule(t) for t in loaders}
    passes = passes or suite.passes
    results = Results(output, name, {"sizes": sizes, "schedules": schedules, "passes": passes})
    if track == "default":
        sizes["n_val"] = 0
    elif not sizes["n_val"]:
        raise ValueError("the tuned track needs validation rows, but n_val is 0")
    seeds = list(suite.seeds if seeds is None else seeds)
    runs = _plan(chosen, tasks, seeds, suite, track, trials)

    pending = [run for run in runs if _is_pending(results, run, retry)]
    if pending:
        results.begin_session(environment or _environment())
    if any(run.method.networks for run in pending):
        load_torch()
    clock = _Clock(len(pending), report)
    data = {}
    for run in pending:
        where = run.task, run.seed
        if where not in data:
            data = {where: loaders[run.task](run.seed, **sizes)}
        task, schedule = data[where], schedules[run.task]
        row = run_one(suite.name, run, task, schedule, passes, results.rows.values())
        clock.tick(results.append(row))
    if track == "tuned":
        _choose(results, chosen, tasks, seeds)
    return list(results.rows.values())


@cache
def load_torch():
    """Train on next to nothing, as a first optimiser step loads parts of torch for seconds."""
    from sklearn_npll import CoRegClassifier

    CoRegClassifier(max_epochs=1).fit(np.eye(4), np.arange(4) % 2)


def _plan(methods, tasks, seeds, suite, track, trials):
    """List the runs, those of one task and seed together."""
    runs = []
    for task in tasks:
        for seed in seeds:
            for method in methods:
                # Tasks of the ablations vary the annotator, so they only take the method itself.
                if task in suite.ablation_tasks and method.name != "Co-Reg":
                    continue
                if track == "default":
                    runs.append(_Run(task, method, seed))
                    continue
                for i, params in enumerate(sample_settings(method, trials, seed)):
                    runs.append(_Run(task, method, seed, f"trial-{i}", params))
    return runs


def _is_pending(results, run, retry):
    row = results.rows.get(run.key)
    if row is None:
        return True
    return retry and row["status"] == "error" and row["session"] != results.session


def run_one(suite, run, task, schedule, passes=None, former=()):
    """Fit and score one method; a failure becomes a row too.

    Parameters
    ----------
    suite : str
        Name of the suite.
    run : _Run
        Names of the task, the method, the seed and the track.
    task : Task
        The data.
    schedule : dict
        The schedule of the task.
    passes : int, default=None
        Gradient samples per training row to train with; None trains the epochs of the schedule.
    former : iterable of dict, default=()
        Rows of earlier runs, which tell what an epoch takes.

    Returns
    -------
    row : dict
        One row of the results.
    """
    method, labels = run.method, task.labels
    row = {
        "suite": suite,
        "task": run.task,
        "method": method.name,
        "seed": run.seed,
        "track": run.track,
        "coverage": float(labels.coverage(task.y_train)),
        "mean_set_size": float(labels.mean_set_size),
        "n_train": len(labels),
        "n_test": len(task.y_test),
        "n_classes": len(labels.classes),
        "noise_rate_used": method.eta,
    }
    budget = passes * len(labels) if passes and method.networks else None
    try:
        options = (schedule, run.seed, len(labels), budget, task.noise_rate, run.params)
        epochs = _epochs_of_former(former, run, budget)
        for _ in range(3):
            estimator = method.build(*options, epochs)
            start = time.perf_counter()
            estimator.fit(labels)
            row["seconds_fit"] = time.perf_counter() - start
            row.update(_work(estimator))
            epochs = _corrected(row, budget)
            if epochs is None:
                break
        row["params"] = params_json(estimator)
        row.update(_scores(estimator, method, task), status="ok")
    except Exception as error:  # one method must not end the others' runs
        row.update(status="error", error=_one_line(f"{type(error).__name__}: {error}"))
    return row


def _epochs_of_former(rows, run, budget):
    """Return the epochs that come to the budget at the mean cost of other runs on the task."""
    rows = [r for r in rows if (r["task"], r["method"]) == (run.task, run.method.name)]
    costs = [r["gradient_samples"] / r["epochs"] for r in rows if r["gradient_samples"]]
    return max(1, round(budget / np.mean(costs))) if budget and costs else None


def _work(estimator):
    """Return the epochs that an estimator trained and the gradient samples that they took."""
    history = getattr(estimator, "history_", None) or []
    samples = [epoch.get("gradient_samples") for epoch in history]
    counted = history and None not in samples
    return {
        "epochs": len(history) or None,
        "gradient_samples": int(sum(samples)) if counted else None,
    }


def _corrected(row, budget):
    """Return other epochs where the work was not within the tolerance of the budget, or None."""
    if not budget or not row["gradient_samples"]:
        return None
    ratio = row["gradient_samples"] / budget
    epochs = max(1, round(row["epochs"] / ratio))
    return None if abs(ratio - 1) <= TOLERANCE or epochs == row["epochs"] else epochs


def _one_line(text):
    return " ".join(text.split())[:500]


def _scores(estimator, method, task):
    """Return the figures of a fitted estimator."""
    row = {"accuracy": _accuracy(estimator, _samples(task.X_test, method), task.y_test)}
    if "deploy" in estimator.get_params(deep=False):
        deploy = estimator.deploy
        estimator.set_params(deploy="single")
        single = _accuracy(estimator, _samples(task.X_test, method), task.y_test)
        estimator.set_params(deploy=deploy)
        row["accuracy_single"] = single
    transduction = getattr(estimator, "transduction_", None)
    if transduction is not None:
        row["train_accuracy"] = float(np.mean(np.asarray(transduction) == task.y_train))
    rate, approximated = _agreement(estimator, method, task.labels)
    row.update(covering_rate=rate, approximated_accuracy=approximated)
    if task.X_val is not None:
        rate, approximated = _agreement(estimator, method, task.X_val)
        label_free = rate if approximated is None else approximated
        row["val_approximated_accuracy"] = label_free
        row["val_accuracy"] = _accuracy(estimator, _samples(task.X_val, method), task.y_val)
    return row


def _samples(X, method):
    """Return what a method predicts on: the annotator's answers, or the samples alone."""
    from sklearn_npll import PartialLabels

    return X.data if isinstance(X, PartialLabels) and not method.on_annotations else X


def _accuracy(estimator, X, y):
    return float(np.mean(np.asarray(estimator.predict(X)) == y))


def _agreement(estimator, method, labels):
    """Return covering rate and, where there are probabilities, approximated accuracy."""
    from sklearn_npll.metrics import approximated_accuracy, covering_rate

    X = _samples(labels, method)
    rate = covering_rate(estimator.predict(X), labels)
    if not hasattr(estimator, "predict_proba"):
        return rate, None
    column = {name: j for j, name in enumerate(labels.classes.tolist())}
    proba = np.zeros(labels.shape)
    proba[:, [column[c] for c in estimator.classes_.tolist()]] = estimator.predict_proba(X)
    return rate, approximated_accuracy(proba, labels)


def _choose(results, methods, tasks, seeds):
    """Add the rows of the trials that the validation rows choose; of equal ones the first."""
    criteria = {
        "tuned-label-free": "val_approximated_accuracy",
        "tuned-labelled": "val_accuracy",
    }
    for task in tasks:
        for method in methods:
            for seed in seeds:
                rows = [
                    row
                    for (t, m, s, track), row in results.rows.items()
                    if (t, m, s) == (task, method.name, seed) and track.startswith("trial-")
                ]
                rows.sort(key=lambda row: int(row["track"].split("-")[1]))
                valid = [row for row in rows if row["status"] == "ok"]
                for track, column in criteria.items():
                    if valid:
                        best = {**max(valid, key=lambda row: row[column]), "track": track}
                    elif rows:
                        best = {**rows[0], "track": track}
                    else:
                        continue
                    old = results.rows.get((task, method.name, seed, track))
                    if old is None or any(old[k] != best[k] for k in ("params", "status")):
                        results.append(best)


class _Clock:
    """Progress: one line a run, with the time that the rest will take at this pace."""

    def __init__(self, total, report):
        self.total, self.done, self.report = total, 0, report
        self.start = time.perf_counter()

    def tick(self, row):
        self.done += 1
        self.total = max(self.total, self.done)
        elapsed = time.perf_counter() - self.start
        left = elapsed / self.done * (self.total - self.done)
        if row["status"] == "ok":
            outcome = f"{100 * row['accuracy']:.2f} % in {row['seconds_fit']:.1f} s"
        else:
            outcome = f"error: {row['error']}"
        self.report(
            f"[{self.done}/{self.total}] {row['suite']} {row['task']} {row['method']} "
            f"seed {row['seed']} {row['track']}: {outcome}; {left / 60:.1f} min left"
        )


def _environment():
    """Return versions, machine, revision and command, of a script of the benchmarks or another."""
    try:
        import reporting

        return reporting.environment()
    except (ImportError, ValueError):  # called from a script outside the repository
        from importlib import metadata

        return {
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
            "python": platform.python_version(),
            "versions": {p: metadata.version(p) for p in ("numpy", "scikit-learn", "torch")},
        }
