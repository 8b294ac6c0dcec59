"""
Any model as the annotator
==========================

Whatever gives probabilities can annotate: a text classifier, a model of last year, an ensemble. A
class of a dozen lines makes it a step of a pipeline. Here a random forest that was trained on sixty
labelled digits annotates those without labels, and Co-Reg learns from what it says.
"""

# %%
# An annotator of your own
# ------------------------
# A transformer whose ``transform`` returns :class:`~sklearn_npll.PartialLabels`. The rule
# ``"cumulative"`` makes the set of the most probable classes that have the given mass together: one
# where the model is sure, more where it is not.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from sklearn_npll import CoRegClassifier, PartialLabels
from sklearn_npll.baselines import PseudoLabelClassifier


class ModelAnnotator(TransformerMixin, BaseEstimator):
    """Annotates by the probabilities of a classifier that is fitted already."""

    def __init__(self, model, mass=0.8):
        self.model = model
        self.mass = mass

    def fit(self, X, y=None):
        self.classes_ = self.model.classes_
        return self

    def transform(self, X):
        scores = self.model.predict_proba(X)
        return PartialLabels.from_scores(
            scores, "cumulative", self.mass, data=X, classes=self.model.classes_
        )


# %%
# A model that knows a little
# ---------------------------
# The forest stands for any model that is there already.
X, y = load_digits(return_X_y=True)
X_few, X_rest, y_few, y_rest = train_test_split(X, y, train_size=60, stratify=y, random_state=0)
X_train, X_test, y_train, y_test = train_test_split(X_rest, y_rest, train_size=1200, random_state=0)
forest = RandomForestClassifier(200, random_state=0).fit(X_few, y_few)
annotator = ModelAnnotator(forest)
labels = annotator.fit_transform(X_train)
print(labels.summary(y_train))

# %%
# Learn
# -----
# The annotator and the learner make a pipeline, which is fitted on samples without labels. The
# schedule is that of :ref:`the rivals <sphx_glr_auto_examples_plot_rivals.py>`. For comparison, a
# linear classifier learns the forest's best guesses.
student = PseudoLabelClassifier(LogisticRegression(C=0.01, max_iter=1000)).fit(labels)
accuracy = {
    "the forest": [forest.score(X_test, y_test)],
    "linear, the forest's guesses": [student.score(X_test, y_test)],
    "Co-Reg, the forest's candidates": [],
}
for seed in range(3):
    learner = CoRegClassifier(max_epochs=30, batch_size=64, lr=0.05, random_state=seed)
    pipe = make_pipeline(annotator, learner).fit(X_train)
    accuracy["Co-Reg, the forest's candidates"].append(pipe.score(X_test, y_test))
before, _, after = (np.mean(scores) for scores in accuracy.values())

# %%
# Look
# ----
# Three seeds of Co-Reg, one draw of the sixty digits.
fig, ax = plt.subplots(figsize=(7, 2.6), layout="constrained")
for i, (scores, color) in enumerate(zip(accuracy.values(), ["C7", "C1", "C0"])):
    ax.plot(scores, [i] * len(scores), "o", color=color, alpha=0.5)
    ax.plot(np.mean(scores), i, "|", color=color, markersize=18)
ax.set(yticks=range(len(accuracy)), yticklabels=accuracy, xlabel="test accuracy")
ax.margins(y=0.25)
ax.invert_yaxis()
ax.grid(axis="x", alpha=0.3)

# %%
# Co-Reg sees all digits, where the forest has seen sixty.
print(f"Co-Reg has {after:.1%}, the forest that annotated for it {before:.1%}.")
