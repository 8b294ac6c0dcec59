"""What common mistakes cost, in figures: the table of docs/pitfalls.rst.

Fashion-MNIST, embeddings by the shipped model of images of the training and the test split, three
seeds; each seed has its own training rows. Co-Reg trains 20 epochs.

leak: cross-validated accuracy if the annotator believes the y that is meant for the scorer.
label_free: the label-free scores beside the accuracy, for rules that make larger and larger sets.
templates: accuracy and mean confidence of the ways to combine 27 templates of one model.
step_between: a step between annotator and learner, with y and without.
prior: class shares that predictions are aligned to, where the largest class has ten times the
rows of the smallest; the test rows have the same shares.
few_images: Co-Reg beside its annotator for a growing number of images.

    python benchmarks/bench_pitfalls.py
    python benchmarks/bench_pitfalls.py --seeds 0 --n-images 200 --epochs 4 --output /dev/null
"""

import argparse
import warnings

import numpy as np
from bench_annotators import aggregations
from reporting import write_result
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from sklearn_npll import CoRegClassifier, VLMPartialAnnotator
from sklearn_npll.datasets import load_fashion_mnist
from sklearn_npll.model_selection import approximated_accuracy_scorer, covering_rate_scorer

N_TEST = 2000


def embedded(subset, annotator, n_rows=None):
    """Embeddings and class names of a split, or of rows of it drawn once."""
    data = load_fashion_mnist(subset)
    rows = np.random.default_rng(0).permutation(len(data.images))[:n_rows]
    return annotator.embed(data.images[rows]), data.target_names[data.target[rows]]


def leak(annotator, learner, X, y, X_test, y_test):
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    unlabelled = make_pipeline(clone(annotator), clone(learner)).fit(X)
    yield {"use_y": "test rows, no y", "accuracy": unlabelled.score(X_test, y_test)}
    for use_y in (False, True):
        pipe = make_pipeline(clone(annotator).set_params(use_y=use_y), clone(learner))
        yield {"use_y": use_y, "accuracy": cross_val_score(pipe, X, y, cv=folds).mean()}


def label_free(annotator, learner, X, y, X_test, y_test):
    for k in (1, 2, 4, 8):
        chosen = clone(annotator).set_params(rule="topk", rule_value=k)
        pipe = make_pipeline(chosen, clone(learner)).fit(X)
        yield {
            "k": k,
            "covering_rate": covering_rate_scorer(pipe, X_test),
            "approximated_accuracy": approximated_accuracy_scorer(pipe, X_test),
            "accuracy": pipe.score(X_test, y_test),
        }


def templates(annotator, learner, X, y, X_test, y_test):
    return aggregations(annotator.fit_transform(X), y)


def step_between(annotator, learner, X, y, X_test, y_test):
    pipe = make_pipeline(clone(annotator), PCA(8), clone(learner))
    try:
        pipe.fit(X)
    except ValueError as error:
        yield {"step": "between, no y", "error": str(error)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield {"step": "between, y", "accuracy": pipe.fit(X, y).score(X_test, y_test)}
    labels, pca = annotator.fit_transform(X), PCA(8).fit(X)
    small = labels.replace(data=pca.transform(X))
    reduced = clone(learner).fit(small)
    yield {"step": "on the samples", "accuracy": reduced.score(pca.transform(X_test), y_test)}
    yield {"step": "none", "accuracy": clone(learner).fit(labels).score(X_test, y_test)}


def prior(annotator, learner, X, y, X_test, y_test):
    classes, codes = np.unique(y, return_inverse=True)
    wanted = 0.1 ** (np.arange(len(classes)) / (len(classes) - 1))

    def long_tail(y):
        counts = np.array([(y == name).sum() for name in classes])
        sizes = (wanted * (counts / wanted).min()).astype(int)
        return np.concatenate([np.flatnonzero(y == c)[:n] for c, n in zip(classes, sizes)])

    rows, test_rows = long_tail(y), long_tail(y_test)
    labels = annotator.fit_transform(X[rows])
    shares = dict(zip(classes.tolist(), wanted))
    priors = {"uniform": "uniform", "adaptive": "adaptive", "none": None, "true shares": shares}
    yield {
        "prior": "annotator alone",
        "accuracy": annotator.score(X_test[test_rows], y_test[test_rows]),
        "balanced_accuracy": balanced_accuracy_score(
            y_test[test_rows], annotator.predict(X_test[test_rows])
        ),
    }
    for name, value in priors.items():
        predicted = clone(learner).set_params(prior=value).fit(labels).predict(X_test[test_rows])
        yield {
            "prior": name,
            "accuracy": np.mean(predicted == y_test[test_rows]),
            "balanced_accuracy": balanced_accuracy_score(y_test[test_rows], predicted),
        }


def few_images(annotator, learner, X, y, X_test, y_test):
    yield {"n_images": "annotator alone", "accuracy": annotator.score(X_test, y_test)}
    for n in (60, 120, 250, 500, 1000, 2000):
        if n <= len(X):
            fitted = clone(learner).fit(annotator.fit_transform(X[:n]))
            yield {"n_images": n, "accuracy": fitted.score(X_test, y_test)}


PITFALLS = (leak, label_free, templates, step_between, prior, few_images)


def summarise(runs):
    """Mean and standard deviation over the seeds of each figure; the rest as in the first run."""
    for rows in zip(*runs):
        row = dict(rows[0])
        for key, value in rows[0].items():
            if isinstance(value, float):
                values = [float(other[key]) for other in rows]
                std = np.std(values, ddof=1) if len(values) > 1 else None
                row[key] = {"mean": np.mean(values), "std": std, "seeds": values}
        yield row


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--n-images", type=int, default=1000, help="but 2000 for few_images")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--output", help="default: benchmarks/results/pitfalls.json")
    arguments = parser.parse_args()
    images = load_fashion_mnist("train")
    annotator = VLMPartialAnnotator(images.class_prompts).fit(images.images[:1])
    X, y = embedded("train", annotator)
    X_test, y_test = embedded("test", annotator, N_TEST)
    runs = {pitfall.__name__: [] for pitfall in PITFALLS}
    for seed in arguments.seeds:
        learner = CoRegClassifier(max_epochs=arguments.epochs, random_state=seed)
        order = np.random.default_rng(seed).permutation(len(X))
        for pitfall in PITFALLS:
            n_rows = (2 if pitfall is few_images else 1) * arguments.n_images
            # A long tail leaves a third of the rows it is cut from.
            n_rows *= 3 if pitfall is prior else 1
            rows = order[:n_rows]
            runs[pitfall.__name__].append(
                list(pitfall(annotator, learner, X[rows], y[rows], X_test, y_test))
            )
    result = {name: list(summarise(rows)) for name, rows in runs.items()}
    settings = {"seeds": arguments.seeds, "n_images": arguments.n_images}
    write_result("pitfalls", settings | {"epochs": arguments.epochs} | result, arguments.output)


if __name__ == "__main__":
    main()
