"""What every classifier that trains networks shares, whatever its method."""

import copy
import os
import warnings
from dataclasses import field
from numbers import Integral, Number, Real
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._compat import Interval, StrOptions, TagsMixin, fit_context
from .._device import GENERATOR_LOCK
from .._evidence import largest_columns
from .._files import make_folder
from .._inputs import check_problem, encode_target
from .._scoring import ScoreMixin
from .._typing import Array, MatrixLike, Samples, Self
from .._unnamed import warn_of_unnamed
from ._blocks import join_blocks
from ._checkpoint import fingerprint, load_checkpoint, map_tensors, save_checkpoint
from ._deployment import DeploymentMixin
from ._docs import learner
from ._net import TrainingData
from ._networks import NetworkEnsemble, load_weights
from ._processes import join_processes
from ._samples import SamplesMixin, input_statistics
from ._sparse_rows import SparseCandidates

# Parameters that do not change the result of a fit, so a checkpoint is valid without them.
_NO_EFFECT = (
    "verbose", "checkpoint_dir", "checkpoint_every", "deploy", "warm_start", "accelerator"
)  # fmt: skip
# Parameters that may differ between the processes of a fit: what the main one writes, what it hands
# to the others.
_OF_ONE_PROCESS = ("verbose", "checkpoint_dir", "init", "random_state")


