"""Memory of Co-Reg on many samples of many classes: the shape of ImageNet.

Features, labels and candidates are made up. Each class has a centre, a sample lies around one, and
an annotator that knows the centres only roughly gives each sample the classes that are most
similar to it: fewer where it is sure, and more often without the true one where it is not. Each
fit runs in a process of its own, whose peak of resident memory is read from Linux; it has one epoch
of warm-up and one of co-training. Target: less than 6 GB at 1,281,167 rows of 1,000 classes, for
which one dense matrix of float32 takes 5.1 GB.

    python benchmarks/bench_frugal.py
    python benchmarks/bench_frugal.py --sizes 20000 --output /dev/null
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from reporting import peak_memory, write_result
from scipy import sparse as sp

CHUNK = 8192
N_TEST = 20_000


def make_problem(folder, n_samples, n_classes, n_features, seed=0):
    """Write features, labels and candidates, made in chunks."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_classes, n_features)).astype(np.float32)
    believed = centres + 1.2 * rng.normal(size=centres.shape).astype(np.float32)
    n = n_samples + N_TEST
    features = np.lib.format.open_memmap(
        folder / "features.npy", mode="w+", dtype=np.float32, shape=(n, n_features)
    )
    y = rng.integers(n_classes, size=n)
    sizes, columns = [], []
    for start in range(0, n, CHUNK):
        rows = slice(start, min(start + CHUNK, n))
        x = centres[y[rows]] + rng.normal(size=(len(y[rows]), n_features)).astype(np.float32)
        features[rows] = x
        similarity = x @ believed.T
        best = np.argpartition(-similarity, 9, axis=1)[:, :9]
        values = np.take_along_axis(similarity, best, axis=1)
        chosen = values > values.max(axis=1, keepdims=True) - 16  # the best and what comes close
        sizes.append(chosen.sum(axis=1))
        columns.append(best[chosen].astype(np.int32))
    features.flush()
    sizes, columns = np.concatenate(sizes), np.concatenate(columns)
    candidates = sp.csr_array(
        (np.ones(len(columns), bool), columns, np.concatenate([[0], np.cumsum(sizes)])),
        shape=(n, n_classes),
    )
    np.save(folder / "labels.npy", y)
    sp.save_npz(folder / "candidates.npz", sp.csr_matrix(candidates), compressed=False)


def small_network(n_features, n_classes):
    from torch import nn

    return nn.Sequential(
        nn.Linear(n_features, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, n_classes)
    )


def fit_in_child(folder, n_samples, batch_size):
    """Fit the first rows, and print figures of it."""
    from sklearn_npll import CoRegClassifier, PartialLabels

    X = np.load(folder / "features.npy", mmap_mode="r")
    y = np.load(folder / "labels.npy")
    test = slice(len(X) - N_TEST, None)
    candidates = sp.csr_array(sp.load_npz(folder / "candidates.npz"))[:n_samples]
    labels = PartialLabels.from_csr(candidates, data=X[:n_samples])
    before = peak_memory()
    start = time.perf_counter()
    classifier = CoRegClassifier(
        small_network, max_epochs=2, warm_up=1, batch_size=batch_size, lr=0.3, random_state=0
    ).fit(labels)
    seconds = time.perf_counter() - start
    figures = {
        "peak_mb": peak_memory(),
        "peak_mb_before_fit": before,
        "fit_seconds": seconds,
        "mean_set_size": labels.mean_set_size,
        "coverage": labels.coverage(y[:n_samples]),
        "accuracy": float((classifier.predict(X[test]) == y[test]).mean()),
        "accuracy_of_labels": float((classifier.transduction_ == y[:n_samples]).mean()),
        "label_distributions": type(classifier.label_distributions_).__name__,
        "history": classifier.history_,
    }
    print(json.dumps(figures))


def measure(arguments):
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        make_problem(Path(folder), max(arguments.sizes), arguments.n_classes, arguments.n_features)
        for n in sorted(arguments.sizes):
            command = [sys.executable, __file__, "--batch-size", str(arguments.batch_size)]
            command += ["--child", folder, str(n)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            runs[str(n)] = json.loads(done.stdout)
            shown = {k: v for k, v in runs[str(n)].items() if k != "history"}
            print(n, json.dumps(shown), flush=True)
    return runs


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[20_000, 80_000, 320_000, 1_281_167]
    )
    parser.add_argument("--n-classes", type=int, default=1000)
    parser.add_argument("--n-features", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--output", help="default: benchmarks/results/frugal.json")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    if arguments.child:
        folder, n_samples = arguments.child
        return fit_in_child(Path(folder), int(n_samples), arguments.batch_size)
    runs = measure(arguments)
    result = {
        "n_classes": arguments.n_classes,
        "n_features": arguments.n_features,
        "batch_size": arguments.batch_size,
        "chance": 1 / arguments.n_classes,
        "runs": runs,
        "target_mb": 6000,
    }
    write_result("frugal", result, arguments.output)


if __name__ == "__main__":
    main()
