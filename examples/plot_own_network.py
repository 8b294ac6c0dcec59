"""
Bring your own network
======================

Co-Reg trains any ``nn.Module`` that maps a batch to logits, and whose last ``nn.Linear`` has an
output for each class. It makes the two networks, the views and the loop around it.
"""

# %%
# A network
# ---------
# A class, or a function that returns a module, is called with those of ``n_features``,
# ``in_channels``, ``image_size`` and ``n_classes`` that it has parameters for: the first for
# features, the next two for images. This one takes 64 features for the pixels that they are.
import matplotlib.pyplot as plt
from matplotlib.ticker import PercentFormatter
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from sklearn_npll import CoRegClassifier, PartialLabels
from sklearn_npll.datasets import make_candidates


class DigitNet(nn.Module):
    """Two convolutions and a hidden layer."""

    def __init__(self, n_features, n_classes, width=16):
        super().__init__()
        side = int(n_features**0.5)
        self.layers = nn.Sequential(
            nn.Unflatten(1, (1, side, side)),
            nn.Conv2d(1, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * width * (side // 2) ** 2, 64),
            nn.ReLU(),
            nn.Linear(64, n_classes),
        )

    def forward(self, x):
        return self.layers(x)


# %%
# Candidates
# ----------
# Each wrong class is a candidate with probability 0.1; three sets in ten lose the truth.
X, y = load_digits(return_X_y=True)
X_train, X_rest, y_train, y_rest = train_test_split(X, y, train_size=800, random_state=0)
X_val, X_test, y_val, y_test = train_test_split(X_rest, y_rest, train_size=300, random_state=0)
candidates = make_candidates(y_train, q=0.1, eta=0.3, random_state=0)
labels = PartialLabels.from_candidates(candidates, X_train)

# %%
# Learn
# -----
# The same schedule for the network of ours and for the one that Co-Reg takes for features by
# default. ``eval_set`` records the accuracy on validation images in every epoch.
schedule = {"max_epochs": 25, "batch_size": 64, "lr": 0.05, "random_state": 0}
learners = {
    "DigitNet": CoRegClassifier(module=DigitNet, **schedule),
    "the default": CoRegClassifier(**schedule),
}
for name, learner in learners.items():
    learner.fit(labels, eval_set=(X_val, y_val))
    module = learner.net_.module_.networks[0]
    n_weights = sum(parameter.numel() for parameter in module.parameters())
    print(f"{name:<12}{n_weights:>8} weights, validation {learner.score(X_val, y_val):.1%}")

# %%
# Keep the better one by the validation images. The test images have the last word, once.
chosen = max(learners, key=lambda name: learners[name].score(X_val, y_val))
accuracy = learners[chosen].score(X_test, y_test)

# %%
# Look
# ----
# Grey is the warm-up, in which all candidates are believed. Afterwards the networks doubt some
# sets.
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for name, learner in learners.items():
    ax.plot([row["eval_accuracy"] for row in learner.history_], ".-", label=name)
warm_up = sum(row["phase"] == "warm_up" for row in learner.history_)
ax.axvspan(0, warm_up - 0.5, color="gray", alpha=0.15, linewidth=0)
ax.set(xlabel="epoch", ylabel="validation accuracy")
ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
ax.legend(loc="lower right")
ax.grid(alpha=0.3)

# %%
# The classifier can be pickled if the class of its network can be imported where it is loaded.
print(
    f"On validation images {chosen} is better; it has {accuracy:.1%} on the test images,\n"
    f"although {1 - labels.coverage(y_train):.0%} of the sets it learnt from miss the truth."
)
