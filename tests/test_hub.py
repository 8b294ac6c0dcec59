"""Tests of folders with a model card."""

import json
import shutil

import numpy as np
import pytest
import torch
import zoo
from fakes import FeatureVLM
from huggingface_hub import ModelCard
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn

from sklearn_npll import CoRegClassifier, VLMPartialAnnotator
from sklearn_npll.baselines import DistillationClassifier, DivideMixClassifier, PiCOClassifier
from sklearn_npll.hub import load_pretrained, save_pretrained

SHORT = {"max_epochs": 2, "random_state": 0}
FITTED = {
    "features": (lambda: CoRegClassifier(**SHORT, deploy="single").fit(zoo.LABELS), zoo.NEW_X),
    "images": (lambda: CoRegClassifier(**SHORT).fit(zoo.IMAGES, zoo.Y), zoo.IMAGES),
    "colour": (
        lambda: CoRegClassifier("resnet8", image_size=(12, 10), **SHORT).fit(
            np.stack([zoo.IMAGES] * 3, axis=-1), zoo.NAMES[zoo.Y]
        ),
        np.stack([zoo.IMAGES] * 3, axis=-1),
    ),
    "one network": (lambda: PiCOClassifier(**SHORT).fit(zoo.LABELS), zoo.NEW_X),
    "single labels": (lambda: DivideMixClassifier(**SHORT).fit(zoo.X, 2.0 * zoo.Y), zoo.NEW_X),
    "distillation": (lambda: DistillationClassifier(**SHORT).fit(zoo.LABELS), zoo.NEW_X),
}


@pytest.fixture(scope="module")
def fitted():
    return CoRegClassifier(**SHORT, checkpoint_every=3, callbacks=[]).fit(zoo.LABELS)


@pytest.fixture
def folder(fitted, tmp_path):
    save_pretrained(fitted, tmp_path / "model")
    return tmp_path / "model"


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize("name", FITTED)
def test_a_loaded_classifier_predicts_the_same(name, tmp_path):
    make, samples = FITTED[name]
    clf = make()
    save_pretrained(clf, tmp_path / "model")
    loaded = load_pretrained(tmp_path / "model", device="cpu")
    assert type(loaded) is type(clf)
    assert_array_equal(loaded.predict_proba(samples), clf.predict_proba(samples))
    assert_array_equal(loaded.predict(samples), clf.predict(samples))
    assert loaded.classes_.dtype == clf.classes_.dtype
    # and can be written again, with the same weights
    save_pretrained(loaded, tmp_path / "again")
    first, second = (load_file(tmp_path / f / "model.safetensors") for f in ("model", "again"))
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert_array_equal(value, second[key])


def test_a_data_frame_keeps_its_columns(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(zoo.X, columns=list("abcd"))
    save_pretrained(CoRegClassifier(**SHORT).fit(frame, zoo.Y), tmp_path / "model")
    loaded = load_pretrained(tmp_path / "model")
    assert loaded.predict(frame).shape == (len(frame),)
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame[list("bacd")])


