"""Detectors of noisy labels: what they find, and what a classifier learns from what they keep.

A cell is a data set, a kind of noise and a seed, which fixes the rows and the noise. In each cell
every detector judges the same labels, and logistic regression is trained on the rows it believes;
"none" believes every row, "oracle" the right ones. With ``--coreg`` Co-Reg is trained as well,
divided by the detector, or by its own mixture in the row "mixture".

The data sets: "fashion" are embeddings of Fashion-MNIST by the shipped model, which annotates, too.
"caltech" and "cifar10-clip" have the probabilities of a real CLIP; the features of the first are
the log-probabilities of another CLIP, those of the second CLIP's embeddings. "cifar10n" has one
human label an image; its features are 64 principal components of the pixels, far poorer than
embeddings, and no model annotates, so that only detectors without an annotator run. All but
"fashion" are read from the folder that SKLEARN_NPLL_DATA names.

Rows are written after every cell; those that are in the file already are not repeated.

Usage::

    python benchmarks/bench_detection.py
    python benchmarks/bench_detection.py --data fashion --noise symmetric-0.4 --coreg
"""

import argparse
import contextlib
import json
import time
import warnings
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from npllbench.base import CACHE_DIR, SkipSuite
from npllbench.loaders import cifar10_split, decode_images, shared_file
from reporting import ROOT, write_result
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_npll import CoRegClassifier, PartialLabels, VLMPartialAnnotator, detection
from sklearn_npll.datasets import load_fashion_mnist

# -- noise -------------------------------------------------------------------------------------


def symmetric_noise(y, n_classes, eta, rng):
    """Replace a label with probability `eta` by one drawn evenly from the others."""
    other = (y + rng.integers(1, n_classes, len(y))) % n_classes
    return np.where(rng.random(len(y)) < eta, other, y)


def instance_noise(X, y, n_classes, eta, rng):
    """Replace labels with a probability and by a class that depend on the sample (Xia et al. 2020).

    The probability is drawn from N(eta, 0.1^2) cut to [0, 1]; the class from the softmax of a
    random projection of the standardised features, another projection for each true class.
    """
    rate = np.clip(rng.normal(eta, 0.1, len(y)), 0, 1)
    X = StandardScaler().fit_transform(X)
    weights = rng.normal(size=(n_classes, X.shape[1], n_classes))
    logits = np.empty((len(y), n_classes))
    for code in np.unique(y):
        logits[y == code] = X[y == code] @ weights[code]
    logits[np.arange(len(y)), y] = -np.inf
    cumulated = softmax(logits, axis=1).cumsum(axis=1)
    drawn = (rng.random((len(y), 1)) < cumulated).argmax(axis=1)
    return np.where(rng.random(len(y)) < rate, drawn, y)


def add_noise(data, noise, rng):
    """Return noisy labels (n,) by the name of a noise."""
    if noise == "human":
        return data.human[:, rng.integers(data.human.shape[1])]
    kind, eta = noise.rsplit("-", 1)
    if kind == "symmetric":
        return symmetric_noise(data.y, data.n_classes, float(eta), rng)
    return instance_noise(data.X, data.y, data.n_classes, float(eta), rng)


SYNTHETIC = tuple(f"symmetric-{eta}" for eta in (0.2, 0.4, 0.6)) + tuple(
    f"instance-{eta}" for eta in (0.2, 0.3, 0.4)
)

# -- data --------------------------------------------------------------------------------------


