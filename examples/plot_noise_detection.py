"""
Which labels are wrong?
=======================

Somebody labelled the images, and some of the labels are wrong. Five detectors, DeFT among them,
rank the labels by how suspicious they are, so that a person has to look at the top of the list
only.
"""

# %%
# Labels with errors
# ------------------
# Three labels in ten are replaced: half of these by any other class, half by the one that looks
# most alike, as careless people do.
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import PercentFormatter

from sklearn_npll import PartialLabels, VLMPartialAnnotator
from sklearn_npll.datasets import load_fashion_mnist
from sklearn_npll.detection import (
    CLIPCleanerDetector,
    DeFTDetector,
    LabelMatchDetector,
    NeighborVoteDetector,
    SmallLossDetector,
)
from sklearn_npll.metrics import noise_detection_auc, noise_detection_f1

data = load_fashion_mnist("train")
names = data.target_names
rng = np.random.default_rng(0)
rows = rng.permutation(len(data.images))[:1500]
images, y = data.images[rows], data.target[rows]

alike = {"T-shirt/top": "Shirt", "Shirt": "T-shirt/top", "Pullover": "Coat", "Coat": "Pullover"}
alike |= {"Sneaker": "Ankle boot", "Ankle boot": "Sneaker", "Sandal": "Sneaker", "Bag": "Shirt"}
alike |= {"Dress": "Coat", "Trouser": "Dress"}
twin = np.array([names.tolist().index(alike[name]) for name in names])
kind = rng.choice(3, size=len(y), p=[0.7, 0.15, 0.15])
other = (y + rng.integers(1, len(names), size=len(y))) % len(names)
given = names[np.choose(kind, [y, other, twin[y]])]
y = names[y]
wrong = given != y
print(f"{len(y)} labels, {wrong.sum()} of them wrong")

# %%
# Detect
# ------
# All detectors have one interface, and judge sets of candidates as well; single labels are sets of
# one. The first three also ask the vision-language model.
annotator = VLMPartialAnnotator(data.class_prompts).fit(images[:1])
labels = PartialLabels.from_sets(given[:, None], names, data=annotator.embed(images))
detectors = {
    "label match": LabelMatchDetector(annotator),
    "CLIPCleaner": CLIPCleanerDetector(annotator, random_state=0),
    "DeFT": DeFTDetector(annotator, random_state=0),
    "small loss": SmallLossDetector(random_state=0),
    "neighbour vote": NeighborVoteDetector(),
}
found = {}
for name, detector in detectors.items():
    detector.fit(labels)
    auc = noise_detection_auc(y, labels, detector.clean_score_)
    f1 = noise_detection_f1(y, labels, detector.clean_mask_)
    worst_first = detector.noise_score_.argsort()[::-1]
    found[name] = wrong[worst_first].cumsum() / wrong.sum()
    print(f"{name:<16} AUC {auc:.3f}  F1 {f1:.3f}")

# %%
# Look
# ----
# How many of the wrong labels somebody has found who looks through the list, the worst first.
looked_at = np.arange(1, len(y) + 1) / len(y)
fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
for name, share in found.items():
    ax.plot(looked_at, share, label=name)
ax.plot([0, wrong.mean(), 1], [0, 1, 1], "k:", label="best possible")
ax.set(xlabel="labels looked at", ylabel="wrong labels found")
for axis in (ax.xaxis, ax.yaxis):
    axis.set_major_formatter(PercentFormatter(1, decimals=0))
ax.legend(loc="lower right")
ax.grid(alpha=0.3)

# %%
# The top of DeFT's list: above the image the label it was given, below it the true class.
worst = detectors["DeFT"].noise_score_.argsort()[::-1][:12]
# sphinx_gallery_thumbnail_number = 2
fig, axes = plt.subplots(2, 6, figsize=(9, 3.8), layout="constrained")
for ax, row in zip(axes.flat, worst):
    ax.imshow(images[row], cmap="gray")
    ax.set(xticks=[], yticks=[], title=given[row])
    ax.set_xlabel(y[row], color="C3" if wrong[row] else "C2")

# %%
# All five are far better than looking in any order.
reached = [share[int(0.4 * len(y)) - 1] for share in found.values()]
print(
    f"Looking at 40 % of the labels finds {min(reached):.0%} to {max(reached):.0%} of the"
    " wrong ones,\nby one detector or another."
)
