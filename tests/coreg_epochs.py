"""A small net of Co-Reg with its data, and spies on what an epoch calls."""

from types import SimpleNamespace

import numpy as np
import torch
from sklearn.datasets import make_blobs
from torch import nn

from sklearn_npll import CoRegClassifier
from sklearn_npll._neural._net import TrainingData
from sklearn_npll._neural._networks import NetworkEnsemble
from sklearn_npll._neural._views import FeatureViews
from sklearn_npll.coreg._net import CoRegNet

close = torch.testing.assert_close
N_CLASSES = 3
# two epochs of each phase: warm-up 0-1, self-training 2-3, all losses from 4 on
SHORT = {
    "max_epochs": 6,
    "warm_up": 2,
    "n_mixed_views": 2,
    "unlabelled_sampling": "equal",
    "contrastive": "noise_tolerant",
    "contrastive_start": 2,
    "batch_size": 16,
    "queue_size": 40,
    "projection_dim": 8,
    "lr": 0.05,
    "temperature": 0.5,
    "co_labelling": "peer",
    "mixup_alpha": 4.0,
}


def small(n_features, n_classes):
    return nn.Sequential(
        nn.Linear(n_features, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, n_classes)
    )


def make_net(*, module=small, shape=(4,), n_classes=N_CLASSES, seed=0, callbacks=None, **params):
    params = {**SHORT, **params}
    method = SimpleNamespace(**CoRegClassifier(**params).get_params(deep=False))
    torch.manual_seed(0)
    mean = torch.zeros(shape[0], *[1] * (len(shape) - 1))
    return CoRegNet(
        NetworkEnsemble,
        method=method,
        seed=seed,
        module__module=module,
        module__shape=shape,
        module__n_classes=n_classes,
        module__mean=mean,
        module__scale=mean + 1,
        module__projection_dim=method.projection_dim,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        optimizer__weight_decay=method.weight_decay,
        lr=method.lr,
        batch_size=method.batch_size,
        max_epochs=method.max_epochs,
        train_split=None,
        callbacks=callbacks,
        device="cpu",
        verbose=0,
    ).initialize()


def feature_views(X):
    return FeatureViews(
        X,
        weak_noise=0.05,
        strong_noise=0.15,
        dropout=0.1,
        weak_transform=None,
        strong_transform=None,
        device="cpu",
    )


def make_data(n=60, prior="uniform"):
    """Blobs; a third of the sets holds a wrong class too, a fifth misses the truth."""
    X, y = make_blobs(n, 4, centers=N_CLASSES, cluster_std=2.0, random_state=0)
    candidates = np.eye(N_CLASSES, dtype=bool)[y]
    candidates[::3] |= np.roll(candidates[::3], 1, axis=1)
    candidates[::5] = np.roll(candidates[::5], 1, axis=1)
    if isinstance(prior, str) and prior == "uniform":
        prior = torch.full((N_CLASSES,), 1 / N_CLASSES)
    return TrainingData(
        feature_views(X), torch.from_numpy(candidates), torch.zeros(n, dtype=torch.bool), prior
    )


def run(net, data, epochs):
    net.fit_loop(data, epochs=epochs)
    return net


def column(net, name):
    return [row[name] for row in net.history]


def fix_clean(monkeypatch, clean):
    """Let every division find these clean probabilities."""
    divide = CoRegNet.divide

    def fixed(self, k, data):
        division = divide(self, k, data)
        division.clean = clean.clone()
        return division

    monkeypatch.setattr(CoRegNet, "divide", fixed)


def spy(monkeypatch, owner, name):
    """Record the arguments of each call."""
    original, calls = getattr(owner, name), []

    def wrapper(*args, **kwargs):
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapper)
    return calls


PROBA = torch.tensor(
    [[0.8, 0.1, 0.1], [0.1, 0.6, 0.3], [0.2, 0.4, 0.4], [0.3, 0.3, 0.4], [0.5, 0.3, 0.2]]
)
CANDIDATES = torch.tensor([[1, 0, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1], [0, 0, 1]]).bool()
KNOWN = torch.tensor([0, 0, 0, 0, 1]).bool()


def linear_net(**params):
    """Networks of which the first returns its input and the second twice its input."""
    net = make_net(
        module=lambda n_features, n_classes: nn.Sequential(
            nn.Identity(), nn.Linear(n_features, n_classes, bias=False)
        ),
        shape=(2,),
        n_classes=2,
        **params,
    )
    for k in (0, 1):
        net.module_.networks[k].classifier.weight.data = (k + 1.0) * torch.eye(2)
    return net
