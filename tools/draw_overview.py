"""Draw docs/_static/overview.png: what prompts say of an image, and what Co-Reg makes of it.

    python tools/draw_overview.py

The images are drawn at random among the training images about which at least a quarter of the
prompts disagree with the others, so that right and wrong answers appear as they come.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from sklearn_npll import CoRegClassifier, VLMPartialAnnotator
from sklearn_npll.datasets import load_fashion_mnist

OUT = Path(__file__).parents[1] / "docs" / "_static" / "overview.png"
N_TRAIN, N_TEST, N_SHOWN = 3000, 2000, 4
RIGHT, WRONG, BLUE, GREY = "#1b7837", "#b2182b", "#2166ac", "#9a9a9a"


def draw_image(axes, image, votes, label, truth):
    """Draw an image, the votes of the prompts, and the label after learning."""
    picture, bars = axes
    picture.imshow(255 - image, cmap="gray")
    picture.axis("off")
    names, counts = np.unique(votes, return_counts=True)
    order = np.argsort(-counts)[:3][::-1]
    drawn = bars.barh(names[order], counts[order], color=BLUE, height=0.7)
    bars.bar_label(drawn, padding=3)
    bars.set(xlim=(0, 34), ylim=(-0.6, 2.6), xticks=[])
    bars.tick_params(length=0)
    bars.spines[:].set_visible(False)
    verdict, color = ("right", RIGHT) if label == truth else (f"wrong, {truth}", WRONG)
    bars.set_xlabel(f"Co-Reg: {label}\n({verdict})", color=color, fontweight="bold")


def main():
    train, test = load_fashion_mnist("train"), load_fashion_mnist("test")
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(train.images))[:N_TRAIN]
    images, y = train.images[rows], train.target_names[train.target[rows]]
    rows = rng.permutation(len(test.images))[:N_TEST]
    X_test, y_test = test.images[rows], test.target_names[test.target[rows]]

    annotator = VLMPartialAnnotator(train.class_prompts, output="embeddings")
    labels = annotator.fit_transform(images)
    learner = CoRegClassifier(max_epochs=20, random_state=0).fit(labels)
    embedded = annotator.embed(X_test)
    accuracy = {
        "27\nprompts": annotator.score(embedded, y_test),
        "Co-Reg": learner.score(embedded, y_test),
    }
    print(accuracy)

    plt.rcParams.update({"font.size": 11, "axes.labelsize": 11})
    fig = plt.figure(figsize=(11, 3.4), layout="constrained")
    grid = fig.add_gridspec(2, N_SHOWN + 1, height_ratios=[5, 4])
    counts = (labels.votes[:, :, None] == np.arange(len(labels.classes))).sum(axis=1)
    disputed = np.flatnonzero(counts.max(axis=1) <= 0.75 * labels.votes.shape[1])
    for column, row in enumerate(rng.choice(disputed, N_SHOWN, replace=False)):
        axes = [fig.add_subplot(grid[i, column]) for i in range(2)]
        votes = labels.classes[labels.votes[row]]
        draw_image(axes, images[row], votes, learner.transduction_[row], y[row])
    ax = fig.add_subplot(grid[:, -1])
    bars = ax.bar(list(accuracy), [100 * value for value in accuracy.values()], color=[GREY, RIGHT])
    ax.bar_label(bars, fmt="%.0f %%")
    ax.set(ylim=(0, 100), yticks=[], title="test accuracy")
    ax.spines[["top", "right", "left"]].set_visible(False)
    fig.savefig(OUT, dpi=110)


if __name__ == "__main__":
    main()
