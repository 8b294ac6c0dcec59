"""
Searching parameters with and without labels
============================================

A grid search needs a score. Without any true label there are two, which compare the predictions
with the candidates: they measure agreement with the annotator, and larger sets are easier to agree
with. This search shows how far to trust them, and what a hundred labels do about it.
"""

# %%
# A pipeline to search
# --------------------
# The parameter is the number of candidates an image. Embeddings stand in for the images, so that
# searching costs no look at them. The learner starts from the sets alone, as in the paper; by
# default it uses the annotator's scores as well, and then depends less on the sets.
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import PercentFormatter
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from sklearn_npll import CoRegClassifier, VLMPartialAnnotator
from sklearn_npll.datasets import load_fashion_mnist
from sklearn_npll.model_selection import (
    approximated_accuracy_scorer,
    covering_rate_scorer,
    make_labeled_scorer,
)

train, test = load_fashion_mnist("train"), load_fashion_mnist("test")
rng = np.random.default_rng(0)
rows = rng.permutation(len(train.images))[:900]
test_rows = rng.permutation(len(test.images))[:800]
y = train.target_names[train.target[rows]]
y_test = test.target_names[test.target[test_rows]]

annotator = VLMPartialAnnotator(train.class_prompts, rule="topk").fit(train.images[:1])
X, X_test = annotator.embed(train.images[rows]), annotator.embed(test.images[test_rows])

learner = CoRegClassifier(max_epochs=8, warm_up_target="candidates", random_state=0)
pipe = Pipeline([("annotate", annotator), ("learn", learner)])
grid = {"annotate__rule_value": [1, 2, 3, 5, 8]}

# %%
# A hundred images are set aside to score on.
held_out = np.arange(len(X)) < 100
split = [(np.flatnonzero(~held_out), np.flatnonzero(held_out))]

# %%
# Without y
# ---------
# Nobody labelled anything: ``fit`` gets the samples alone.
scoring = {"covering": covering_rate_scorer, "approximated": approximated_accuracy_scorer}
blind = GridSearchCV(pipe, grid, cv=split, scoring=scoring, refit=False).fit(X)

# %%
# With a hundred labels
# ---------------------
# Now somebody labels the hundred images; -1 stands for all others. y only scores: it is not learnt
# from. scikit-learn's own scorers would count -1 as a class, hence ``make_labeled_scorer``.
few = np.where(held_out, y, "-1")
scoring = make_labeled_scorer("accuracy")
labelled = GridSearchCV(pipe, grid, cv=split, scoring=scoring, refit=False).fit(X, few)

# %%
# What each would choose
# ----------------------
# The choices are made. Only now the test images show what they are worth.
sizes = grid["annotate__rule_value"]
scores = {
    "covering rate, no labels": blind.cv_results_["mean_test_covering"],
    "approximated accuracy, no labels": blind.cv_results_["mean_test_approximated"],
    "accuracy on 100 labels": labelled.cv_results_["mean_test_score"],
}
worth = [pipe.set_params(annotate__rule_value=size).fit(X).score(X_test, y_test) for size in sizes]
for name, score in scores.items():
    best = score.argmax()
    print(f"{name:<34} takes {sizes[best]}, test accuracy {worth[best]:.1%}")

# %%
# Look
# ----
# Diamonds are what each score would choose. The dashed line is the truth, which no search sees.
fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
for (name, score), color in zip(scores.items(), ["C1", "C3", "C0"]):
    ax.plot(sizes, score, ".-", color=color, label=name)
    ax.plot(sizes[score.argmax()], score.max(), "D", color=color, markersize=9)
ax.plot(sizes, worth, "k--", label="accuracy on the test images")
ax.set(xlabel="candidates an image", ylabel="score", ylim=(0, 1.05))
ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
ax.legend(loc="lower left")
ax.grid(alpha=0.3)

# %%
# A score without labels says how well the learner agrees with the annotator. The approximated
# accuracy, which asks how sure the learner is within the set, is the better guide of the two here,
# but its height is no accuracy. Read both beside the set size, and label a hundred images if you
# can.
covering, accuracy = scores["covering rate, no labels"], scores["accuracy on 100 labels"]
print(
    f"The covering rate is highest, {covering.max():.1%}, where the test accuracy"
    f" is {worth[covering.argmax()]:.1%};\na hundred labels choose {worth[accuracy.argmax()]:.1%}."
)
