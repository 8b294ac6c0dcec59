"""
Hand the labels to people and other programs
============================================

After training every image has a purified label. This writes them to a CSV file, and to a JSON file
that Label Studio imports as predictions, so that people review them, the doubtful ones first.
"""

# %%
# Annotate and learn
# ------------------
# Nothing is labelled. The true labels serve the last picture alone.
import csv
import json
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import PercentFormatter

from sklearn_npll import CoRegClassifier, VLMPartialAnnotator
from sklearn_npll.datasets import load_fashion_mnist

data = load_fashion_mnist("train")
rows = np.random.default_rng(0).permutation(len(data.images))[:1200]
images, y = data.images[rows], data.target_names[data.target[rows]]
files = [f"{row:05d}.png" for row in rows]

annotator = VLMPartialAnnotator(data.class_prompts, output="embeddings")
labels = annotator.fit_transform(images)
learner = CoRegClassifier(max_epochs=20, random_state=0).fit(labels)

# %%
# What there is to export: the label of each image, how sure the networks are of it, and the names
# of the candidates it was chosen from. All are in the order of the images.
purified = learner.transduction_
confidence = learner.label_distributions_.max(axis=1)
candidates = [labels.classes[row] for row in labels.toarray()]

# %%
# CSV
# ---
# The module ``csv`` quotes what needs it, so names may hold commas. The candidates share a column
# as a JSON list.
folder = Path(tempfile.mkdtemp())
with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["file", "label", "confidence", "clean_probability", "candidates"])
    for row in zip(files, purified, confidence, learner.clean_probability_, candidates):
        name, label, sure, clean, names = row
        writer.writerow([name, label, f"{sure:.3f}", f"{clean:.3f}", json.dumps(names.tolist())])
print((folder / "labels.csv").read_text(encoding="utf-8")[:330], "...")

# %%
# Label Studio
# ------------
# A task has ``data``, with the address of the image, and ``predictions``. The prediction's
# ``result`` names the two tags of the labelling interface it belongs to, ``from_name`` and
# ``to_name``; its ``score`` is what the Data Manager sorts by. Paste the interface into the
# project's settings, then import the file. Both take the classes from the learner, so that the
# names agree.
interface = ElementTree.Element("View")
ElementTree.SubElement(interface, "Image", name="image", value="$image")
choices = ElementTree.SubElement(interface, "Choices", name="class", toName="image")
for name in learner.classes_:
    ElementTree.SubElement(choices, "Choice", value=str(name))
ElementTree.indent(interface)
ElementTree.ElementTree(interface).write(folder / "interface.xml", encoding="utf-8")

address = "https://example.org/clothes/"  # where Label Studio finds the images


def make_task(file, label, sure):
    """A task of Label Studio with one prediction."""
    result = {
        "id": Path(file).stem,  # no other result of the project may have it
        "from_name": "class",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": [str(label)]},
    }
    prediction = {"model_version": "co-reg", "score": float(sure), "result": [result]}
    return {"data": {"image": address + file}, "predictions": [prediction]}


tasks = [make_task(*parts) for parts in zip(files, purified, confidence)]
(folder / "tasks.json").write_text(json.dumps(tasks, indent=1))
print(json.dumps(tasks[0], indent=1))

# %%
# Both files give back what was written, and the interface knows every class in the tasks.
with open(folder / "labels.csv", newline="", encoding="utf-8") as file:
    assert [line["label"] for line in csv.DictReader(file)] == purified.tolist()
read = json.loads((folder / "tasks.json").read_text())
chosen = [task["predictions"][0]["result"][0]["value"]["choices"][0] for task in read]
known = {
    choice.get("value") for choice in ElementTree.parse(folder / "interface.xml").iter("Choice")
}
assert chosen == purified.tolist() and set(chosen) <= known

# %%
# Look
# ----
# Somebody reviews the tasks by rising score. How many of the wrong labels does that find?
order, wrong = confidence.argsort(), purified != y
found = wrong[order].cumsum() / wrong.sum()
share = np.arange(1, len(y) + 1) / len(y)
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(share, found, label="least certain first")
ax.plot([0, 1], [0, 1], "k:", label="in any order")
ax.set(xlabel="tasks reviewed", ylabel="wrong labels found")
for axis in (ax.xaxis, ax.yaxis):
    axis.set_major_formatter(PercentFormatter(1, decimals=0))
ax.legend(loc="lower right")
ax.grid(alpha=0.3)

# %%
# The scores are no calibrated probabilities, but their order saves work.
quarter = found[len(y) // 4 - 1]
print(
    f"{wrong.mean():.1%} of the purified labels are wrong;\n"
    f"reviewing the least certain quarter finds {quarter:.1%} of them."
)
