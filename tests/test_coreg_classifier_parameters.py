"""Parameters of CoRegClassifier: each changes the fit or does not, and bad values are refused."""

import copy

import coreg_fits
import pytest
import torch
from coreg_fits import (
    COLOUR,
    LEVEL,
    X,
    Y,
    assert_same_fit,
    classifier,
    images_classifier,
    same_probabilities,
    weights,
)
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.utils._param_validation import InvalidParameterError
from skorch.callbacks import GradientNormClipping
from torch import nn

from sklearn_npll import CoRegClassifier
from sklearn_npll.detection import NeighborVoteDetector

# Fixtures, which pytest finds by their names here.
fitted = coreg_fits.fitted
fitted_on_images = coreg_fits.fitted_on_images


# Parameters


def double(batch):
    return 2 * batch


class Linear(nn.Module):
    def __init__(self, n_features, n_classes):
        super().__init__()
        self.layer = nn.Linear(n_features, n_classes)

    def forward(self, x):
        return self.layer(x)


CHANGES = {
    "module": Linear,
    "init": {},  # tested below
    "max_epochs": 6,
    "warm_up": 3,
    "batch_size": 32,
    "lr": 0.03,
    "momentum": 0.5,
    "weight_decay": 0.1,
    "variant": "paper",
    "prior": None,
    "loss_window": 1,
    "division": NeighborVoteDetector(metric="euclidean"),
    "clean_threshold": 0.9,
    "co_labelling": "average",
    "n_weak_views": 1,
    "n_mixed_views": 2,
    "temperature": 0.7,
    "use_unlabelled": False,
    "unlabelled_sampling": "equal",
    "unlabelled_loss": "paper",
    "unlabelled_weight": 0.0,
    "mixup_alpha": None,
    "prototype_weight": 0.0,
    "prototype_momentum": 0.5,
    "prototype_temperature": 1.0,
    "prototype_views": "strong",
    "contrastive": "moco",
    "contrastive_weight": 0.5,
    "contrastive_temperature": 0.5,
    "contrastive_start": 2,
    "queue_size": 4,
    "key_momentum": 0.1,
    "reset_keys": True,
    "projection_dim": 8,
    "alignment_rounds": 3,
    "neighbor_weight": 0.5,
    "elr_weight": 1.0,
    "pseudo_label_threshold": 0.6,
    "disagreement_weight": 0.9,
    "candidate_update": "cluster",
    "doubly_robust": True,  # tested in test_coreg_options.py, as it takes known rows
    "prototype_blend": 0.9,
    "confidence_weight": 0.5,
    "image_size": (7, 7),
    "flip": False,
    "cutout": 1,
    "strong_operations": False,
    "weak_noise": 0.1,
    "strong_noise": 0.3,
    "feature_dropout": 0.5,
    "weak_transform": double,
    "strong_transform": double,
    "deploy": "single",
    "precision": "bf16",
    "random_state": 1,
    "callbacks": [GradientNormClipping(1e-3)],
}
NO_CHANGE = {
    "device": "cpu",
    "accelerator": "auto",  # which joins no others here
    "verbose": 0,
    "patience": 1,
    "early_stopping": "covering_rate",
    "warm_start": True,
    "checkpoint_dir": "states",
    "checkpoint_every": 1,
    # of these rows there are no scores, and no average is made; tested below
    "warm_up_target": "candidates",
    "evidence_weight": 0.0,
    "average_momentum": 0.5,
    "neighbors": 5,  # which count for nothing by default; see test_coreg_neighbours.py
}
OF_IMAGES = {"image_size", "flip", "cutout", "strong_operations"}


def test_the_tables_have_every_parameter():
    assert CHANGES.keys() | NO_CHANGE.keys() == CoRegClassifier().get_params().keys()


@pytest.mark.parametrize("name", sorted(CHANGES.keys() - OF_IMAGES - {"init", "doubly_robust"}))
def test_parameter_changes_the_fit(fitted, name):
    other = classifier(**{name: CHANGES[name]}).fit(X, Y)
    assert not same_probabilities(other, fitted)


