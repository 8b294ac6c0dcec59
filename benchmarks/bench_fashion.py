"""Co-Reg on Fashion-MNIST annotated by the shipped model: seeds, ablations and a longer run.

Every run of a seed trains on the same candidates of the same images and is scored after the last
epoch: on the test split, and, for choosing settings, on the training images it did not see. One
JSON file holds one row a run; runs that are in the file already are not repeated, so an interrupted
benchmark continues.

Usage::

    python benchmarks/bench_fashion.py annotator          # accuracy, coverage and set sizes
    python benchmarks/bench_fashion.py quickstart         # the quickstart, three seeds
    python benchmarks/bench_fashion.py ablation           # the quickstart with one thing changed
    python benchmarks/bench_fashion.py long               # all 10,000 images, more epochs
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from reporting import ROOT, write_result
from sklearn.base import clone

from sklearn_npll import CoRegClassifier, VLMPartialAnnotator
from sklearn_npll.datasets import load_fashion_mnist

QUICKSTART = {
    "max_epochs": 52,
    "batch_size": 64,
    "lr": 0.05,
    "cutout": 8,
}
ABLATIONS = {
    "two networks, half the epochs": {"co_labelling": "peer", "max_epochs": 26},
    "no evidence": {"evidence_weight": 0.0},
    "MixUp of the paper": {"mixup_alpha": 4.0},
    "two mixed views": {"n_mixed_views": 2},
    "contrastive": {"contrastive": "noise_tolerant", "contrastive_start": 4},
    "plain supervised contrastive": {"contrastive": "supcon", "contrastive_start": 4},
    "no prototypes": {"prototype_weight": 0.0},
    "no unlabelled split": {"use_unlabelled": False},
    "no distribution alignment": {"prior": None},
    "prior of the annotator": {"prior": "annotator"},
    "no MixUp": {"mixup_alpha": None},
    "variant of the paper": {"variant": "paper", "warm_up": 6, "contrastive_start": 4},
    "warm-up on the candidates": {"warm_up_target": "candidates"},
    "sharpening (T = 0.5)": {"temperature": 0.5},
    "cutout of 14 pixels": {"cutout": 14},
    "learning rate 0.01": {"lr": 0.01},
    "multi-layer perceptron": {"module": "mlp"},
}
LONG = {**QUICKSTART, "max_epochs": 80}


def load(n_train, seed):
    """Return images and labels of a seed's training rows, of the others, and of the test split."""
    train, test = load_fashion_mnist("train"), load_fashion_mnist("test")
    order = np.random.default_rng(seed).permutation(len(train.images))
    y, y_test = (part.target_names[part.target] for part in (train, test))
    rows, others = order[:n_train], order[n_train:]
    return (
        (train.images[rows], y[rows]),
        (train.images[others], y[others]),
        (test.images, y_test),
    )


def run(params, n_train, seed, cache_dir):
    """Annotate, train once and return the figures."""
    (X, y), validation, (X_test, y_test) = load(n_train, seed)
    prompts = load_fashion_mnist("test").class_prompts
    annotator = VLMPartialAnnotator(prompts, cache_dir=cache_dir)
    labels = annotator.fit_transform(X)
    start = time.perf_counter()
    learner = CoRegClassifier(random_state=seed, verbose=1, **params).fit(labels)
    seconds = time.perf_counter() - start
    zero_shot = annotator.score(X_test, y_test)
    ensemble = learner.score(X_test, y_test)
    single = learner.set_params(deploy="single").predict(X_test)
    learner.set_params(deploy="ensemble")
    row = {
        "seed": seed,
        "n_train": n_train,
        "zero_shot_ensemble": zero_shot,
        "coreg_ensemble": ensemble,
        "coreg_single": float(np.mean(single == y_test)),
        "gain": ensemble - zero_shot,
        "validation": learner.score(*validation) if len(validation[1]) else None,
        "purified_accuracy": float(np.mean(learner.transduction_ == y)),
        "coverage": labels.coverage(y),
        "mean_set_size": labels.mean_set_size,
        "partial_share": learner.history_[-1]["partial_share"],
        "seconds_fit": seconds,
        "n_test": len(X_test),
    }
    print(json.dumps(row), flush=True)
    return row