def test_loading_leaves_random_numbers_alone(folder):
    before = torch.get_rng_state()
    load_pretrained(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loaded_classifier_can_be_fitted(fitted, folder):
    loaded = load_pretrained(folder)
    loaded.fit(zoo.LABELS)
    assert_array_equal(loaded.predict_proba(zoo.NEW_X), fitted.predict_proba(zoo.NEW_X))


def test_the_configuration(fitted, folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["classes"] == ["ant", "bee", "cow"]
    assert config["network"] == {"module": "mlp", "shape": [4], "n_networks": 2}
    np.testing.assert_allclose(config["normalization"]["mean"], zoo.X.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(config["normalization"]["scale"], zoo.X.std(axis=0), rtol=1e-5)
    assert config["parameters"]["max_epochs"] == 2
    # what is a matter of one machine or of one training
    assert {"checkpoint_dir", "device", "callbacks"}.isdisjoint(config["parameters"])
    assert config["training"]["epochs"] == 2


def test_parameters_that_are_objects_are_named(tmp_path):
    clf = CoRegClassifier(weak_transform=nn.Identity(), prior=np.array([0.5, 0.25, 0.25]), **SHORT)
    save_pretrained(clf.fit(zoo.LABELS), tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["omitted_parameters"] == ["weak_transform"]
    assert config["parameters"]["prior"] == [0.5, 0.25, 0.25]
    assert "| parameters that are not in `config.json` | weak_transform |" in (
        tmp_path / "model" / "README.md"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "prior",
    [
        {0: 0.2, 1: 0.5, 2: 0.3},
        {np.int64(2): np.float32(0.25), 0: 1, 1: 2},
        {"ant": 0.2, "bee": 0.5, "cow": 0.3},
        {"pairs": 0.2, "bee": 0.5, "cow": 0.3},
    ],
)
@pytest.mark.parametrize("as_series", [False, True])
def test_shares_by_class_keep_their_keys(prior, as_series, tmp_path):
    y = np.array(list(prior))[zoo.Y]
    given = pytest.importorskip("pandas").Series(prior) if as_series else prior
    clf = CoRegClassifier(prior=given, **SHORT).fit(zoo.X, y)
    save_pretrained(clf, tmp_path / "model")
    loaded = load_pretrained(tmp_path / "model")
    assert loaded.prior == prior
    assert_array_equal(loaded.fit(zoo.X, y).predict_proba(zoo.NEW_X), clf.predict_proba(zoo.NEW_X))


def test_the_hub_reads_the_card(fitted, tmp_path):
    annotator = VLMPartialAnnotator(
        zoo.NAMES.tolist(), vlm=FeatureVLM(), templates=["a {}", "the {}", "one {}", "x|{}"]
    )
    annotator.fit(zoo.X)
    save_pretrained(
        fitted,
        tmp_path / "model",
        annotator=annotator,
        labels=zoo.LABELS,
        metrics={"accuracy": 0.75, "covering rate": 1},
        dataset='animals: "new" ones',
        license="mit",
        name="ants: and others",
    )
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.library_name == "sklearn_npll"
    assert card.data.license == "mit"
    assert card.data.pipeline_tag == "tabular-classification"
    assert "partial-label-learning" in card.data.tags
    assert card.data.model_name == "ants: and others"
    results = [(r.metric_type, r.metric_value, r.dataset_name) for r in card.data.eval_results]
    where = 'animals: "new" ones'
    assert results == [("accuracy", 0.75, where), ("covering rate", 1.0, where)]
    size = zoo.LABELS.toarray().sum(axis=1).mean()
    assert f"| candidates: mean_set_size | {size:.4g} |" in card.text
    assert "| annotator | VLMPartialAnnotator |" in card.text
    assert "| templates | 'a {}', 'the {}', 'one {}' and 1 more |" in card.text
    assert '["ant", "bee", "cow"]' in card.text
    training = json.loads((tmp_path / "model" / "config.json").read_text())["training"]
    assert training["annotator"]["templates"] == annotator.templates_
    assert training["candidates"]["n_samples"] == zoo.N


def test_a_card_is_not_replaced(fitted, folder):
    with pytest.raises(FileExistsError, match="delete it or take another folder"):
        save_pretrained(fitted, folder)


@pytest.mark.parametrize(
    ("clf", "options", "error", "message"),
    [
        (make_pipeline(CoRegClassifier()), {}, TypeError, "pass the last step"),
        (LogisticRegression(), {}, TypeError, "got LogisticRegression"),
        (CoRegClassifier(), {}, NotFittedError, "not fitted"),
        (None, {"metrics": {"accuracy": 0.5}}, ValueError, "metrics need the name of the data"),
        (
            None,
            {"metrics": {"auc": np.nan}, "dataset": "a"},
            ValueError,
            r"metrics\['auc'\] is nan",
        ),
        (None, {"metrics": {"auc": "1"}, "dataset": "a"}, ValueError, "must be a finite number"),
    ],
)
def test_what_cannot_be_saved(clf, options, error, message, fitted, tmp_path):
    with pytest.raises(error, match=message):
        save_pretrained(clf or fitted, tmp_path / "model", **options)
    assert not (tmp_path / "model").exists()


def test_a_network_of_ones_own_is_code(tmp_path):
    clf = CoRegClassifier(nn.Sequential(nn.Linear(4, 3)), **SHORT).fit(zoo.LABELS)
    with pytest.raises(TypeError, match="only networks that have a name"):
        save_pretrained(clf, tmp_path / "model")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "its format is 2"),
        ({"estimator": "CoRegClasifier"}, "did you mean 'CoRegClassifier'"),
        ({"estimator": "LogisticRegression"}, "is no classifier of sklearn_npll"),
        ({"parameters": {"checkpoint_dir": "x"}}, "it sets checkpoint_dir"),
        ({"parameters": {"colour": "red"}}, "unexpected keyword argument 'colour'"),
        ({"classes": ["ant", "bee"]}, "size mismatch"),
        ({"network": {"module": "os.system", "shape": [4], "n_networks": 2}}, "unknown module"),
        ({"network": {"module": "mlp", "shape": [4], "n_networks": 1}}, "Unexpected key"),
    ],
)
def test_wrong_configurations(changes, message, folder):
    edit(folder, **changes)
    with pytest.raises(ValueError, match=f"(?is)model cannot be loaded.*{message}"):
        load_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("size", [0, 100])
def test_damaged_files(name, size, folder):
    path = folder / name
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="cannot be loaded as a classifier"):
        load_pretrained(folder)


def test_missing_files(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model.safetensors, .*snapshot_download"):
        load_pretrained(folder)
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError, match=r"has no config.json"):
        load_pretrained(folder)
