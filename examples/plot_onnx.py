"""
Deploy without this package
===========================

The vision-language model is needed for annotation only. What it has taught fits into a small ONNX
file that any ONNX runtime serves, without this package, scikit-learn or torch. The example needs
``pip install onnx onnxscript``.
"""

# %%
# Learn on pixels
# ---------------
# The images are annotated, but the network learns from their pixels as features, so that nothing
# else is needed later: ``fit`` takes other samples of the same images beside the container.
import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from sklearn_npll import CoRegClassifier, VLMPartialAnnotator
from sklearn_npll.datasets import load_fashion_mnist

train, test = load_fashion_mnist("train"), load_fashion_mnist("test")
rng = np.random.default_rng(0)
rows = rng.permutation(len(train.images))[:1500]
test_rows = rng.permutation(len(test.images))[:1000]


def as_pixels(images):
    """Rows of numbers from 0 to 1."""
    return images.reshape(len(images), -1).astype(np.float32) / 255


annotator = VLMPartialAnnotator(train.class_prompts)
labels = annotator.fit_transform(train.images[rows])
learner = CoRegClassifier(max_epochs=20, random_state=0)
learner.fit(as_pixels(train.images[rows]), labels)

# %%
# Export
# ------
# ``deploy="single"`` writes one of the two networks, at half the cost. The standardisation of the
# inputs and the softmax are in the file; the names of the classes are not, so they are added as a
# property.
folder = Path(tempfile.mkdtemp())
learner.export_onnx(folder / "clothes.onnx", deploy="single")
model = onnx.load(folder / "clothes.onnx")
onnx.helper.set_model_props(model, {"classes": json.dumps(learner.classes_.tolist())})
onnx.save(model, folder / "clothes.onnx")

# %%
# Serve
# -----
# From here on only the file is used. The reference implementation of the ``onnx`` package runs it;
# in production one takes a runtime such as ONNX Runtime, with the same file.
model = onnx.load(folder / "clothes.onnx")
onnx.checker.check_model(model)
classes = np.array(json.loads({prop.key: prop.value for prop in model.metadata_props}["classes"]))
session = ReferenceEvaluator(model)
X_test = as_pixels(test.images[test_rows])
(proba,) = session.run(None, {"input": X_test})
served = classes[proba.argmax(axis=1)]

# %%
# Compare
# -------
# It is the same function, up to rounding.
own = learner.set_params(deploy="single").predict_proba(X_test)
y_test = test.target_names[test.target[test_rows]]
print(f"largest difference {np.abs(proba - own).max():.1e}")
print(f"same class for {np.mean(served == learner.predict(X_test)):.1%} of the test images")
accuracy = np.mean(served == y_test)

# %%
# Look
# ----
# The first test images: what the file says of them, and in red what they are if it is wrong.
fig, axes = plt.subplots(2, 6, figsize=(9, 4), layout="constrained")
for ax, image, label, sure, truth in zip(
    axes.flat, test.images[test_rows], served, proba.max(axis=1), y_test
):
    ax.imshow(image, cmap="gray")
    ax.set(xticks=[], yticks=[], title=label)
    wrong = label != truth
    ax.set_xlabel(f"not {truth}" if wrong else f"{sure:.0%}", color="C3" if wrong else "black")

# %%
# The annotator needs its model for each new image; the file stands alone.
size = (folder / "clothes.onnx").stat().st_size / 1e6
zero_shot = annotator.score(test.images[test_rows], y_test)
print(
    f"A file of {size:.1f} MB classifies {accuracy:.1%} of the test images correctly;\n"
    f"the annotator has {zero_shot:.1%}."
)