def supervised(params, n_train, seed):
    """Train the same networks on true labels for as many epochs, all warm-up; return the score."""
    train, _, test = load(n_train, seed)
    params = {**params, "warm_up": params["max_epochs"]}
    return CoRegClassifier(random_state=seed, **params).fit(*train).score(*test)


def run_all(name, settings, n_train, seeds, cache_dir):
    """Run every setting with every seed, writing the file after each run."""
    path = ROOT / "benchmarks" / "results" / f"fashion_{name}.json"
    rows = json.loads(path.read_text())["runs"] if path.exists() else []
    done = {(row["setting"], row["seed"]) for row in rows}
    for setting, params in settings.items():
        for seed in seeds:
            if (setting, seed) in done:
                continue
            if setting == "true labels":
                row = {"seed": seed, "coreg_ensemble": supervised(params, n_train, seed)}
            else:
                row = run(params, n_train, seed, cache_dir)
            changes = {k: v for k, v in params.items() if QUICKSTART.get(k, "default") != v}
            rows.append({"setting": setting, "changes": changes, **row})
            write_result(f"fashion_{name}", {"base": QUICKSTART, **summary(rows), "runs": rows})


def summary(rows):
    """Return mean and standard deviation over seeds of each setting's figures."""
    table = {}
    for setting in dict.fromkeys(row["setting"] for row in rows):
        group = [row for row in rows if row["setting"] == setting]
        table[setting] = {"seeds": len(group)}
        for key in ("zero_shot_ensemble", "coreg_ensemble", "coreg_single", "gain", "validation"):
            values = [row[key] for row in group if row.get(key) is not None]
            if values:
                std = float(np.std(values, ddof=1)) if len(values) > 1 else None
                table[setting][key] = {"mean": float(np.mean(values)), "std": std}
    return {"summary": table}


def annotator_figures(checkpoints, cache_dir):
    """Zero-shot accuracy, coverage and set sizes, by class names; and over training epochs."""
    test, figures = load_fashion_mnist("test"), {}
    y = test.target_names[test.target]
    plain = dict(zip(test.target_names, ([n] for n in test.target_names)))
    names = {"torchvision's names": plain, "plain descriptive names": test.class_prompts}
    models = {"shipped": "fashion-clip-tiny"}
    for folder in sorted(Path(checkpoints).glob("epoch-*")) if checkpoints else []:
        models[folder.name] = f"local-dir:{folder}"
    for model, source in models.items():
        for kind, classes in names.items():
            annotator = VLMPartialAnnotator(classes, model=source, cache_dir=cache_dir)
            labels = annotator.fit_transform(test.images)
            predicted = labels.classes[labels.scores.argmax(axis=1)]
            one = clone(annotator).set_params(templates="simple").fit(test.images)
            figures.setdefault(model, {})[kind] = {
                "zero_shot": one.score(test.images, y),
                "zero_shot_ensemble": float(np.mean(predicted == y)),
                "coverage": labels.coverage(y),
                "mean_set_size": labels.mean_set_size,
                "recall": {
                    str(c): float(np.mean(predicted[y == c] == c)) for c in test.target_names
                },
            }
    write_result("fashion_annotator", {"split": "test", "n": len(y), "figures": figures})


def main():
    """Run a part of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=["annotator", "quickstart", "ablation", "long"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--n-train", type=int)
    parser.add_argument("--cache-dir", default="build/cache")
    parser.add_argument("--checkpoints", help="folder with the epochs of the model's training")
    parser.add_argument("--settings", nargs="+", help="only these ablations")
    args = parser.parse_args()
    if args.part == "annotator":
        annotator_figures(args.checkpoints, args.cache_dir)
    elif args.part == "quickstart":
        settings = {"Co-Reg": QUICKSTART, "true labels": QUICKSTART}
        run_all("quickstart", settings, args.n_train or 6000, args.seeds, args.cache_dir)
    elif args.part == "long":
        run_all("long", {"Co-Reg": LONG}, args.n_train or 10_000, args.seeds, args.cache_dir)
    else:
        settings = {"quickstart": QUICKSTART}
        settings |= {name: {**QUICKSTART, **change} for name, change in ABLATIONS.items()}
        settings = {k: v for k, v in settings.items() if not args.settings or k in args.settings}
        run_all("ablation", settings, args.n_train or 3000, args.seeds, args.cache_dir)


if __name__ == "__main__":
    main()
