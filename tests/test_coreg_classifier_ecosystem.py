"""CoRegClassifier inside scikit-learn, pickled and deployed."""

import copy
import inspect
import io
import pickle
import sys

import coreg_fits
import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from coreg_fits import (
    COLOUR,
    LABELS,
    LEVEL,
    T,
    X,
    Y,
    assert_same_fit,
    classifier,
    images_classifier,
    same_probabilities,
)
from fakes import NAMES, ColourVLM
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse as sp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer, StandardScaler
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from sklearn_npll import CoRegClassifier, PartialLabels, VLMPartialAnnotator
from sklearn_npll.model_selection import (
    approximated_accuracy_scorer,
    covering_rate_scorer,
    make_labeled_scorer,
)

# Fixtures, which pytest finds by their names here.
fitted = coreg_fits.fitted
fitted_on_images = coreg_fits.fitted_on_images


# Inside scikit-learn


def coloured(n=24):
    """Images of one colour each, and their names."""
    y = np.arange(n) % 3
    images = np.full((n, 8, 8, 3), 40, np.uint8)
    images[np.arange(n), :, :, y] = 220
    return images, np.array(["red", "green", "blue"])[y]


def pipeline(**params):
    annotator = VLMPartialAnnotator(
        ["red", "green", "blue"], templates=["a {} thing.", "a pale {} thing."], vlm=ColourVLM()
    )
    return Pipeline([("annotate", annotator), ("learn", images_classifier(**params))])


def test_pipeline():
    images, y = coloured()
    pipe = pipeline(max_epochs=20).fit(images)
    vlm = pipe["annotate"].vlm
    assert vlm.n_images == 24
    assert pipe.classes_.tolist() == ["blue", "green", "red"]
    assert_array_equal(pipe["learn"].transduction_, y)
    assert pipe.predict(images).shape == (24,)
    assert pipe.predict_proba(images).shape == (24, 3)
    assert vlm.n_images == 24  # predictions need no annotator
    assert pipe.score(images, y) == np.mean(pipe.predict(images) == y)
    assert 0 <= pipe.score(images) <= 1
    assert_same_fit(pipe["learn"], pipeline(max_epochs=20).fit(images, y[::-1])["learn"], images)
    held_out = pipe.fit(images, learn__eval_set=(images, y))["learn"].history_[-1]
    assert held_out["eval_accuracy"] == pytest.approx(pipe.score(images, y))


def test_pipeline_pickles_without_training_and_without_images():
    images, y = coloured()
    pipe = pipeline().fit(images)
    assert b"ColourVLM" not in pickle.dumps(pipe["learn"])
    loaded = pickle.loads(pickle.dumps(pipe))
    assert_array_equal(loaded.predict_proba(images), pipe.predict_proba(images))


@pytest.mark.parametrize("output", ["default", "pandas"])
def test_set_output(output, fitted):
    pipe = make_pipeline(StandardScaler(), classifier()).set_output(transform=output)
    frame = pd.DataFrame(X, columns=["a", "b"])
    pipe.fit(frame, Y)
    assert pipe.score(frame, T) > 0.5
    assert hasattr(pipe[-1], "feature_names_in_") == (output == "pandas")
    images, _ = coloured()
    assert pipeline().set_output(transform=output).fit(images).predict(images).shape == (24,)


def test_searches():
    grid = {"lr": ["auto", 0.05]}
    with_labels = GridSearchCV(classifier(), grid, cv=2).fit(LABELS, NAMES[T])
    assert with_labels.best_score_ > 0.5
    assert with_labels.predict(X).shape == (60,)
    scores = cross_val_score(classifier(), LABELS, cv=KFold(3))
    assert scores.shape == (3,)
    for scorer in (covering_rate_scorer, approximated_accuracy_scorer):
        search = GridSearchCV(classifier(), grid, cv=2, scoring=scorer).fit(LABELS)
        assert 0 < search.best_score_ <= 1
    few = np.where(np.arange(60) % 3, NAMES[T], "-1")
    scorer = make_labeled_scorer("accuracy")
    assert cross_val_score(classifier(), LABELS, few, scoring=scorer, cv=KFold(2)).min() > 0
    indicator = cross_val_score(classifier(), X, Y, cv=KFold(3))
    assert_allclose(
        indicator, cross_val_score(classifier(), X, PartialLabels.from_candidates(Y), cv=KFold(3))
    )
    search = GridSearchCV(classifier(), grid, cv=KFold(3), error_score="raise")
    assert search.fit(X, sp.csr_array(Y)).cv_results_["mean_test_score"][0] == indicator.mean()


