"""Loaders of the data that tasks are made of.

A loader takes the seed and the sizes of a task, and what tells its task from others, and returns
the `Task`.
"""

import io
import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from .base import CACHE_DIR, SkipSuite, Task

# -- Fashion-MNIST and the shipped model ---------------------------------------------------------


def load_fashion(
    seed,
    n_train,
    n_test,
    n_val,
    *,
    rule="union",
    rule_value=None,
    output="images",
    templates="coreg-27",
    refine=None,
    n_known=0,
    imbalance=1,
):
    from sklearn_npll import VLMPartialAnnotator
    from sklearn_npll.datasets import load_fashion_mnist

    train, test = load_fashion_mnist("train"), load_fashion_mnist("test")
    rng = np.random.default_rng(seed)
    rows, test_rows = rng.permutation(len(train.images)), rng.permutation(len(test.images))
    if imbalance > 1:
        rows = long_tail(rows, train.target, n_train, n_val, imbalance, rng)
    rows, val_rows = _cut(rows, None if imbalance > 1 else n_train, n_val)
    test_rows = test_rows[:n_test]
    if templates != "coreg-27":
        templates = _first_templates(templates)
    annotator = VLMPartialAnnotator(
        train.class_prompts,
        templates=templates,
        rule=rule,
        rule_value=rule_value,
        refine=refine,
        output=output,
        cache_dir=CACHE_DIR,
    )
    names = train.target_names
    parts = [(train, rows), (test, test_rows)] + ([(train, val_rows)] if n_val else [])
    known = [few_labels(train.target[rows], names, n_known), None, None]
    labels = [
        annotator.fit_transform(p.images[r], known_labels=k) for (p, r), k in zip(parts, known)
    ]
    y = [names[part.target[r]] for part, r in parts]
    kind = "images" if output == "images" else "features"
    val = (labels[2], y[2]) if n_val else (None, None)
    return Task(labels[0], y[0], labels[1], y[1], *val, kind=kind)


def long_tail(rows, target, n_train, n_val, imbalance, rng):
    """Let the training rows fall off by class, exponentially from the most frequent one.

    Parameters
    ----------
    rows : ndarray of shape (n_rows,)
        Rows in random order, about equally many of each class.
    target : ndarray of shape (n_all,)
        Class index of each row.
    n_train, n_val : int
        Rows to train on, and to validate on, of which no class is rarer than others.
    imbalance : float
        Rows of the most frequent class for each of the rarest.
    rng : numpy.random.Generator
        Draws the order of the classes.

    Returns
    -------
    rows : ndarray
        About n_train training rows in random order, then the validation rows.
    """
    val, rows = rows[:n_val], rows[n_val:]
    n_train, n_classes = n_train or len(rows), target.max() + 1
    shares = float(imbalance) ** (-rng.permutation(n_classes) / (n_classes - 1))
    counts = np.round(n_train * shares / shares.sum()).astype(int)
    rows = rows[_rank_in_class(target[rows]) <= counts[target[rows]]]
    return np.concatenate([rows, val])


def few_labels(target, names, n_known):
    """Return the names of the first `n_known` rows of each class and "-1" for others, or None."""
    if not n_known:
        return None
    return np.where(_rank_in_class(target) <= n_known, np.asarray(names)[target], "-1")


def _rank_in_class(target):
    """Return for each row how many of its class there are up to it."""
    return (target[:, None] == np.arange(target.max() + 1)).cumsum(0)[
        np.arange(len(target)), target
    ]


def _first_templates(count):
    """Return the first templates of the default list."""
    from sklearn_npll import VLMPartialAnnotator

    annotator = VLMPartialAnnotator(["a", "b"]).fit(np.zeros((1, 4, 4), dtype=np.uint8))
    return list(annotator.templates_[:count])


def _cut(rows, n_train, n_val):
    """Cut training and validation rows off a permutation."""
    if n_train is None or n_train + n_val > len(rows):
        n_train = len(rows) - n_val
    return rows[:n_train], rows[n_train : n_train + n_val]


# -- data of the development folder --------------------------------------------------------------


def shared_file(*path):
    """Return a file of the folder that SKLEARN_NPLL_DATA names."""
    folder = os.environ.get("SKLEARN_NPLL_DATA")
    if not folder:
        raise SkipSuite(
            f"{'/'.join(path)} is not shipped with the package: set the environment variable "
            "SKLEARN_NPLL_DATA to the folder that holds it"
        )
    file = Path(folder, *path)
    if not file.exists():
        raise SkipSuite(f"SKLEARN_NPLL_DATA is {folder}, which has no {'/'.join(path)}")
    return file


def check_files(*files):
    for file in files:
        shared_file(*file)


def decode_images(archive, rows):
    """Decode JPEG images of an archive to uint8 (n, height, width, 3)."""
    from PIL import Image

    jpeg, offset = archive["jpeg"], archive["offset"]
    return np.stack(
        [
            np.asarray(Image.open(io.BytesIO(jpeg[offset[i] : offset[i + 1]].tobytes())))
            for i in rows
        ]
    )


@lru_cache(maxsize=1)
def cifar10_split(split):
    with np.load(shared_file("cifar10", f"{split}.npz")) as archive:
        return dict(archive)