@dataclass
class Data:
    """Features, codes of true labels, and what is known of the training rows besides."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    n_classes: int
    scores: np.ndarray | None = None
    human: np.ndarray | None = None
    #: The annotator, where its text tower is to be had.
    annotator: object = None


def load_fashion(seed, n_train, n_test):
    """Embeddings and scores of the shipped model."""
    rng, parts = np.random.default_rng(seed), []
    classes = dict(enumerate(load_fashion_mnist("train").class_prompts.values()))
    for subset, n in (("train", n_train), ("test", n_test)):
        data = load_fashion_mnist(subset)
        rows = rng.permutation(len(data.images))[:n]
        annotator = VLMPartialAnnotator(classes, output="embeddings", cache_dir=CACHE_DIR)
        parts += [annotator.fit_transform(data.images[rows]), data.target[rows]]
    train, y, test, y_test = parts
    scores, codes = train.scores, VLMPartialAnnotator(classes)
    return Data(train.data, y, test.data, y_test, 10, scores=scores, annotator=codes)


def load_caltech(seed, n_train, n_test):
    """One CLIP annotates; the features are log-probabilities of another."""
    with np.load(shared_file("clip", "caltech101_softmax.npz")) as raw:
        y, scores, other = raw["y"], raw["vitb32"], raw["vitb16"]
    data = _split(np.log(np.maximum(other, 1e-12)), y, scores, seed, n_train, n_test)
    scaler = StandardScaler().fit(data.X)
    data.X, data.X_test = scaler.transform(data.X), scaler.transform(data.X_test)
    return data


def load_cifar10_clip(seed, n_train, n_test):
    """Embeddings of CLIP, and its zero-shot probabilities."""
    with np.load(shared_file("clip", "cifar10_vitb32.npz")) as raw:
        X, y, text = raw["image_embeddings"], raw["label"].astype(int), raw["text_embeddings"]
    X, text = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (X, text))
    return _split(X, y, softmax(100 * X @ text.T, axis=1), seed, n_train, n_test)


def _split(X, y, scores, seed, n_train, n_test):
    rows, test_rows = train_test_split(
        np.arange(len(y)), test_size=0.3, stratify=y, random_state=seed
    )
    rows, test_rows = rows[:n_train], test_rows[:n_test]
    parts = (X[rows], y[rows], X[test_rows], y[test_rows])
    return Data(*parts, scores.shape[1], scores=scores[rows])


def load_cifar10n(seed, n_train, n_test):
    """Principal components of the pixels, and the labels of three humans."""
    rng, parts = np.random.default_rng(seed), []
    for split, n in (("train", n_train), ("test", n_test)):
        archive = cifar10_split(split)
        rows = rng.permutation(len(archive["label"]))[:n]
        pixels = decode_images(archive, rows).reshape(-1, 16, 2, 16, 2, 3).mean(axis=(2, 4))
        parts += [pixels.reshape(len(rows), -1) / 255, archive["label"][rows].astype(int)]
        if split == "train":
            human = archive["human"][rows].astype(int)
    X, y, X_test, y_test = parts
    pca = PCA(min(64, len(X)), random_state=0).fit(X)
    return Data(pca.transform(X), y, pca.transform(X_test), y_test, 10, human=human)


# Name -> loader, kinds of noise, rows to train on, rows to test on.
DATA = {
    "fashion": (load_fashion, SYNTHETIC, 2000, 2000),
    "caltech": (load_caltech, SYNTHETIC, None, None),
    "cifar10-clip": (load_cifar10_clip, SYNTHETIC, None, None),
    "cifar10n": (load_cifar10n, ("human",), 4000, 4000),
}

# -- detectors ---------------------------------------------------------------------------------

# Name -> (function of a seed and the data that makes the detector, what it needs: "scores", the
# "annotator" or a package).
DETECTORS = {
    "label match": (lambda seed, data: detection.LabelMatchDetector(), "scores"),
    "CLIPCleaner": (lambda seed, data: detection.CLIPCleanerDetector(random_state=seed), "scores"),
    "small loss": (lambda seed, data: detection.SmallLossDetector(random_state=seed), None),
    "neighbour vote": (lambda seed, data: detection.NeighborVoteDetector(), None),
    "confident learning": (lambda seed, data: detection.ConfidentLearningDetector(), "cleanlab"),
    "DeFT, linear": (lambda seed, data: detection.DeFTDetector(random_state=seed), None),
    "DeFT, feature": (lambda seed, data: _deft("feature", seed, data), "annotator"),
    "DeFT, text": (lambda seed, data: _deft("text", seed, data), "annotator"),
}


def _deft(backend, seed, data):
    return detection.DeFTDetector(data.annotator, backend=backend, random_state=seed)


COREG = {
    "max_epochs": 40,
    "warm_up": 8,
    "batch_size": 64,
    "lr": 0.05,
    # the labels to judge, not the annotator's scores, are what is learnt from
    "warm_up_target": "candidates",
    "prior": "candidates",
}


def student():
    """Classifier that is trained on what is kept."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=1000))


def can_run(name, data):
    """Tell whether a detector has what it needs."""
    need = DETECTORS[name][1] if name in DETECTORS else None
    if need in ("scores", "annotator"):
        return getattr(data, need) is not None
    return need is None or bool(find_spec(need))


def figures(clean, mask, score):
    """Precision, recall and F1 of the rows believed, and AUC of the scores."""
    precision, recall, f1, _ = precision_recall_fscore_support(
        clean, mask, average="binary", zero_division=0.0
    )
    auc = roc_auc_score(clean, score) if 0 < clean.sum() < len(clean) else None
    return {"precision": precision, "recall": recall, "f1": f1, "auc": auc}


