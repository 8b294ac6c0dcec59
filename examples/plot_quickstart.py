"""
Learn Fashion-MNIST without a label
===================================

A small vision-language model annotates images of clothes with 27 prompt templates, two networks
clean the candidate labels it gives, and the result is compared with the model itself and with the
same network trained on the true labels. Everything used here comes with the package; it takes a few
minutes on two processor cores.

The figures and the picture are written to ``build/quickstart``.
"""

# %%
# Load
# ----
# The true labels of the training images serve the reference and the report, nothing else.
import json
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import accuracy_score
from sklearn.pipeline import make_pipeline

from sklearn_npll import CoRegClassifier, VLMPartialAnnotator
from sklearn_npll.datasets import load_fashion_mnist
from sklearn_npll.plot import (
    CandidateGridDisplay,
    CandidateSetDisplay,
    ConfusionComparisonDisplay,
)

seed = 0
n_train = 6000
out = Path("build/quickstart")
out.mkdir(parents=True, exist_ok=True)

train, test = load_fashion_mnist("train"), load_fashion_mnist("test")
rows = np.random.default_rng(seed).permutation(len(train.images))[:n_train]
X, y = train.images[rows], train.target_names[train.target[rows]]
X_test, y_test = test.images, test.target_names[test.target]

# %%
# Annotate
# --------
# A class is a candidate of an image if at least one of the 27 templates finds it the most probable.
annotator = VLMPartialAnnotator(train.class_prompts)
start = time.perf_counter()
labels = annotator.fit_transform(X)
seconds_annotate = time.perf_counter() - start
print(labels.summary(y))

# %%
# Learn
# -----
# The schedule is short: the paper trains 100 epochs on 60,000 images. Smaller batches, a higher
# learning rate and a smaller cutout suit it; benchmarks/bench_fashion.py shows what each of them
# does.
schedule = {"batch_size": 64, "cutout": 8, "random_state": seed, "verbose": 1}
learner = CoRegClassifier(max_epochs=52, **schedule)
start = time.perf_counter()
learner.fit(labels)
seconds_fit = time.perf_counter() - start

# %%
# The reference: the same networks and views, with the true labels.
reference = CoRegClassifier(max_epochs=52, warm_up=52, **schedule).fit(X, y)

# %%
# Evaluate
# --------
single = learner.set_params(deploy="single").score(X_test, y_test)
ensemble = learner.set_params(deploy="ensemble").score(X_test, y_test)
one_prompt = VLMPartialAnnotator(train.class_prompts, templates="simple").fit(X_test)
results = {
    "zero_shot": one_prompt.score(X_test, y_test),
    "zero_shot_ensemble": annotator.score(X_test, y_test),
    "coverage": labels.coverage(y),
    "mean_set_size": labels.mean_set_size,
    "coreg_ensemble": ensemble,
    "coreg_single": single,
    "supervised_reference": reference.score(X_test, y_test),
    "seconds_annotate": seconds_annotate,
    "seconds_fit": seconds_fit,
    "n_train": len(X),
    "n_test": len(X_test),
    "seed": seed,
}
(out / "results.json").write_text(json.dumps(results, indent=2) + "\n")

names = {
    "zero_shot": "VLM, one prompt",
    "zero_shot_ensemble": "VLM, mean over 27 prompts",
    "coreg_single": "Co-Reg, one network",
    "coreg_ensemble": "Co-Reg, both networks",
    "supervised_reference": "same networks, true labels",
}
print(f"\n{'test accuracy (%)':<30}")
for key, name in names.items():
    print(f"{name:<30}{100 * results[key]:>6.1f}")
purified = accuracy_score(y, learner.transduction_)
print(f"\ncandidates: {labels.mean_set_size:.2f} an image, {labels.coverage(y):.1%} with the truth")
print(f"purified labels of the training images: {purified:.1%} right")
print(f"{len(X)} images annotated in {seconds_annotate:.0f} s, learnt in {seconds_fit:.0f} s")

# %%
# Look
# ----
# Accuracy, what each side confuses, and some images with their candidates, purified label and
# clean probability.
fig = plt.figure(figsize=(16, 17), layout="constrained")
top, middle, bottom = fig.subfigures(3, 1, height_ratios=[3, 6, 7])

bars, sizes = top.subplots(1, 2)
values = [100 * results[key] for key in names]
shown = bars.barh(list(names.values()), values, color=["C7", "C7", "C0", "C0", "C2"])
bars.bar_label(shown, fmt="%.1f", padding=3)
bars.invert_yaxis()
bars.set(xlabel="test accuracy (%)", xlim=(0, 100))
CandidateSetDisplay.from_partial_labels(labels, y, ax=sizes)
ConfusionComparisonDisplay.from_estimator(
    make_pipeline(annotator, learner), X_test, y_test, ax=middle.subplots(1, 3)
)
grid = CandidateGridDisplay.from_estimator(learner, labels, y)
plt.close(grid.figure_)
grid.plot(ax=bottom.subplots(2, 6))
fig.savefig(out / "summary.png", dpi=80)
print(f"wrote {out / 'results.json'} and {out / 'summary.png'}")
# sphinx_gallery_thumbnail_path = "_static/quickstart.png"
