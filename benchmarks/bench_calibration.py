"""Calibration of Co-Reg's probabilities, as they are and fitted on a few labelled rows.

Co-Reg trains on the candidates of a suite's first task; 100 rows that it does not train on, with
their true labels, calibrate it, and the test rows judge: accuracy, mean confidence, and the
expected calibration error over 15 bins of equal width. Temperature scaling needs scikit-learn 1.8.

Usage::

    python benchmarks/bench_calibration.py
"""

import argparse

import numpy as np
from npllbench import SUITES, get_methods
from reporting import mean_and_std, write_result
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

METHODS = ("temperature", "sigmoid", "isotonic")


def calibration_error(proba, is_right, n_bins=15):
    """Mean difference of confidence and accuracy in bins of equal width, weighted by their rows."""
    confidence = proba.max(axis=1)
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, is_right - confidence, minlength=n_bins)
    return np.abs(gaps).sum() / len(proba)


def figures(proba, classes, y):
    """Accuracy, mean confidence and calibration error of probabilities."""
    is_right = classes[proba.argmax(axis=1)] == y
    return {
        "accuracy": float(is_right.mean()),
        "confidence": float(proba.max(axis=1).mean()),
        "calibration_error": float(calibration_error(proba, is_right)),
    }


def run(suite, seed):
    """Return a row for the annotator, for Co-Reg, and for each way of calibrating it."""
    name = next(iter(suite.tasks))
    task = suite.tasks[name](seed, n_train=suite.n_train, n_test=suite.n_test, n_val=100)
    labels, test, y = task.labels, task.X_test, np.asarray(task.y_test)
    epochs = suite.passes if task.kind == "images" else suite.passes // 2
    method = get_methods("Co-Reg")[0]
    clf = method.build(suite.task_schedule(name), seed, len(labels), epochs=epochs).fit(labels)
    found = {
        "annotator": figures(test.scores, test.classes, y),
        "Co-Reg": figures(clf.predict_proba(test.data), clf.classes_, y),
    }
    for way in METHODS:
        calibrated = CalibratedClassifierCV(FrozenEstimator(clf), method=way)
        calibrated.fit(task.X_val.data, task.y_val)
        found[way] = figures(calibrated.predict_proba(test.data), calibrated.classes_, y)
    return [{"task": suite.name, "seed": seed, "option": k, **v} for k, v in found.items()]


def main():
    """Run all, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--suites", nargs="+", default=["fashion-embeddings", "fashion"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output")
    args = parser.parse_args()
    runs = []
    for name in args.suites:
        for seed in args.seeds:
            runs += run(SUITES[name], seed)
            print(*runs[-5:], sep="\n", flush=True)
    write_result("calibration", {"summary": mean_and_std(runs), "runs": runs}, args.output)


if __name__ == "__main__":
    main()