@learner
class NeuralClassifier(
    TagsMixin, SamplesMixin, DeploymentMixin, ScoreMixin, ClassifierMixin, BaseEstimator
):
    """Base of the classifiers that train networks.

    A subclass names its net and, if it has more than one network, their number.

    Parameters
    ----------
    {shared_parameters}
    """

    _parameter_constraints = {
        "module": [str, nn.Module, callable],
        "init": [dict, str, os.PathLike, None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left"), StrOptions({"auto"})],
        "lr": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "image_size": [tuple, list, None],
        "flip": ["boolean"],
        "cutout": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "strong_operations": ["boolean", StrOptions({"auto"})],
        "weak_noise": [Interval(Real, 0, None, closed="left")],
        "strong_noise": [Interval(Real, 0, None, closed="left")],
        "feature_dropout": [Interval(Real, 0, 1, closed="left")],
        "weak_transform": [callable, None],
        "strong_transform": [callable, None],
        "early_stopping": [
            StrOptions({"covering_rate", "approximated_accuracy", "accuracy"}),
            None,
        ],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "checkpoint_dir": [str, os.PathLike, None],
        "checkpoint_every": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "callbacks": [list, None],
        "device": [str],
        "precision": [StrOptions({"bf16", "fp32"})],
        "accelerator": [StrOptions({"auto"}), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }
    _net_class: ClassVar[Any] = None
    _n_networks: ClassVar[int] = 1
    #: Rows that a sample costs in an epoch: views that are trained on, in all networks.
    _samples_per_row: ClassVar[int | None] = 1
    #: Settings of the net that are no parameters of the method.
    _fixed: ClassVar[dict[str, object]] = {}

    module: object = field(default="auto", kw_only=False)
    init: object = None
    max_epochs: int = 50
    batch_size: object = "auto"
    lr: object = "auto"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    image_size: object = None
    flip: bool = True
    cutout: object = "auto"
    strong_operations: object = "auto"
    weak_noise: float = 0.05
    strong_noise: float = 0.15
    feature_dropout: float = 0.1
    weak_transform: object = None
    strong_transform: object = None
    early_stopping: object = None
    patience: int = 10
    checkpoint_dir: object = None
    checkpoint_every: int = 5
    warm_start: bool = False
    callbacks: object = None
    device: str = "auto"
    precision: str = "fp32"
    accelerator: str | None = None
    random_state: object = None
    verbose: int = 0

    def gradient_samples_per_epoch(self, n_samples: int) -> int | None:
        """Return how many rows an epoch passes forward to train on.

        Parameters
        ----------
        n_samples : int

        Returns
        -------
        int or None
            None where that depends on the training.
        """
        return self._samples_per_row and n_samples * self._samples_per_row

    # -- fitting -------------------------------------------------------------------------------

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Samples,
        y: MatrixLike | None = None,
        *,
        eval_set: tuple[Samples, ArrayLike] | None = None,
    ) -> Self:
        """Learn from candidate labels.

        Parameters
        ----------
        X : PartialLabels, array-like of shape (n_samples, n_features), or images
            Samples: features, or images as an array (n_samples, H, W) or (n_samples, H, W,
            channels), a list of PIL images, paths or encoded bytes, or a dataset. A `PartialLabels`
            brings its own samples and candidates; `y` is then ignored, so that the true labels a
            search passes for scoring never train.
        y : PartialLabels, array-like of shape (n_samples, n_classes) or (n_samples,), default=None
            Candidates: an indicator matrix, dense or CSR, in which a row of ones means unlabelled,
            with the classes 0 to n_classes - 1; or one label a row, with -1 for unlabelled. Beside
            exactly one other number, -1 is no missing label but the negative class.
        eval_set : tuple (X, y), default=None
            Samples and true labels that are scored after each epoch.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If a row has no candidate, there are fewer than two classes or samples, lengths differ,
            values are missing or beyond 1e30, or options do not suit the data.

        Warns
        -----
        UnnamedClassWarning
            If the annotator never or hardly ever prefers a class, which then is hardly learned.
        """
        problem = self._check_problem(X, y)
        data = self._check_samples(problem.data, reset=True)
        self.__dict__.pop("net_", None)  # not to predict with it should this fit be interrupted
        self.classes_ = problem.classes
        self._check_options(eval_set)
        warn_of_unnamed(problem, corrected=getattr(self, "doubly_robust", False))
        processes, device = join_processes(self.accelerator, self.device, self.precision)
        training = self._make_training(problem, self._make_views(data, device), device)
        eval_data = None
        if eval_set is not None:
            eval_data, training.eval_labels = self._check_eval_set(eval_set)
            training.eval_views = self._make_views(eval_data, device)

        seed = processes.from_main(check_random_state(self.random_state).randint(2**31 - 1))
        cuda = [torch.device(device)] if torch.device(device).type == "cuda" else []
        with GENERATOR_LOCK, torch.random.fork_rng(cuda):
            torch.manual_seed(seed)
            self._train(data, training, eval_data, seed, device, processes)
        return self

    def _check_problem(self, X, y):
        """Check X and y; a method changes here what it learns from."""
        return check_problem(X, y)

    def _settings(self, training):
        """Return what the net reads: the parameters, and settings that are none."""
        return {**self._fixed, **self.get_params(deep=False)}

    def _make_training(self, problem, views, device):
        """Put a checked problem on the device; a method adds here what it needs."""
        candidates = problem.candidates
        if issparse(candidates):
            candidates = SparseCandidates.from_scipy(candidates, device)
        else:
            candidates = torch.from_numpy(candidates).to(device)
        return TrainingData(
            views=views,
            candidates=candidates,
            known=torch.from_numpy(problem.known).to(device),
        )

    def _check_options(self, eval_set):
        if self.early_stopping == "accuracy" and eval_set is None:
            raise ValueError("early_stopping='accuracy' needs fit(..., eval_set=(X, y))")
        if self.checkpoint_dir is not None and self.random_state is None:
            raise ValueError(
                "checkpoint_dir needs a random_state, best an int: without a seed no later fit is "
                "the same as the interrupted one"
            )

    def _train(self, data, training, eval_data, seed, device, processes):
        net = self._make_net(data, training, seed, device, processes)
        if processes.size > 1:
            processes.check_same(self._facts(net, data, training, eval_data))
            if training.clean is not None:  # by a detector, which need not be seeded
                processes.broadcast([training.clean])
        data_key = None
        if self.warm_start or self.checkpoint_dir is not None:
            data_key = fingerprint(data, *training.annotation, training.clean)
        previous = self._previous_state(data_key)
        checkpoint = state = unsaved = None
        if self.checkpoint_dir is not None:
            processes.on_main(make_folder, self.checkpoint_dir)
            eval_key = fingerprint(eval_data, training.eval_labels)
            key = self._checkpoint_key(data_key, training.prior, eval_key, seed, previous)
            checkpoint = Path(self.checkpoint_dir, f"{type(self).__name__}-{key}.pt")
            # other hosts need see neither the file nor the devices it was saved from
            state = load_checkpoint(checkpoint) if processes.is_main else None
            state = processes.from_main(state)
        if state is not None:
            net.load_training_state(state, training)
        elif previous is not None:
            self._continue(net, previous, training)
        # a module of the user's may have been made with other random numbers in each process
        processes.broadcast(net.module_.state_dict().values())

        net.notify("on_train_begin", X=training, y=None)
        while not self._is_finished(net):
            net.fit_loop(training, epochs=1)
            done = len(net.history)
            if checkpoint and (done % self.checkpoint_every == 0 or self._is_finished(net)):
                unsaved = processes.on_main(self._save_checkpoint, net, checkpoint, unsaved)
        net.notify("on_train_end", X=training, y=None)

        self.history_ = [{k: v for k, v in row.items() if k != "batches"} for row in net.history]
        self.n_iter_ = len(self.history_)
        vars(self).pop("training_state_", None)
        if self.warm_start:
            self.training_state_ = {
                **map_tensors(lambda t: t.detach().cpu().numpy().copy(), net.training_state()),
                "classes": self.classes_.tolist(),
                "data": data_key,
            }
        self._record_labels(net, training)
        net.forget_training()
        self.net_ = net

    def _save_checkpoint(self, net, checkpoint, unsaved):
        """Save the training state if possible; why not is said once, and returned."""
        error = save_checkpoint(net.training_state(), checkpoint)
        if error is not None and unsaved is None:
            warnings.warn(
                f"the checkpoint {checkpoint} cannot be written ({error}); the training goes on, "
                "and tries again at the next one. Give checkpoint_dir a folder that can be written "
                "to, on a disk that has room",
                UserWarning,
                stacklevel=6,  # the caller of fit
            )
        return unsaved or error

    def _is_finished(self, net):
        done = len(net.history)
        return done >= self.max_epochs or net.stopped_ or self._out_of_patience(net.history)

    def _previous_state(self, data_key):
        """Return what the last fit left for a warm start; of other rows nothing is remembered."""
        state = getattr(self, "training_state_", None) if self.warm_start else None
        if state is None:
            return None
        if state["classes"] != self.classes_.tolist():
            raise ValueError(
                f"warm_start=True needs the classes of the last fit, {state['classes']}; these are "
                f"{self.classes_.tolist()}"
            )
        if state["data"] != data_key:
            state = {**state, "method": self._net_class.forget_rows(state["method"])}
        return state

    def _continue(self, net, previous, training):
        """Load what the last fit left."""
        try:
            net.load_training_state(previous, training)
        except RuntimeError as error:
            raise ValueError(
                "warm_start=True cannot go on, as the network or the shape of the samples is not "
                f"that of the last fit; set warm_start=False to start anew: {error}"
            ) from error
        if self._is_finished(net):
            warnings.warn(
                f"warm_start has nothing to do: {len(net.history)} epochs are done, max_epochs is "
                f"{self.max_epochs} and early_stopping is {self.early_stopping!r}",
                UserWarning,
                stacklevel=5,  # the caller of fit
            )

    def _facts(self, net, data, training, eval_data):
        """Return what has to be the same in all processes, by name."""
        from .. import __version__

        device = torch.device(net.device)
        previous = getattr(self, "training_state_", None) if self.warm_start else None
        params = {
            f"the parameter {name!r}": value
            for name, value in self.get_params(deep=False).items()
            if name not in _OF_ONE_PROCESS and (value is None or isinstance(value, (Number, str)))
        }
        return {
            "the checksum of X": fingerprint(data),
            "the checksum of the labels": fingerprint(
                self.classes_, *training.annotation, training.prior
            ),
            "the checksum of the eval_set": fingerprint(eval_data, training.eval_labels),
            **params,
            "whether there is a checkpoint_dir": self.checkpoint_dir is not None,
            "the shape of the weights": [tuple(p.shape) for p in net.module_.parameters()],
            "the number of epochs done": 0 if previous is None else len(previous["history"]),
            "the version of torch and sklearn_npll": (torch.__version__, __version__),
            # different GPUs draw different random numbers
            "the kind of device": (
                torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
            ),
        }

    def _make_net(self, data, training, seed, device, processes):
        on_images, n = self.image_shape_ is not None, len(data)
        batch_size, lr = self.batch_size, self.lr
        if batch_size == "auto":
            batch_size = max(8, min(64, n // 32) if on_images else min(256, n // 16))
        if lr == "auto":
            lr = 0.05 if on_images else 0.02
        mean, scale, shape = input_statistics(data)
        method = SimpleNamespace(**self._settings(training))
        net = self._net_class(
            NetworkEnsemble,
            method=method,
            seed=seed,
            processes=processes,
            module__module=self.module,
            module__shape=shape,
            module__n_classes=len(self.classes_),
            module__mean=mean,
            module__scale=scale,
            module__projection_dim=getattr(self, "projection_dim", None),
            module__n_networks=self._n_networks,
            module__init=self.init,
            optimizer=torch.optim.SGD,
            optimizer__momentum=self.momentum,
            optimizer__weight_decay=self.weight_decay,
            lr=lr,
            batch_size=batch_size,
            max_epochs=self.max_epochs,
            train_split=None,
            callbacks=copy.deepcopy(self.callbacks),
            device=device,
            verbose=int(self.verbose) if processes.is_main else 0,
        )
        return net.initialize()

    def _record_labels(self, net, training):
        for name, value in net.final_labels(training).items():
            setattr(self, name, value.cpu().numpy() if torch.is_tensor(value) else value)
        self.transduction_ = self.classes_[largest_columns(self.label_distributions_)]

    def _out_of_patience(self, history):
        if self.early_stopping is None:
            return False
        name = "eval_accuracy" if self.early_stopping == "accuracy" else self.early_stopping
        # a fit before a warm start may have recorded none
        rows = [row for row in history if row["phase"] != "warm_up"]
        scores = [row[name] for row in rows if row.get(name) is not None]
        return len(scores) > self.patience and int(np.argmax(scores)) < len(scores) - self.patience

    def _checkpoint_key(self, data_key, prior, eval_key, seed, previous):
        """Return a name for the training that nothing but the same training has."""
        from .. import __version__

        params = {k: v for k, v in self.get_params(deep=False).items() if k not in _NO_EFFECT}
        params.update(prior=prior, random_state=seed)
        if self.init is not None:
            params["init"] = load_weights(self.init)
        start = previous and [previous["module"], len(previous["history"])]
        return fingerprint(__version__, params, data_key, eval_key, start)

    def _check_eval_set(self, eval_set):
        """Return samples and class indices."""
        if not (isinstance(eval_set, tuple) and len(eval_set) == 2):
            raise ValueError("eval_set must be a tuple (X, y)")
        X, y = eval_set
        data = self._check_samples(X, reset=False)
        return data, encode_target(y, self.classes_, len(data), "eval_set")

    # -- prediction ----------------------------------------------------------------------------

    def predict_proba(self, X: Samples) -> Array:
        """Predict class probabilities: the softmax of the networks' summed logits.

        Parameters
        ----------
        X : PartialLabels, array-like of shape (n_samples, n_features), or images
            Samples as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of `classes_`.
        """
        return self._predict_rows(X, lambda proba: proba).cpu().numpy()

    def predict(self, X: Samples) -> Array:
        """Predict the most probable class.

        Parameters
        ----------
        X : PartialLabels, array-like of shape (n_samples, n_features), or images
            Samples as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Names of classes.
        """
        codes = self._predict_rows(X, lambda proba: proba.argmax(1))
        return self.classes_[codes.cpu().numpy()]

    def _predict_rows(self, X, function):
        """Return what a function finds in the probabilities of samples, given block by block."""
        check_is_fitted(self, "net_")
        k = 0 if self._is_single() else None
        data = self._check_samples(X, reset=False)
        views = self._make_views(data, self.net_.device)

        def blocks():
            for rows, proba in self.net_.predict_blocks(k, views.plain, len(data)):
                proba = proba.double()
                yield rows, function(proba / proba.sum(1, keepdim=True))

        return join_blocks(len(data), blocks())

    def _is_single(self):
        return False

    def _tag_values(self):
        return {"non_deterministic": False, "input_tags.allow_nan": False}
