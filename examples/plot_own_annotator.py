"""
Any model as the annotator
==========================

Whatever gives probabilities can annotate: a text classifier, a model of last year, an ensemble. A class
of a dozen lines makes it a step of a pipeline. Here a few small classifiers, trained on sixty labelled
digits, annotate those without labels for Co-Reg.
"""

# %%
# An annotator of your own
# ------------------------
# A transformer whose ``transform`` returns :class:`~sklearn_npll.PartialLabels`. The rule
# ``"cumulative"`` makes the set of the most probable classes that have the given mass together: one
# where the ensemble is sure, more where it is not.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from sklearn_npll import CoRegClassifier, PartialLabels
from sklearn_npll.baselines import PseudoLabelClassifier


class ModelAnnotator(TransformerMixin, BaseEstimator):
    """Annotates by the probabilities of a classifier that is fitted already."""

    def __init__(self, model, mass=0.8):
        self.model = model
        self.mass = mass

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        scores = self.model.predict_proba(X)
        return PartialLabels.from_scores(
            scores, "cumulative", self.mass, data=X, classes=self.model.classes_
        )


# %%
# A model that knows a little
# ---------------------------
# Sixty labelled digits train four classifiers, whose probabilities are averaged.
X, y = load_digits(return_X_y=True)
X_few, X_rest, y_few, y_rest = train_test_split(X, y, train_size=60, stratify=y, random_state=0)
X_train, X_test, y_train, y_test = train_test_split(X_rest, y_rest, train_size=1200, random_state=0)
members = [
    ("linear", LogisticRegression(C=0.01, max_iter=1000)),
    ("forest", RandomForestClassifier(random_state=0)),
    ("neighbours", KNeighborsClassifier(3)),
    ("bayes", GaussianNB(var_smoothing=1e-2)),
]
ensemble = VotingClassifier(members, voting="soft").fit(X_few, y_few)
annotator = ModelAnnotator(ensemble)
labels = annotator.fit_transform(X_train)
print(labels.summary(y_train))

# %%
# Learn
# -----
# The learner sees the images without labels and what the ensemble thinks of them, and goes into a
# pipeline like any classifier. For comparison, logistic regression learns the ensemble's best guesses.
pipe = make_pipeline(annotator, CoRegClassifier(max_epochs=20, random_state=0)).fit(X_train)
student = PseudoLabelClassifier(LogisticRegression(C=0.01, max_iter=1000)).fit(labels)
accuracy = {name: model.score(X_test, y_test) for name, model in ensemble.named_estimators_.items()}
accuracy = {f"60 labels: {name}": score for name, score in accuracy.items()}
accuracy["60 labels: ensemble"] = ensemble.score(X_test, y_test)
accuracy["its guesses: linear"] = student.score(X_test, y_test)
accuracy["its candidates: Co-Reg"] = pipe.score(X_test, y_test)

# %%
# Look
# ----
# One seed.
fig, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
colors = ["C7"] * (len(accuracy) - 2) + ["C1", "C0"]
bars = ax.barh(list(accuracy), list(accuracy.values()), color=colors)
ax.bar_label(bars, [f"{score:.1%}" for score in accuracy.values()], padding=3)
ax.invert_yaxis()
ax.set(xlabel="test accuracy", xlim=(0, 1.08))

# %%
# The annotator was wrong in some of the sets; the learner, which sees all images, puts part of it right.
print(
    f"Co-Reg has {accuracy['its candidates: Co-Reg']:.1%}, the ensemble that annotated for it"
    f" {accuracy['60 labels: ensemble']:.1%}."
)
