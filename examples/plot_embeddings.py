"""
A map of the errors that Co-Reg mends
=====================================

The annotator looks at each image by itself. Co-Reg learns from all of them, and an image among
others of another class changes its label. A map of the embeddings shows where that happens.
"""

# %%
# Annotate and learn
# ------------------
# ``output="embeddings"`` makes the container carry the embeddings in place of the images. The true
# labels are looked at afterwards only.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from sklearn_npll import CoRegClassifier, VLMPartialAnnotator
from sklearn_npll.datasets import load_fashion_mnist

data = load_fashion_mnist("train")
rows = np.random.default_rng(0).permutation(len(data.images))[:1200]
images, y = data.images[rows], data.target_names[data.target[rows]]

annotator = VLMPartialAnnotator(data.class_prompts, output="embeddings")
labels = annotator.fit_transform(images)
learner = CoRegClassifier(max_epochs=20, random_state=0).fit(labels)

# %%
# Before and after
# ----------------
# Before: the annotator's most probable class. After: the purified label.
before, after = labels.classes[labels.scores.argmax(axis=1)], learner.transduction_
mended = (before != y) & (after == y)
spoilt = (before == y) & (after != y)
print(f"right before {np.mean(before == y):.1%}, after {np.mean(after == y):.1%}")

# %%
# A map
# -----
# t-SNE keeps neighbours together; distances between groups mean nothing.
reduced = PCA(20, random_state=0).fit_transform(labels.data)
position = TSNE(random_state=0, init="pca", perplexity=40).fit_transform(reduced)

# %%
# Look
# ----
# Dots have the colour of the true class, and each class its name at the middle of its dots.
fig, ax = plt.subplots(figsize=(8, 6.5), layout="constrained")
colors = plt.get_cmap("tab10")(labels.encode_labels(y))
ax.scatter(*position.T, c=colors, s=9, alpha=0.45, linewidths=0)
ring = {"facecolors": "none", "s": 44, "linewidths": 1.2}
ax.scatter(*position[mended].T, edgecolors="black", label=f"mended ({mended.sum()})", **ring)
ax.scatter(
    *position[spoilt].T,
    color="red",
    marker="x",
    s=34,
    label=f"spoilt ({spoilt.sum()})",
    linewidths=1.2,
)
for name in data.target_names:
    ax.annotate(
        name,
        np.median(position[y == name], axis=0),
        ha="center",
        bbox={"boxstyle": "round", "facecolor": "white", "alpha": 0.75, "linewidth": 0},
    )
ax.set(xticks=[], yticks=[])
ax.legend(loc="upper left")

# %%
# The errors that are left lie where the classes meet.
print(
    f"Co-Reg mended {mended.sum()} of {np.sum(before != y)} wrong labels\n"
    f"and spoilt {spoilt.sum()} of {np.sum(before == y)} right ones."
)