def test_search_in_processes():
    images, y = coloured()
    grid = {"annotate__rule": ["union", "ratio"], "learn__lr": [0.01, 0.05]}
    search = GridSearchCV(
        pipeline(), grid, cv=2, n_jobs=2, scoring=covering_rate_scorer, error_score="raise"
    )
    search.fit(images)
    assert search.predict(images).shape == (24,)
    assert len(search.cv_results_["params"]) == 4
    features = cross_validate(
        classifier(max_epochs=2), X, T, cv=2, n_jobs=2, error_score="raise", return_estimator=True
    )
    assert features["estimator"][0].n_iter_ == 2


@pytest.mark.parametrize("routing", [False, True])
def test_metadata_routing(routing):
    images, y = coloured()
    with sklearn.config_context(enable_metadata_routing=routing):
        pipe = pipeline()
        if routing:
            pipe["learn"].set_fit_request(eval_set=True)
            pipe.fit(images, eval_set=(images, y))
        else:
            pipe.fit(images, learn__eval_set=(images, y))
        accuracy = pipe["learn"].history_[-1]["eval_accuracy"]
        assert accuracy == pytest.approx(pipe.score(images, y))
        assert pipe.score(images) >= 0
        search = GridSearchCV(pipe, {"learn__lr": [0.01]}, cv=2, error_score="raise")
        assert search.fit(images, y).predict(images).shape == (24,)


def test_clone_and_parameters(fitted):
    callbacks = [EarlyStopping(monitor="eval_accuracy")]
    clf = classifier(callbacks=callbacks, prior=[0.2, 0.3, 0.5], module=nn.Linear(2, 3))
    copied = clone(clf)
    assert copied.get_params().keys() == clf.get_params().keys()
    assert copied.callbacks[0].monitor == "eval_accuracy"
    assert copied.prior == [0.2, 0.3, 0.5]
    assert torch.equal(copied.module.weight, clf.module.weight)
    assert not hasattr(clone(fitted), "net_")
    assert clf.set_params(lr=0.5).lr == 0.5
    signature = inspect.signature(CoRegClassifier)
    assert set(signature.parameters) == set(clf.get_params())
    kinds = [p.kind for p in signature.parameters.values()]
    assert kinds[1:] == [inspect.Parameter.KEYWORD_ONLY] * (len(kinds) - 1)


def test_not_fitted():
    with pytest.raises(NotFittedError):
        classifier().predict(X)
    with pytest.raises(NotFittedError):
        classifier().score(X, T)
    with pytest.raises(NotFittedError):
        classifier().to_module()


# Pickles


def test_pickle_and_joblib(fitted, tmp_path):
    loaded = pickle.loads(pickle.dumps(fitted))
    assert_same_fit(loaded, fitted)
    joblib.dump(fitted, tmp_path / "clf.joblib")
    assert_same_fit(joblib.load(tmp_path / "clf.joblib"), fitted)
    assert_same_fit(copy.deepcopy(fitted), fitted)
    assert_same_fit(loaded.fit(X, Y), fitted)


class Copier(Callback):
    copies = []

    def on_epoch_end(self, net, **kwargs):
        weights = {name: value.clone() for name, value in net.module_.state_dict().items()}
        self.copies.append((weights, pickle.loads(pickle.dumps(net))))


def test_pickle_of_a_net_in_training():
    Copier.copies.clear()
    classifier(max_epochs=2, callbacks=[Copier()]).fit(X, Y)
    for weights, net in Copier.copies:
        loaded = net.module_.state_dict()
        assert loaded.keys() == weights.keys()
        assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    assert [len(net.history) for _, net in Copier.copies] == [1, 2]


def test_pickle_holds_what_predicts():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 40)).astype(np.float32)
    y = rng.integers(0, 3, size=500)
    clf = classifier(max_epochs=4, contrastive_start=0, queue_size=8192, batch_size=64)
    clf.fit(features, y, eval_set=(features, y))
    content = pickle.dumps(clf)
    n_parameters = sum(value.numel() for value in clf.to_module().state_dict().values())
    assert len(content) < 1.05 * 4 * n_parameters + 40_000
    assert features[7].tobytes() not in content
    loaded = pickle.loads(content)
    assert loaded.net_.optimizer_ is None
    assert_array_equal(loaded.predict_proba(features), clf.predict_proba(features))