def run(data, noisy, name, seed, coreg):
    """Return the figures of one detector in one cell."""
    start, clean = time.perf_counter(), noisy == data.y
    candidates = np.arange(data.n_classes) == noisy[:, None]
    labels = PartialLabels(data.X, np.arange(data.n_classes), candidates, scores=data.scores)
    row = {}
    if coreg:
        division = DETECTORS[name][0](seed, data) if name in DETECTORS else "mixture"
        clf = CoRegClassifier(division=division, random_state=seed, **COREG).fit(labels)
        mask, score = clf.clean_probability_ > clf.clean_threshold, clf.clean_probability_
    elif name in DETECTORS:
        detector = DETECTORS[name][0](seed, data)
        clf = detection.DeFTClassifier(detector, student()).fit(labels)
        mask, score = clf.detector_.clean_mask_, clf.detector_.clean_score_
    else:
        mask = clean if name == "oracle" else np.ones(len(clean), dtype=bool)
        score, clf = mask.astype(float), student().fit(data.X[mask], noisy[mask])
    row = {**figures(clean, mask, score), "kept": mask.mean()}
    row["accuracy"] = np.mean(clf.predict(data.X_test) == data.y_test)
    return {**row, "seconds": time.perf_counter() - start}


def summary(rows):
    """Return mean and standard deviation over seeds."""
    groups = {}
    for row in rows:
        key = " | ".join((row["data"], row["noise"], row["learner"], row["detector"]))
        groups.setdefault(key, []).append(row)
    table = {}
    for key, group in groups.items():
        table[key] = {"seeds": len(group)}
        for name in ("precision", "recall", "f1", "auc", "accuracy", "seconds"):
            values = [row[name] for row in group if row[name] is not None]
            if values:
                std = float(np.std(values, ddof=1)) if len(values) > 1 else None
                table[key][name] = {"mean": float(np.mean(values)), "std": std}
    return table


def run_all(args, report=print):
    """Run every cell that is not in the file yet, and write the file after each."""
    path = Path(args.output) if args.output else ROOT / "benchmarks" / "results" / "detection.json"
    rows = json.loads(path.read_text())["runs"] if path.exists() else []
    learner = "Co-Reg" if args.coreg else "logistic regression"
    references = ["mixture"] if args.coreg else ["none", "oracle"]
    keys = ("data", "noise", "seed", "learner", "detector", "n_train", "n_test")
    done = {tuple(row[key] for key in keys) for row in rows}
    for name in args.data:
        loader, noises, n_train, n_test = DATA[name]
        n_train, n_test = args.n_train or n_train, args.n_test or n_test
        load = lru_cache(maxsize=1)(loader)
        for seed in args.seeds:
            for noise in [noise for noise in noises if not args.noise or noise in args.noise]:
                try:
                    data = load(seed, n_train, n_test)
                except SkipSuite as reason:
                    report(f"{name} is left out: {reason}")
                    break
                noisy = add_noise(data, noise, np.random.default_rng(seed))
                sizes = len(data.y), len(data.y_test)
                found = []
                for detector in references + [d for d in args.detectors if can_run(d, data)]:
                    cell = dict(zip(keys, (name, noise, seed, learner, detector, *sizes)))
                    if tuple(cell.values()) in done:
                        continue
                    with warnings.catch_warnings():
                        # few rows a class: folds without it, and classes of which none is clean
                        warnings.filterwarnings(
                            "ignore", "The least populated|fewer than|May not flag"
                        )
                        row = run(data, noisy, detector, seed, args.coreg)
                    found.append({**cell, "noise_rate": float(np.mean(noisy != data.y)), **row})
                    report(json.dumps({k: _rounded(v) for k, v in found[-1].items()}))
                if found:
                    rows += [{k: _plain(v) for k, v in row.items()} for row in found]
                    with contextlib.redirect_stdout(None):
                        write_result("detection", {"summary": summary(rows), "runs": rows}, path)
    return rows


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


def _rounded(value):
    return round(float(value), 3) if isinstance(value, (float, np.floating)) else value


def parse(arguments=None):
    """Return the options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--noise", nargs="+", choices=[*SYNTHETIC, "human"])
    parser.add_argument("--detectors", nargs="+", choices=list(DETECTORS), default=list(DETECTORS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--n-train", type=int)
    parser.add_argument("--n-test", type=int)
    parser.add_argument("--coreg", action="store_true", help="train Co-Reg, which takes longer")
    parser.add_argument("--output", help="by default benchmarks/results/detection.json")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_all(parse())