def load_cifar10n(seed, n_train, n_test, n_val):
    from sklearn_npll import PartialLabels

    train = cifar10_split("train")
    rng = np.random.default_rng(seed)
    rows, val_rows = _cut(rng.permutation(len(train["label"])), n_train, n_val)

    def annotated(rows):
        votes = train["human"][rows].astype(np.int64)
        labels = PartialLabels.from_votes(votes, np.arange(10), data=decode_images(train, rows))
        return labels, train["label"][rows].astype(np.int64)

    val = annotated(val_rows) if n_val else (None, None)
    labels, y_train = annotated(rows)
    test = cifar10_split("test")
    test_rows = rng.permutation(len(test["label"]))[:n_test]
    X_test, y_test = decode_images(test, test_rows), test["label"][test_rows].astype(np.int64)
    return Task(labels, y_train, X_test, y_test, *val, kind="images")


def swap_truth(candidates, y, eta, rng):
    """Inject noise into given candidate sets.

    With probability `eta` the true label leaves the set and a label drawn evenly from those
    outside the set takes its place. Sets without the truth, and sets of all classes, stay.

    Parameters
    ----------
    candidates : ndarray of shape (n_samples, n_classes), dtype bool
        The sets.
    y : ndarray of shape (n_samples,)
        Column of the true label.
    eta : float in [0, 1]
        The probability.
    rng : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    candidates : ndarray of shape (n_samples, n_classes), dtype bool
        Noisy sets, of the same sizes.
    """
    noisy = np.array(candidates, dtype=bool)
    rows = np.arange(len(y))
    swapped = (rng.random(len(y)) < eta) & noisy[rows, y] & ~noisy.all(axis=1)
    entering = np.where(noisy, -1.0, rng.random(noisy.shape)).argmax(axis=1)
    noisy[rows[swapped], y[swapped]] = False
    noisy[rows[swapped], entering[swapped]] = True
    return noisy


def load_pll(seed, n_train, n_test, n_val, *, name, eta):
    """Load split `seed` of ten 10 % splits; seeds from 10 on begin with another permutation."""
    from scipy.io import loadmat

    from sklearn_npll import PartialLabels

    raw = loadmat(shared_file("pll", f"{name}.mat"))
    X = np.asarray(raw["data"], dtype=np.float64)
    candidates, y = (_dense(raw[key]).T for key in ("partial_target", "target"))
    candidates, y = candidates.astype(bool), y.argmax(axis=1)
    rows = np.random.default_rng(seed // 10).permutation(len(X))
    folds = np.array_split(rows, 10)
    test_rows = folds.pop(seed % 10)[:n_test]
    rng = np.random.default_rng(seed)
    rows, val_rows = _cut(rng.permutation(np.concatenate(folds)), n_train, n_val)
    candidates = swap_truth(candidates, y, eta, rng)

    def part(rows):
        return PartialLabels.from_candidates(candidates[rows], data=X[rows]), y[rows]

    val = part(val_rows) if n_val else (None, None)
    return Task(*part(rows), X[test_rows], y[test_rows], *val)


def _dense(matrix):
    return matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix)


def load_caltech(seed, n_train, n_test, n_val, *, rule, value, refine=None):
    """Let one CLIP backbone annotate, and learn from the other's log-probabilities."""
    from sklearn.model_selection import train_test_split

    from sklearn_npll import PartialLabels

    from .precomputed import PrecomputedText, embeddings_from

    with np.load(shared_file("clip", "caltech101_softmax.npz")) as raw:
        raw = dict(raw)
    y, classes = raw["classes"][raw["y"]], raw["classes"]
    rows, test_rows = train_test_split(
        np.arange(len(y)), test_size=0.3, stratify=y, random_state=seed
    )
    rows, val_rows = _cut(rows, n_train, n_val)
    features = np.log(np.maximum(raw["vitb16"].astype(np.float64), 1e-12))
    features = (features - features[rows].mean(axis=0)) / features[rows].std(axis=0)

    images, texts, logit_scale = embeddings_from(raw["vitb32"])
    model = PrecomputedText(classes.tolist(), texts, logit_scale)

    def part(rows):
        scores, names = raw["vitb32"][rows], classes
        if refine is not None:
            refined = model.annotator(refine=refine).fit_transform(images[rows])
            scores, names = refined.scores, refined.classes
        labels = PartialLabels.from_scores(scores, rule, value, data=features[rows], classes=names)
        return labels, y[rows]

    val = part(val_rows) if n_val else (None, None)
    return Task(*part(rows), *part(test_rows[:n_test]), *val)


# -- synthetic -----------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _synthetic_samples(name, seed, n_samples):
    """Return samples, labels and, for instance-dependent noise, out-of-sample probabilities."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(seed)
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        rows = rng.permutation(len(X))[:n_samples]
        X, y = X[rows], y[rows]
    else:
        centres = rng.normal(size=(10, 20)) * 0.9
        y = rng.permutation(np.arange(n_samples) % 10)
        X = centres[y] + rng.normal(size=(n_samples, 20))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200))
    return X, y, cross_val_predict(model, X, y, cv=3, method="predict_proba")


def load_synthetic(seed, n_train, n_test, n_val, *, name, protocol, q, eta):
    from sklearn_npll import PartialLabels
    from sklearn_npll.datasets import make_candidates

    X, y, proba = _synthetic_samples(name, seed, n_train + n_test + n_val)
    candidates = make_candidates(
        y,
        protocol=protocol,
        q=q,
        eta=eta,
        classes=np.arange(10),
        proba=proba if protocol == "instance" else None,
        random_state=seed,
    )
    test, rows = slice(None, n_test), slice(n_test, n_test + n_train)

    def part(rows):
        return PartialLabels.from_candidates(candidates[rows], data=X[rows]), y[rows]

    val = part(slice(n_test + n_train, None)) if n_val else (None, None)
    return Task(*part(rows), X[test], y[test], *val)