@pytest.mark.parametrize("name", sorted(OF_IMAGES))
def test_parameter_changes_the_fit_on_images(fitted_on_images, name):
    other = images_classifier(**{name: CHANGES[name]}).fit(COLOUR, LEVEL)
    assert not same_probabilities(other, fitted_on_images, COLOUR)


@pytest.mark.parametrize("name", NO_CHANGE)
def test_parameter_changes_nothing(fitted, name, tmp_path, monkeypatch):
    if name == "accelerator":
        pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    value = NO_CHANGE[name]
    params = {"patience": 50} if name == "early_stopping" else {}
    assert_same_fit(classifier(**{name: value, **params}).fit(X, Y), fitted)
    assert (tmp_path / "states").exists() == (name == "checkpoint_dir")


@pytest.mark.parametrize("name", CoRegClassifier().get_params())
def test_parameter_of_the_wrong_type(name):
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter"):
        classifier(**{name: object()}).fit(X, Y)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_epochs", 0),
        ("warm_up", -1),
        ("batch_size", 1),
        ("batch_size", "Auto"),
        ("lr", 0),
        ("momentum", 1.0),
        ("weight_decay", -1e-3),
        ("prior", "uniforn"),
        ("loss_window", 0),
        ("clean_threshold", 1.1),
        ("co_labelling", "both"),
        ("average_momentum", 1.0),
        ("evidence_weight", -1.0),
        ("n_weak_views", 0),
        ("temperature", 0),
        ("use_unlabelled", "yes"),
        ("unlabelled_sampling", "twice"),
        ("unlabelled_loss", "sum"),
        ("unlabelled_weight", -1),
        ("mixup_alpha", 0),
        ("prototype_weight", -1),
        ("prototype_momentum", 1),
        ("prototype_temperature", 0),
        ("prototype_views", "weak"),
        ("contrastive", None),
        ("contrastive_weight", -1),
        ("contrastive_temperature", 0),
        ("contrastive_start", -1),
        ("queue_size", -1),
        ("key_momentum", 1.1),
        ("projection_dim", 0),
        ("image_size", 32),
        ("cutout", -1),
        ("strong_operations", "all"),
        ("weak_noise", -1),
        ("strong_noise", -1),
        ("feature_dropout", 1),
        ("deploy", "both"),
        ("early_stopping", True),
        ("patience", 0),
        ("checkpoint_every", 0),
        ("precision", "float16"),
        ("verbose", -1),
    ],
)
def test_parameter_out_of_range(name, value):
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter"):
        classifier(**{name: value}).fit(X, Y)


def test_deploy(fitted):
    single = copy.deepcopy(fitted).set_params(deploy="single")
    assert_array_equal(single.label_distributions_, fitted.label_distributions_)
    networks = fitted.net_.module_.networks.eval()
    with torch.no_grad():
        logits = [network(torch.tensor(X, dtype=torch.float32)) for network in networks]
    assert_allclose(single.predict_proba(X), logits[0].softmax(1), atol=1e-6)
    assert_allclose(fitted.predict_proba(X), (logits[0] + logits[1]).softmax(1), atol=1e-6)
    assert_allclose(fitted.predict_proba(X).sum(axis=1), 1, rtol=1e-12)
    with pytest.raises(ValueError, match="deploy must be"):
        single.set_params(deploy="singel").predict(X)


@pytest.mark.parametrize("kind", ["dict", "pt", "safetensors"])
def test_init(kind, tmp_path):
    module = nn.Sequential(nn.Linear(2, 3))
    init = weights(0.3)
    if kind == "pt":
        torch.save(init, tmp_path / "w.pt")
        init = tmp_path / "w.pt"
    elif kind == "safetensors":
        from safetensors.torch import save_file

        save_file(init, tmp_path / "w.safetensors")
        init = str(tmp_path / "w.safetensors")
    clf = classifier(module=module, init=init, max_epochs=1, warm_up=1, lr=1e-9).fit(X, Y)
    for network in clf.net_.module_.networks:
        assert_allclose(network.classifier.weight.detach(), 0.3, rtol=1e-5)
