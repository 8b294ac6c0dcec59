"""
From prompts to candidate sets
==============================

Every prompt template has an opinion about an image. A rule turns the opinions into a set of
candidates: small sets teach more, large ones lose the truth less often. This shows where the sets
come from, and chooses the size of a rule with a hundred labels.
"""

# %%
# What the templates think
# ------------------------
# The 27 templates of ``"coreg-27"`` differ in wording only, but the model does not answer them all
# alike. Embeddings stand in for the images, so that each is encoded once. The true labels serve the
# hundred labels of the last step and the comparison.
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import PercentFormatter

from sklearn_npll import PartialLabels, VLMPartialAnnotator
from sklearn_npll.datasets import load_fashion_mnist
from sklearn_npll.model_selection import choose_rule_value

data = load_fashion_mnist("train")
rows = np.random.default_rng(0).permutation(len(data.images))[:1500]
images, y = data.images[rows], data.target_names[data.target[rows]]

annotator = VLMPartialAnnotator(data.class_prompts).fit(images[:1])
X = annotator.embed(images)
labels = annotator.transform(X)
print(labels.summary())

# %%
# The image whose templates disagree most. One column is one template; its choice is the brightest
# class. All choices together are the candidates: this is the rule ``"union"``, and it needs no
# parameter.
row = labels.set_sizes.argmax()
opinions = annotator.predict_proba_per_template(X[row : row + 1])[0]

fig, (left, right) = plt.subplots(
    1, 2, figsize=(9, 3.4), width_ratios=[1, 2.6], layout="constrained"
)
left.imshow(images[row], cmap="gray")
left.set(xticks=[], yticks=[], title=f"true class: {y[row]}")
shown = right.imshow(opinions.T, aspect="auto", cmap="Blues", vmin=0, vmax=1)
right.set(xticks=[], xlabel="27 templates", yticks=range(len(labels.classes)))
right.set_yticklabels(labels.classes)
for label, chosen in zip(right.get_yticklabels(), labels[int(row)]):
    label.set_fontweight("bold" if chosen else "normal")
right.set_title("candidates in bold")
fig.colorbar(shown, label="probability")

# %%
# Rules with a parameter
# ----------------------
# The other rules look at the mean of the probabilities over the templates. They need no further
# look at the images: ``PartialLabels.from_scores`` takes the scores that are there.
values = {
    "topk": [1, 2, 3, 4],
    "threshold": [0.3, 0.2, 0.1, 0.05, 0.02],
    "ratio": [0.8, 0.5, 0.2, 0.1, 0.05],
    "cumulative": [0.5, 0.7, 0.8, 0.9, 0.95, 0.98],
}
curves = {}
for rule, choices in values.items():
    sets = [
        PartialLabels.from_scores(labels.scores, rule, value, classes=labels.classes)
        for value in choices
    ]
    curves[rule] = [part.mean_set_size for part in sets], [part.coverage(y) for part in sets]

# %%
# A hundred labels choose the value
# ---------------------------------
# We want the truth in 90 % of the sets. ``choose_rule_value`` finds the smallest sets that have it
# on the first hundred images; what these sets are worth is measured on the others.
chosen = {}
for rule in values:
    value = choose_rule_value(labels[:100], y[:100], rule, coverage=0.9)
    rest = PartialLabels.from_scores(labels[100:].scores, rule, value, classes=labels.classes)
    chosen[rule] = rest.mean_set_size, rest.coverage(y[100:])
    print(f"{rule:<12}{value:>7.3g}{rest.mean_set_size:>7.2f}{rest.coverage(y[100:]):>8.1%}")

# %%
# Look
# ----
# Good sets are at the top left. Large dots are the values that the hundred labels chose.
fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
for (rule, (sizes, coverages)), color in zip(curves.items(), ["C0", "C1", "C2", "C3"]):
    ax.plot(sizes, coverages, ".-", color=color, label=rule)
    ax.plot(*chosen[rule], "o", color=color, markersize=10)
ax.plot(labels.mean_set_size, labels.coverage(y), "k*", markersize=13, label="union")
ax.axhline(0.9, color="gray", linewidth=0.8, linestyle="--")
ax.set(xlabel="mean set size", ylabel="coverage")
ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
ax.legend(loc="lower right")
ax.grid(alpha=0.3)

# %%
# Rules that let the size follow the doubt need fewer candidates than a fixed number for each image.
(size, coverage), (topk_size, topk_coverage) = chosen["cumulative"], chosen["topk"]
print(
    f"Asked for 90 %, 'cumulative' covers {coverage:.1%} with {size:.2f} candidates"
    f" an image,\n'topk' {topk_coverage:.1%} with {topk_size:.2f}."
)
