"""
Is Co-Reg worth it on my data?
==============================

Digits with noisy candidate sets: the simplest baselines, two rivals and Co-Reg, with the same
network, views, schedule and seeds. Takes well under a minute.
"""

# %%
# Candidates
# ----------
# Each wrong class is a candidate with probability 0.1; three sets in ten lose the truth.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from sklearn_npll import CoRegClassifier, PartialLabels
from sklearn_npll.baselines import (
    ALIMClassifier,
    CCClassifier,
    GCEClassifier,
    PLKNeighborsClassifier,
    PRODENClassifier,
    PseudoLabelClassifier,
)
from sklearn_npll.datasets import make_candidates

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=900, random_state=0)
scaler = StandardScaler().fit(X_train)
X_train, X_test = scaler.transform(X_train), scaler.transform(X_test)
candidates = make_candidates(y_train, q=0.1, eta=0.3, random_state=0)
labels = PartialLabels.from_candidates(candidates, X_train)
print(labels.summary(y_train))

# %%
# Learn
# -----
# What trains networks shares its schedule. The others have none.
schedule = {"max_epochs": 30, "batch_size": 64, "lr": 0.05}
learners = {
    "logistic regression, one candidate": PseudoLabelClassifier(LogisticRegression(max_iter=1000)),
    "PL-kNN": PLKNeighborsClassifier(),
    "CC": CCClassifier(**schedule),
    "PRODEN": PRODENClassifier(**schedule),
    "GCE, one candidate": GCEClassifier(**schedule),
    "ALIM": ALIMClassifier(**schedule),
    "Co-Reg": CoRegClassifier(**schedule),
}
accuracy = {}
for name, learner in learners.items():
    scores = []
    for seed in range(3):
        if "random_state" in learner.get_params():
            learner.set_params(random_state=seed)
        scores.append(learner.fit(labels).score(X_test, y_test))
    accuracy[name] = scores
    print(f"{name:<36}{np.mean(scores):.3f} ± {np.std(scores, ddof=1):.3f}")

# %%
# Look
# ----
# The learners that believe every set fit its mistakes; those that doubt it do not.
fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
for i, scores in enumerate(accuracy.values()):
    ax.plot(scores, [i] * 3, "o", color="C0", alpha=0.5)
    ax.plot(np.mean(scores), i, "|", color="C0", markersize=18)
ax.set(yticks=range(len(accuracy)), yticklabels=accuracy, xlabel="test accuracy, three seeds")
ax.invert_yaxis()
ax.grid(axis="x", alpha=0.3)

# %%
# One data set and one kind of noise; on yours the order may be another.
means = {name: np.mean(scores) for name, scores in accuracy.items()}
print(f"Co-Reg has {means['Co-Reg']:.1%}, ALIM {means['ALIM']:.1%}, PRODEN {means['PRODEN']:.1%}.")
