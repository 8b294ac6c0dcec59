"""Fitted estimators written by skops, in which no pickle is hidden."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from fakes import write_tiny_clip
from numpy.testing import assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn

from sklearn_npll import CoRegClassifier, PartialLabels, VLMPartialAnnotator
from sklearn_npll.annotators import ConformalPartialAnnotator, EnsemblePartialAnnotator
from sklearn_npll.baselines import DivideMixClassifier, PRODENClassifier, PseudoLabelClassifier
from sklearn_npll.detection import DeFTDetector, SmallLossDetector

skops = pytest.importorskip("skops.io")

rng = np.random.default_rng(0)
T = np.arange(40) % 3
X = (np.eye(3)[T] @ rng.normal(size=(3, 4)) + 0.3 * rng.normal(size=(40, 4))).astype(np.float32)
SETS = np.eye(3, dtype=bool)[T] | (rng.random((40, 3)) < 0.2)
LABELS = PartialLabels(X, ["ash", "birch", "oak"], SETS)
IMAGES = rng.integers(0, 256, size=(12, 8, 8, 3), dtype=np.uint8)
NAMES = ["red", "green", "blue"]
SHORT = {"max_epochs": 2, "random_state": 0}


def annotator(**params):
    return VLMPartialAnnotator(NAMES, templates="simple", **params)


def make_full(tmp_path):
    vit = write_tiny_clip(tmp_path / "model")
    options = {"n_ctx": 4, "n_prompt_tokens": 3, **SHORT}
    detector = DeFTDetector(annotator(model=vit), backend="full", **options)
    return detector.fit(IMAGES, np.array(NAMES)[np.arange(12) % 3])


FITTED = {
    "CoReg": (lambda _: CoRegClassifier(**SHORT).fit(LABELS), X),
    "CoReg of images": (lambda _: CoRegClassifier(**SHORT).fit(IMAGES, np.arange(12) % 3), IMAGES),
    "one network": (lambda _: PRODENClassifier(**SHORT).fit(LABELS), X),
    "DivideMix": (lambda _: DivideMixClassifier(**SHORT).fit(X, T), X),
    "pseudo-labels": (lambda _: PseudoLabelClassifier(LogisticRegression()).fit(LABELS), X),
    "detector": (lambda _: SmallLossDetector(random_state=0).fit(X, T), X),
    "DeFT": (lambda _: DeFTDetector(**SHORT).fit(X, T), X),
    "DeFT of a model": (make_full, IMAGES),
    "annotator": (lambda _: annotator().fit(IMAGES), IMAGES),
    "ensemble": (
        lambda _: EnsemblePartialAnnotator(
            [("a", annotator()), ("b", annotator(rule="topk", rule_value=1))]
        ).fit(IMAGES),
        IMAGES,
    ),
    "conformal": (
        lambda _: ConformalPartialAnnotator(annotator(), coverage=0.5).fit(
            IMAGES, known_labels=np.array(NAMES)[np.arange(12) % 3]
        ),
        IMAGES,
    ),
    "pipeline": (
        lambda _: make_pipeline(annotator(), CoRegClassifier(**SHORT)).fit(IMAGES),
        IMAGES,
    ),
}

OTHERS = {"ensemble": {"sklearn"}}  # its Bunch


@pytest.mark.parametrize("name", FITTED)
def test_fitted_estimators(name, tmp_path):
    make, samples = FITTED[name]
    estimator = make(tmp_path)
    content = skops.dumps(estimator)
    types = skops.get_untrusted_types(data=content)
    packages = {type_.partition(".")[0] for type_ in types}
    assert packages <= {"sklearn_npll", *OTHERS.get(name, ())}
    with zipfile.ZipFile(io.BytesIO(content)) as file:  # arrays and JSON
        assert {part.rpartition(".")[2] for part in file.namelist()} <= {"npy", "json"}
    loaded = skops.loads(content, trusted=types)
    expected = estimator.predict_proba(samples)
    assert_array_equal(loaded.predict_proba(samples), expected)
    assert_array_equal(pickle.loads(pickle.dumps(loaded)).predict_proba(samples), expected)
    again = skops.loads(skops.dumps(loaded), trusted=types)
    assert_array_equal(again.predict_proba(samples), expected)
    if hasattr(estimator, "net_"):
        assert loaded.net_.get_params()["module"] is estimator.net_.get_params()["module"]
        assert loaded.net_.history == estimator.net_.history


def test_a_pickle_in_a_net_is_not_read(tmp_path):
    """skorch's own state holds a pickle, which a file may not slip in."""
    harm = tmp_path / "harm"

    class Payload:
        def __reduce__(self):
            return open, (str(harm), "w")

    clf = CoRegClassifier(**SHORT).fit(LABELS)
    content = skops.dumps(clf)
    types = skops.get_untrusted_types(data=content)
    parts = {}
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        for name in file.namelist():
            parts[name] = file.read(name)
    schema = json.loads(parts["schema.json"])
    state = schema["content"]["content"]["net_"]["content"]["content"]
    parts["0.bin"] = pickle.dumps({"module_": Payload()})
    bytes_node = {"__class__": "bytes", "__module__": "builtins", "__loader__": "BytesNode"}
    bytes_node.update(file="0.bin", __id__=10**9)
    state["__cuda_dependent_attributes__"] = bytes_node
    for part in ("weights", "network", "precision"):
        changed = json.loads(json.dumps(schema))
        del changed["content"]["content"]["net_"]["content"]["content"][part]
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for name, value in {**parts, "schema.json": json.dumps(changed)}.items():
                file.writestr(name, value)
        with pytest.raises(KeyError, match=part):
            skops.loads(buffer.getvalue(), trusted=types)
    assert not harm.exists()


class Own(nn.Sequential):
    def __init__(self, n_features, n_classes):
        super().__init__(nn.Linear(n_features, n_classes))


def test_modules_of_ones_own_are_for_pickle():
    clf = CoRegClassifier(Own, **SHORT).fit(LABELS)
    with pytest.raises(TypeError, match="only networks that have a name .* pickle the classifier"):
        skops.dumps(clf)
    loaded = pickle.loads(pickle.dumps(clf))
    assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


def test_warm_start_goes_on():
    clf = CoRegClassifier(warm_start=True, **SHORT).fit(LABELS)
    content = skops.dumps(clf)
    loaded = skops.loads(content, trusted=skops.get_untrusted_types(data=content))
    expected = clf.set_params(max_epochs=4).fit(LABELS).predict_proba(X)
    assert_array_equal(loaded.set_params(max_epochs=4).fit(LABELS).predict_proba(X), expected)
    assert loaded.n_iter_ == 4
