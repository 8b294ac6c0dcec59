"""
How much do a few labels help?
==============================

Some images get a label by hand, the others candidates by the vision-language model. Co-Reg learns
from both; logistic regression on the same embeddings learns from the labels alone.
"""

# %%
# Labels by hand
# --------------
# ``known_labels`` are believed: their rows become sets of one. ``shots`` labels of each class are
# drawn from the training images, -1 stands for the rest.
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MultipleLocator, PercentFormatter
from sklearn.linear_model import LogisticRegression

from sklearn_npll import CoRegClassifier, VLMPartialAnnotator
from sklearn_npll.baselines import PseudoLabelClassifier
from sklearn_npll.datasets import load_fashion_mnist

train, test = load_fashion_mnist("train"), load_fashion_mnist("test")
rng = np.random.default_rng(0)
rows = rng.permutation(len(train.images))[:1000]
test_rows = rng.permutation(len(test.images))[:800]
y = train.target_names[train.target[rows]]
y_test = test.target_names[test.target[test_rows]]

annotator = VLMPartialAnnotator(train.class_prompts).fit(train.images[:1])
X, X_test = annotator.embed(train.images[rows]), annotator.embed(test.images[test_rows])


def draw_labels(shots):
    """The labels of the first ``shots`` images of each class, in an order drawn before."""
    place = np.zeros(len(y), dtype=int)
    for name in train.target_names:
        place[y == name] = np.arange((y == name).sum())
    return np.where(place < shots, y, "-1")


# %%
# Learn
# -----
# ``labels="known"`` trains any scikit-learn classifier on the known rows, and on nothing else.
shots = [0, 1, 3, 10, 30]
accuracy = {"Co-Reg, all images": [], "logistic regression, labels only": []}
for n in shots:
    labels = annotator.fit_transform(X, known_labels=draw_labels(n))
    learner = CoRegClassifier(max_epochs=20, random_state=0).fit(labels)
    accuracy["Co-Reg, all images"].append(learner.score(X_test, y_test))
    probe = PseudoLabelClassifier(LogisticRegression(C=10, max_iter=1000), labels="known")
    score = probe.fit(labels).score(X_test, y_test) if n else np.nan
    accuracy["logistic regression, labels only"].append(score)
    print(
        f"{n:>3} labels a class",
        *(f"  {name} {scores[-1]:.1%}" for name, scores in accuracy.items()),
    )
zero_shot = annotator.score(X_test, y_test)

# %%
# Look
# ----
# The unlabelled images are what the probe lacks; with many labels it catches up.
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for (name, scores), marker in zip(accuracy.items(), "os"):
    ax.plot(range(len(shots)), scores, marker=marker, label=name)
ax.axhline(zero_shot, color="gray", linestyle="--", label="the annotator alone")
ax.set(xticks=range(len(shots)), xticklabels=shots, xlabel="labels a class")
ax.set(ylabel="test accuracy")
ax.yaxis.set_major_locator(MultipleLocator(0.05))
ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
ax.legend(loc="lower right")
ax.grid(alpha=0.3)

# %%
# This is one draw of the labels; with one label a class the draw matters much.
ours, probe = (scores[2] for scores in accuracy.values())
print(
    f"With {shots[2]} labels a class Co-Reg has {ours:.1%}, the probe {probe:.1%},\n"
    f"and the annotator alone {zero_shot:.1%}."
)
