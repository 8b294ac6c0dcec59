"""Suites: named lists of tasks, each a training set with candidates and a labelled test set.

A seed fixes everything random of a task: which rows are trained on, which are tested on, and the
noise, so every method of a (task, seed) gets the same data. True labels of training rows serve the
report only. A small validation set, with candidates and true labels, is split off the training
rows for the tuned track; the default track does not set it aside (``n_val=0``).
"""

from dataclasses import replace
from functools import partial

from .base import Suite
from .loaders import (
    check_files,
    load_caltech,
    load_cifar10n,
    load_fashion,
    load_pll,
    load_synthetic,
)
from .paper import paper_suite

# The shared schedules. Every network method gets those of these that it has a parameter for;
# "coreg" are Co-Reg's own. Epochs, warm-up and start of the contrast are in proportion: the passes
# of a suite set the epochs of each method.
IMAGES = {
    "shared": {
        "max_epochs": 40,
        "warm_up": 10,
        "batch_size": 64,
        "lr": 0.05,
        "cutout": 8,
        "queue_size": 2048,
    },
    "coreg": {"contrastive_start": 8},
}
FEATURES = {
    "shared": {
        "max_epochs": 40,
        "warm_up": 8,
        "batch_size": 64,
        "lr": 0.05,
        "queue_size": 2048,
    },
    "coreg": {"contrastive_start": 8},
}


def _fashion_suite(name, description, kind, output, schedule, n_train, passes):
    load = partial(load_fashion, output=output)
    has = frozenset({"scores", "votes"})
    return Suite(
        name,
        description,
        kind,
        tasks={
            "union": partial(load, rule="union"),
            "topk-2": partial(load, rule="topk", rule_value=2),
            "cumulative-0.9": partial(load, rule="cumulative", rule_value=0.9),
        },
        ablation_tasks={
            **{f"templates-{k}": partial(load, rule="union", templates=k) for k in (1, 3, 9)},
            **{
                f"refine-{name}": partial(load, rule="union", refine=name)
                for name in ("zlap", "transclip", "inmap")
            },
            "threshold-0.1": partial(load, rule="threshold", rule_value=0.1),
            "ratio-0.5": partial(load, rule="ratio", rule_value=0.5),
        },
        schedule=schedule,
        passes=passes,
        n_train=n_train,
        n_test=2000,
        train_has=has,
        test_has=has,
    )


def _few_shot_suite(name, output, schedule, n_train, passes):
    has = frozenset({"scores", "votes"})
    kind = "images" if output == "images" else "features"
    return Suite(
        name,
        f"Fashion-MNIST {output} with the true labels of a few images of each class",
        kind,
        tasks={
            f"labels-{k}": partial(load_fashion, output=output, n_known=k)
            for k in (0, 1, 2, 4, 8, 16)
        },
        schedule=schedule,
        passes=passes,
        n_train=n_train,
        n_test=2000,
        train_has=has | {"known labels"},
        test_has=has,
    )


def _synthetic_tasks():
    """Both data sets: the q x eta grid under one protocol, its hardest cell under the others."""
    cells = [("uniform", q, eta) for q in (0.1, 0.3) for eta in (0.1, 0.3)]
    cells += [(protocol, 0.3, 0.3) for protocol in ("pico", "fredis", "instance")]
    return {
        f"{name}-{protocol}-q{q}-eta{eta}": partial(
            load_synthetic, name=name, protocol=protocol, q=q, eta=eta
        )
        for name in ("digits", "mixture")
        for protocol, q, eta in cells
    }


def _all_suites():
    suites = [
        _fashion_suite(
            "fashion",
            "Fashion-MNIST images, annotated by the shipped model under three candidate rules",
            "images",
            "images",
            IMAGES,
            n_train=1000,
            passes=115,
        ),
        _fashion_suite(
            "fashion-embeddings",
            "the same, learned from the model's image embeddings",
            "features",
            "embeddings",
            FEATURES,
            n_train=1500,
            passes=95,
        ),
        replace(
            _fashion_suite(
                "long-tailed",
                "embeddings of Fashion-MNIST, some classes 10 or 50 times as frequent as others; "
                "the test rows are balanced",
                "features",
                "embeddings",
                FEATURES,
                n_train=1500,
                passes=95,
            ),
            tasks={
                f"imbalance-{k}": partial(
                    load_fashion, output="embeddings", rule="union", imbalance=k
                )
                for k in (10, 50)
            },
            ablation_tasks={},
        ),
        _few_shot_suite("few-shot", "embeddings", FEATURES, n_train=1500, passes=95),
        _few_shot_suite("few-shot-images", "images", IMAGES, n_train=1000, passes=115),
        Suite(
            "cifar10n",
            "CIFAR-10 images; candidates are the union of three human annotators",
            "images",
            tasks={"human-union": load_cifar10n},
            schedule={**IMAGES, "shared": {**IMAGES["shared"], "module": "resnet8_strided"}},
            n_train=1000,
            passes=100,
            n_test=2000,
            train_has=frozenset({"votes"}),
            check=partial(check_files, ("cifar10", "train.npz"), ("cifar10", "test.npz")),
        ),
        Suite(
            "pll",
            "lost and MSRCv2 on ten 10 % splits (seed = split), without and with injected noise",
            "features",
            tasks={
                name + (f"-eta{eta}" if eta else ""): partial(load_pll, name=name, eta=eta)
                for name in ("lost", "MSRCv2")
                for eta in (0, 0.1, 0.2, 0.3)
            },
            schedule=FEATURES,
            passes=150,
            n_val=50,
            seeds=tuple(range(10)),
            check=partial(check_files, ("pll", "lost.mat"), ("pll", "MSRCv2.mat")),
        ),
        Suite(
            "caltech-clip",
            "Caltech-101: candidates from CLIP ViT-B/32, features from CLIP ViT-B/16",
            "features",
            tasks={
                "cumulative-0.9": partial(load_caltech, rule="cumulative", value=0.9),
                "topk-3": partial(load_caltech, rule="topk", value=3),
            },
            ablation_tasks={
                f"refine-{name}": partial(load_caltech, rule="topk", value=3, refine=name)
                for name in ("zlap", "transclip", "inmap")
            },
            schedule=FEATURES,
            passes=110,
            train_has=frozenset({"scores"}),
            test_has=frozenset({"scores"}),
            check=partial(check_files, ("clip", "caltech101_softmax.npz")),
        ),
        Suite(
            "synthetic",
            "digits and a Gaussian mixture under four noise protocols; needs no data",
            "features",
            tasks=_synthetic_tasks(),
            schedule=FEATURES,
            passes=60,
            n_train=1000,
            n_test=600,
            n_val=50,
            methods="cheap",
        ),
        paper_suite(),
    ]
    return {suite.name: suite for suite in suites}


SUITES = _all_suites()
