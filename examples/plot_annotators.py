"""
Which candidate sets are good ones?
===================================

A set should hold the true class and little else. One annotator with few and many templates, three
vocabularies as an ensemble, and sets of a chosen coverage from a hundred labels, side by side.
Everything used here comes with the package; it takes less than a minute.
"""

# %%
# Embed once
# ----------
# Annotators take embeddings in place of images, so that the model sees each image once. The true
# labels serve the comparison, and a hundred of them the calibration.
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import PercentFormatter

from sklearn_npll import VLMPartialAnnotator
from sklearn_npll.annotators import ConformalPartialAnnotator, EnsemblePartialAnnotator
from sklearn_npll.datasets import load_fashion_mnist

data = load_fashion_mnist("train")
rows = np.random.default_rng(0).permutation(len(data.images))[:1500]
y = data.target_names[data.target[rows]]
few = np.where(np.arange(len(y)) < 100, y, "-1")
unlabelled = few == "-1"

vlm = VLMPartialAnnotator(data.class_prompts)
X = vlm.fit(data.images[:1]).embed(data.images[rows])
results = {}


def compare(group, name, annotator):
    """Record the mean size and the coverage of the sets of the unlabelled images."""
    labels = annotator.transform(X)[unlabelled]
    size, coverage = labels.mean_set_size, labels.coverage(y[unlabelled])
    results.setdefault(group, []).append((name, size, coverage))
    print(f"{group:<26}{name:<16}{size:>6.2f}{coverage:>8.1%}")


# %%
# One annotator
# -------------
# With one template an image has one candidate; every further one can add another.
for name in ("simple", "coreg-27", "imagenet-80"):
    annotator = VLMPartialAnnotator(data.class_prompts, templates=name).fit(X)
    compare("one annotator", name, annotator)

# %%
# An ensemble
# -----------
# Its usual members are different vision-language models; here they are one model with three
# vocabularies. Weights by agreement need no labels.
vocabularies = {
    "shop": data.class_prompts,
    "data set": {name: name for name in data.target_names},
    "synonyms": {
        "T-shirt/top": ["tee", "short-sleeved top"],
        "Trouser": ["pants", "jeans"],
        "Pullover": ["jumper", "sweatshirt"],
        "Dress": ["gown", "frock"],
        "Coat": ["jacket", "overcoat"],
        "Sandal": ["open-toed shoe", "flip-flop"],
        "Shirt": ["button-up shirt", "blouse"],
        "Sneaker": ["trainer", "running shoe"],
        "Bag": ["handbag", "purse"],
        "Ankle boot": ["boot", "bootie"],
    },
}
members = [(name, VLMPartialAnnotator(classes)) for name, classes in vocabularies.items()]
ensemble = EnsemblePartialAnnotator(members, weights="agreement")
compare("ensemble", "union", ensemble.fit(X))
for name, annotator in ensemble.named_annotators_.items():
    print(f"    {name:<12} accuracy {annotator.score(X, y):.1%}")
print("    weights", ensemble.weights_.round(2), f"accuracy {ensemble.score(X, y):.1%}")

# %%
# Sets of a chosen coverage
# -------------------------
# The labels of a hundred images set the threshold; the coverage is that of all the others.
for name, annotator in (("one annotator", vlm), ("ensemble", ensemble)):
    for coverage in (0.7, 0.8, 0.9, 0.95, 0.98):
        conformal = ConformalPartialAnnotator(annotator, coverage=coverage)
        conformal.fit(X, known_labels=few)
        compare(f"conformal, {name}", f"{coverage:.0%} asked for", conformal)

# %%
# Look
# ----
# Good sets are at the top left.
fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
for (group, points), marker in zip(results.items(), "osx+"):
    names, sizes, coverages = zip(*points)
    ax.plot(sizes, coverages, marker=marker, label=group)
    if not group.startswith("conformal"):
        for name, size, coverage in points:
            ax.annotate(name, (size, coverage), (6, -10), textcoords="offset points", fontsize=8)
ax.set(xlabel="mean set size", ylabel="coverage")
ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
ax.legend(loc="lower right")
ax.grid(alpha=0.3)

# %%
# The coverage that was asked for is reached on images whose labels chose nothing.
for group, points in results.items():
    for name, size, coverage in points:
        if name == "90% asked for":
            print(f"{group}: {coverage:.1%} with {size:.2f} candidates, {name}.")