def test_pickle_holds_given_weights_once():
    module = nn.Sequential(nn.Linear(2, 500), nn.ReLU(), nn.Linear(500, 500), nn.Linear(500, 3))
    size = 4 * sum(p.numel() for p in module.parameters())
    clf = classifier(max_epochs=1, module=module, init=module.state_dict()).fit(X, Y)
    # the parameter module, the parameter init and the two networks
    assert len(pickle.dumps(clf)) < 4.2 * size


def test_pickle_from_a_gpu_loads_without_one(fitted):
    clf = copy.deepcopy(fitted)
    clf.net_.device = "cuda"
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.warns(UserWarning, match="cpu"):
        loaded = pickle.loads(pickle.dumps(clf))
    assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


def test_pickle_reads_from_a_stream(fitted):
    stream = io.BytesIO()
    joblib.dump(fitted, stream)
    stream.seek(0)
    assert same_probabilities(joblib.load(stream), fitted)


# Deployment


@pytest.mark.parametrize("deploy", ["ensemble", "single"])
def test_to_module(fitted, fitted_on_images, deploy):
    for clf, samples in ((fitted, X), (fitted_on_images, COLOUR)):
        clf = copy.deepcopy(clf).set_params(deploy=deploy)
        inputs = torch.tensor(samples, dtype=torch.float32)
        if samples.ndim == 4:
            inputs = inputs.permute(0, 3, 1, 2) / 255
        for module in (clf.to_module(), clf.set_params(deploy="ensemble").to_module(deploy)):
            assert type(module).__mro__[1] is nn.Module
            assert not module.training
            with torch.no_grad():
                output = module(inputs).numpy()
            expected = clf.set_params(deploy=deploy).predict_proba(samples)
            assert_allclose(output, expected, atol=1e-6)
    with pytest.raises(ValueError, match="'ensemble' or 'single'; got 'both'"):
        fitted.to_module("both")


def test_to_module_shares_nothing(fitted):
    before = fitted.predict_proba(X)
    module = fitted.to_module()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert_array_equal(fitted.predict_proba(X), before)


def test_export_without_onnx(fitted, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match="export_onnx needs `pip install onnx onnxscript`"):
        fitted.export_onnx(tmp_path / "clf.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("deploy", ["ensemble", "single"])
def test_export_onnx(fitted, fitted_on_images, deploy, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from onnx.reference import ReferenceEvaluator

    for clf, samples in ((fitted, X), (fitted_on_images, COLOUR)):
        path = tmp_path / f"{samples.ndim}.onnx"
        clf.export_onnx(path, deploy)
        model = onnx.load(path, load_external_data=False)  # the weights are in this one file
        onnx.checker.check_model(model)
        inputs = samples.astype(np.float32)
        if samples.ndim == 4:
            inputs = inputs.transpose(0, 3, 1, 2) / np.float32(255)
        expected = copy.deepcopy(clf).set_params(deploy=deploy).predict_proba(samples)
        for n in (1, 7):  # any batch size
            (output,) = ReferenceEvaluator(model).run(["probabilities"], {"input": inputs[:n]})
            assert_allclose(output, expected[:n], atol=1e-5)


# Transforms and binarizer


def test_transforms_see_batches_of_floats():
    shapes = []

    class Watch(nn.Module):
        def forward(self, batch):
            assert batch.dtype == torch.float32
            assert batch.min() >= 0
            assert batch.max() <= 1
            shapes.append(batch.shape[1:])
            return batch

        def __deepcopy__(self, memo):
            return self

    images_classifier(weak_transform=Watch(), strong_transform=Watch()).fit(COLOUR, LEVEL)
    assert set(shapes) == {(3, 8, 8)}


def test_sets_of_names_through_the_binarizer():
    sets = [set(NAMES[row.astype(bool)]) for row in Y]
    binarizer = MultiLabelBinarizer()
    clf = classifier().fit(X, binarizer.fit_transform(sets))
    by_name = classifier().fit(PartialLabels.from_sets(sets, data=X))
    assert_array_equal(binarizer.classes_[clf.predict(X)], by_name.predict(X))
