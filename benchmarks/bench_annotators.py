"""What the options of VLMPartialAnnotator do to accuracy, coverage and set size.

Fashion-MNIST, images of the shipped test split: each refinement, and of each the aggregations, the
weights by agreement and the candidate rules. With SKLEARN_NPLL_DATA also CIFAR-10, from embeddings
of a single template, and Caltech-101: the probabilities of two backbones, which stand in for
templates, and, to be refined, embeddings that have the probabilities of the first.

    python benchmarks/bench_annotators.py
    python benchmarks/bench_annotators.py --n-images 200 --output /dev/null
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
from npllbench.precomputed import PrecomputedText, embeddings_from
from reporting import write_result

from sklearn_npll import PartialLabels, VLMPartialAnnotator
from sklearn_npll.baselines import (
    AnnotatorClassifier,
    DawidSkeneClassifier,
    LabelModelClassifier,
)
from sklearn_npll.datasets import load_fashion_mnist

REFINEMENTS = {
    "none": {},
    "zlap": {"refine": "zlap"},
    "transclip": {"refine": "transclip"},
    "inmap": {"refine": "inmap"},
    "inmap, Sinkhorn": {"refine": "inmap", "refine_params": {"n_sinkhorn": 20}},
}
AGGREGATIONS = {
    "mean": AnnotatorClassifier(),
    "vote": AnnotatorClassifier("vote"),
    "dawid_skene": DawidSkeneClassifier(),
    "label_model": LabelModelClassifier(),
}
RULES = {"threshold": 0.1, "ratio": 0.5, "cumulative": 0.9, "cpl": (0.6, 0.9)}


def aggregations(labels, y):
    """Accuracy and mean confidence of each way from answers to scores."""
    for name, aggregator in AGGREGATIONS.items():
        scores = aggregator.fit(labels).label_distributions_
        yield {
            "aggregation": name,
            "accuracy": np.mean(aggregator.transduction_ == y),
            "confidence": scores.max(axis=1).mean(),
        }


def rules(labels, y):
    """Coverage and set size of each candidate rule, given the mean probabilities."""
    yield {"rule": "union", "coverage": labels.coverage(y), "set_size": labels.mean_set_size}
    for rule, value in RULES.items():
        made = PartialLabels.from_scores(labels.scores, rule, value, classes=labels.classes)
        yield {
            "rule": f"{rule} {value}",
            "coverage": made.coverage(y),
            "set_size": made.mean_set_size,
        }


def measure(annotator, embeddings, y):
    """Everything about one annotator; the images are encoded already."""
    for name, options in REFINEMENTS.items():
        annotator.set_params(refine=None, refine_params=None).set_params(**options)
        start = time.perf_counter()
        labels = annotator.fit_transform(embeddings)
        yield describe(labels, y, refine=name, seconds=time.perf_counter() - start)


def measure_weights(annotator, embeddings, y):
    """Accuracy with all templates equal, and weighted by agreement."""
    accuracy = {}
    for weights in (None, "agreement"):
        annotator.set_params(refine=None, refine_params=None, template_weights=weights)
        accuracy[str(weights)] = annotator.fit(embeddings).score(embeddings, y)
    spread = annotator.weigh_templates(embeddings)
    return {"accuracy": accuracy, "smallest": spread.min(), "largest": spread.max()}


def describe(labels, y, **about):
    return {
        **about,
        "agreement": labels.agreement,
        "aggregations": list(aggregations(labels, y)),
        "rules": list(rules(labels, y)),
    }


def fashion_mnist(n_images):
    data = load_fashion_mnist("test")
    rows = np.random.default_rng(0).permutation(len(data.images))[:n_images]
    images, y = data.images[rows], data.target_names[data.target[rows]]
    annotator = VLMPartialAnnotator(data.class_prompts).fit(images)
    embeddings = annotator.embed(images)
    rows = list(measure(annotator, embeddings, y))
    return {"refinements": rows, "weights": measure_weights(annotator, embeddings, y)}


def cifar10(folder):
    data = np.load(folder / "cifar10_vitb32.npz")
    names = data["classes"].tolist()
    annotator = PrecomputedText(names, data["text_embeddings"]).annotator()
    rows = list(measure(annotator, data["image_embeddings"], data["classes"][data["label"]]))
    return {"refinements": rows}


def caltech101(folder):
    data = np.load(folder / "caltech101_softmax.npz")
    proba = np.stack([data["vitb32"], data["vitb16"]], axis=1)
    proba /= proba.sum(axis=2, keepdims=True)
    votes, classes = proba.argmax(axis=2), data["classes"]
    union = PartialLabels.from_votes(votes, classes).candidates
    labels = PartialLabels(None, classes, union, scores=proba.mean(axis=1), votes=votes)
    images, texts, logit_scale = embeddings_from(proba[:, 0])
    annotator = PrecomputedText(classes.tolist(), texts, logit_scale).annotator()
    y = classes[data["y"]]
    return {
        "both": describe(labels, y, refine="none", seconds=None),
        "refinements": list(measure(annotator, images, y)),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n-images", type=int, default=2000, help="of Fashion-MNIST")
    parser.add_argument("--output", help="default: benchmarks/results/annotators.json")
    arguments = parser.parse_args()
    result = {"n_images": arguments.n_images}
    result["fashion_mnist"] = fashion_mnist(arguments.n_images)
    folder = os.environ.get("SKLEARN_NPLL_DATA")
    if folder:
        clip = Path(folder) / "clip"
        result["cifar10"] = cifar10(clip)
        result["caltech101"] = caltech101(clip)
    else:
        result["left_out"] = "cifar10 and caltech101: SKLEARN_NPLL_DATA is not set"
    write_result("annotators", result, arguments.output)


if __name__ == "__main__":
    main()
