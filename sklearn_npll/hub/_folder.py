"""A folder of a fitted classifier: weights, configuration and card, and no code."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._device import resolve_device
from .._files import atomic_write
from .._messages import did_you_mean
from .._neural._base import NeuralClassifier
from .._neural._networks import resolve_name
from .._partial_labels import PartialLabels
from .._typing import Estimator, PathLike
from ._card import check_metrics, make_card
from ._describe import (
    PRIVATE,
    describe_training,
    describe_versions,
    plain_parameters,
    read_parameter,
)

_CARD, _CONFIG, _WEIGHTS = "README.md", "config.json", "model.safetensors"
_FORMAT = 1


def save_pretrained(
    clf: Estimator,
    folder: PathLike,
    *,
    annotator: Estimator = None,
    labels: PartialLabels | None = None,
    metrics: Mapping[str, float] | None = None,
    dataset: str | None = None,
    license: str | None = None,
    name: str | None = None,
) -> None:
    """Write a fitted classifier as a folder with a model card, ready for a model hub.

    The folder has ``model.safetensors`` (the weights), ``config.json`` (classes, network, input
    shape, normalisation, parameters, versions and the training) and ``README.md`` (the card, with
    a header that the Hugging Face Hub reads).

    Parameters
    ----------
    clf : classifier
        A fitted :class:`~sklearn_npll.CoRegClassifier`, or one of the
        :mod:`~sklearn_npll.baselines` that train networks, whose network has a name.
    folder : str or path-like
        The folder; it is made if missing, and must not have a card yet.
    annotator : annotator, default=None
        What made the labels: its model, templates and rule are written down.
    labels : PartialLabels, default=None
        What `clf` was trained on: the figures of its ``summary`` are written down.
    metrics : dict of str to float, default=None
        Results to report, such as ``{"accuracy": 0.78}``.
    dataset : str, default=None
        Name of the data that `metrics` were measured on; needed with them.
    license : str, default=None
        The Hub's name of the licence of the weights, such as "mit".
    name : str, default=None
        Name of the model in the card; by default that of the folder.

    Raises
    ------
    TypeError
        If `clf` is no such classifier, or its network is a module of your own, which is code.
    ValueError
        If a metric is no number, or the name of the data is missing.
    FileExistsError
        If the folder has a card, which may have been written by hand.
    sklearn.exceptions.NotFittedError
        If `clf` is not fitted.

    See Also
    --------
    load_pretrained : Reads the folder.

    Notes
    -----
    What describes the training samples, such as ``transduction_`` and ``history_``, is not
    written, and neither are folders, devices, callbacks and other matters of one machine.
    Parameters that are objects or functions, such as a detector, are named in
    ``omitted_parameters`` and are at their defaults after loading. They serve the training only.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn.datasets import make_blobs
    >>> from sklearn_npll import CoRegClassifier
    >>> from sklearn_npll.hub import load_pretrained, save_pretrained
    >>> X, y = make_blobs(60, centers=3, random_state=0)
    >>> clf = CoRegClassifier(max_epochs=2, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_pretrained(clf, folder, license="mit", name="blobs")
    ...     print(sorted(os.listdir(folder)))
    ...     loaded = load_pretrained(folder)
    ['README.md', 'config.json', 'model.safetensors']
    >>> bool((loaded.predict_proba(X) == clf.predict_proba(X)).all())
    True
    """
    from safetensors.numpy import save

    _check_classifier(clf)
    metrics = check_metrics(metrics, dataset)
    folder = Path(folder)
    if (folder / _CARD).exists():
        raise FileExistsError(
            f"{folder / _CARD} exists, and may have been edited; delete it or take another folder."
        )
    state = clf.net_.__getstate__()
    config, weights = _config(clf, state), state["weights"]
    config["training"] = describe_training(clf, annotator, labels)
    config["versions"] = describe_versions()
    card = make_card(
        config,
        license=license,
        metrics=metrics,
        dataset=dataset,
        name=name or folder.resolve().name,
    )
    weights = {key: np.require(value, requirements="C") for key, value in weights.items()}
    content = {
        _WEIGHTS: save(weights, metadata={"format": "pt"}),
        _CONFIG: json.dumps(config, indent=1).encode(),
        _CARD: card.encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file_name, data in content.items():
        with atomic_write(folder / file_name) as file:
            file.write(data)


def load_pretrained(folder: PathLike, *, device: str = "auto") -> Estimator:
    """Read a classifier that `save_pretrained` wrote. No code in the folder is run.

    Parameters
    ----------
    folder : str or path-like
        The folder, such as one that ``huggingface_hub.snapshot_download`` returned.
    device : str, default="auto"
        Where it predicts: "auto" (CUDA if present), "cpu", "cuda", ...

    Returns
    -------
    clf : classifier
        It predicts what the saved one did, bit for bit on the same kind of device with the same
        version of torch. It can be fitted again, with what is left of the parameters.

    Raises
    ------
    FileNotFoundError
        If the folder misses the configuration or the weights.
    ValueError
        If the device cannot be used, or a file is damaged or was not written by
        `save_pretrained`.

    See Also
    --------
    save_pretrained : Writes the folder, and has an example.
    """
    folder, device = Path(folder), resolve_device(device)
    for file_name in (_CONFIG, _WEIGHTS):
        if not (folder / file_name).is_file():
            raise FileNotFoundError(
                f"{folder} has no {file_name}, so it is no folder of save_pretrained. To load a"
                " repository of a hub, download it first: huggingface_hub.snapshot_download."
            )
    try:
        return _load(folder, device)
    # readers of damaged files raise anything
    except Exception as error:
        raise ValueError(
            f"{folder} cannot be loaded as a classifier: {type(error).__name__}: {error}"
        ) from error


def _estimators():
    """Classes of classifiers that a folder may hold, by name."""
    from .. import CoRegClassifier, baselines

    classes = [CoRegClassifier, *(getattr(baselines, name) for name in baselines.__all__)]
    return {cls.__name__: cls for cls in classes if issubclass(cls, NeuralClassifier)}


def _check_classifier(clf):
    if isinstance(clf, Pipeline):
        raise TypeError(
            "save_pretrained writes classifiers, not pipelines: pass the last step, pipe[-1], and"
            " the annotator as annotator=pipe[0]."
        )
    if _estimators().get(type(clf).__name__) is not type(clf):
        raise TypeError(
            f"save_pretrained writes classifiers of sklearn_npll that train networks; got"
            f" {type(clf).__name__}. Others can be written by skops."
        )
    check_is_fitted(clf, "net_")


def _config(clf, state):
    parameters, omitted = plain_parameters(clf)
    statistics = {
        key: state["weights"][f"networks.0.{key}"].ravel().tolist() for key in ("mean", "scale")
    }
    network = state["network"]
    config = {
        "format": _FORMAT,
        "estimator": type(clf).__name__,
        "classes": clf.classes_.tolist(),
        "network": {
            # the name itself, should "auto" ever stand for another
            "module": resolve_name(network["module"], network["shape"]),
            "shape": list(network["shape"]),
            "n_networks": network["n_networks"],
        },
        "normalization": statistics,  # to be read; what counts is beside the weights
        "net": {key: state[key] for key in ("seed", "lr", "batch_size", "max_epochs", "precision")},
        "parameters": parameters,
        "omitted_parameters": omitted,
    }
    if hasattr(clf, "feature_names_in_"):
        config["feature_names"] = clf.feature_names_in_.tolist()
    return config


def _load(folder, device):
    from safetensors.numpy import load_file

    config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    if config["format"] != _FORMAT:
        raise ValueError(f"its format is {config['format']!r}, and this version reads {_FORMAT}")
    estimators, estimator = _estimators(), config["estimator"]
    if estimator not in estimators:
        hint = did_you_mean(estimator, list(estimators))
        raise ValueError(f"{estimator!r} is no classifier of sklearn_npll.{hint}")
    cls, parameters = estimators[estimator], config["parameters"]
    forbidden = sorted(set(parameters) & set(PRIVATE))
    if forbidden:
        raise ValueError(f"it sets {', '.join(forbidden)}, which save_pretrained never writes")
    clf = cls(**{name: read_parameter(value) for name, value in parameters.items()})
    clf.classes_ = np.array(config["classes"])
    clf.n_iter_ = config["training"]["epochs"]
    shape = tuple(config["network"]["shape"])
    if len(shape) == 3:
        clf.image_shape_ = (*shape[1:], shape[0])
    else:
        clf.image_shape_ = None
        (clf.n_features_in_,) = shape
        if "feature_names" in config:
            clf.feature_names_in_ = np.array(config["feature_names"], dtype=object)
    state = {
        **config["net"],
        "network": {**config["network"], "shape": shape, "n_classes": len(clf.classes_)},
        "weights": load_file(folder / _WEIGHTS),
        "device": device,
        "verbose": 0,
        "history": [],
    }
    net = cls._net_class.__new__(cls._net_class)
    net.__setstate__(state)
    clf.net_ = net
    return clf
