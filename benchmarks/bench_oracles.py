"""Where Co-Reg's errors come from: each part replaced by what only the true labels can tell.

Every row trains the default Co-Reg on the same rows for as many epochs, but with

- "true prior": the class shares of the true labels to align to;
- "perfect division": sets are believed if and only if they hold the truth;
- "truth in every set": the true class added where it is missing;
- "both": that, and every set believed;
- "true label in the set": sets that hold the truth cut down to it, the others without a label;
- "true labels": the true label of every row, and nothing else.

They are scored on validation rows, split off the training rows with seeds of their own; "annotator"
and "logistic regression" (on true labels, features only) are scored on the same rows. Rows that are
in the file already are not run again.

Usage::

    python benchmarks/bench_oracles.py
    python benchmarks/bench_oracles.py --tasks fashion-embeddings/union --seeds 100
"""

import argparse
import contextlib
import json
import time
from pathlib import Path

import numpy as np
from npllbench import SUITES, SkipSuite, get_methods
from npllbench.methods import _logistic
from reporting import ROOT, mean_and_std, write_result
from sklearn.base import BaseEstimator

# Suite/task -> validation rows.
TASKS = {
    "fashion-embeddings/union": 2000,
    "fashion/union": 1000,
    "cifar10n/human-union": 1000,
    "caltech-clip/topk-3": 300,
    "pll/lost": 200,
    "pll/lost-eta0.2": 200,
    "pll/MSRCv2-eta0.2": 200,
}


class KnownDivision(BaseEstimator):
    """A detector that was told which rows to believe."""

    def __init__(self, mask):
        self.mask = mask

    def fit(self, X, y=None):
        """Believe the rows of the mask."""
        self.clean_mask_ = self.mask
        self.clean_score_ = self.mask.astype(float)
        return self


def settings(labels, y):
    """Return name -> (labels, parameters) of everything that Co-Reg is trained on."""
    truth = labels.classes == np.asarray(y)[:, None]
    candidates = labels.toarray()
    holds = (candidates & truth).any(axis=1)
    everything = KnownDivision(np.ones(len(y), dtype=bool))
    in_set = np.where(holds[:, None], truth, True)
    return {
        "Co-Reg": (labels, {}),
        "true prior": (labels, {"prior": dict(zip(labels.classes.tolist(), truth.mean(axis=0)))}),
        "perfect division": (labels, {"division": KnownDivision(holds)}),
        "truth in every set": (labels.replace(candidates=candidates | truth), {}),
        "both": (labels.replace(candidates=candidates | truth), {"division": everything}),
        "true label in the set": (
            labels.replace(candidates=in_set, scores=None, votes=None),
            {"division": KnownDivision(holds)},
        ),
        "true labels": (
            labels.replace(candidates=truth, scores=None, votes=None),
            {"division": everything},
        ),
    }


def run(suite, schedule, task, seed, option):
    """Return the validation accuracy of one setting, and the passes over the rows that it took."""
    start = time.perf_counter()
    labels, params = settings(task.labels, task.y_train)[option]
    n_train = len(labels)
    # about one pass over the rows an epoch and network, of which there is one for images
    epochs = suite.passes if task.kind == "images" else suite.passes // 2
    method = get_methods("Co-Reg")[0]
    clf = method.build(schedule, seed, n_train, params=params, epochs=epochs).fit(labels)
    return {
        "accuracy": np.mean(clf.predict(task.X_val.data) == task.y_val),
        "passes": sum(epoch["gradient_samples"] for epoch in clf.history_) / n_train,
        "seconds": time.perf_counter() - start,
    }


def references(task):
    """Return the validation accuracy of the annotator and of a supervised linear model."""
    found, val = {}, task.X_val
    if val.scores is not None:
        found["annotator"] = np.mean(val.classes[val.scores.argmax(axis=1)] == task.y_val)
    if task.kind == "features":
        model = _logistic().fit(task.labels.data, task.y_train)
        found["logistic regression"] = model.score(val.data, task.y_val)
    return found


def main():
    """Run what is not in the file yet, and write the file after each run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102])
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    path = args.output or ROOT / "benchmarks" / "results" / "oracles.json"
    runs = json.loads(path.read_text())["runs"] if path.exists() else []

    def keep(**row):
        runs.append({key: v.item() if hasattr(v, "item") else v for key, v in row.items()})
        print(json.dumps(runs[-1]), flush=True)
        with contextlib.redirect_stdout(None):
            write_result("oracles", {"summary": mean_and_std(runs), "runs": runs}, path)

    for seed in args.seeds:
        for name in args.tasks:
            suite_name, task_name = name.split("/")
            suite = SUITES[suite_name]
            try:
                suite.check and suite.check()
            except SkipSuite as reason:
                print(f"{name} is left out: {reason}")
                continue
            schedule = suite.task_schedule(task_name)
            task = suite.tasks[task_name](seed, n_train=suite.n_train, n_test=50, n_val=TASKS[name])
            done = {r["option"] for r in runs if (r["task"], r["seed"]) == (name, seed)}
            for option, accuracy in references(task).items():
                if option not in done:
                    keep(task=name, seed=seed, option=option, accuracy=accuracy)
            for option in settings(task.labels, task.y_train):
                if option not in done:
                    row = run(suite, schedule, task, seed, option)
                    keep(task=name, seed=seed, option=option, **row)


if __name__ == "__main__":
    main()
