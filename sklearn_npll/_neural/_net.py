"""The training loop that all networks share: one epoch of a skorch net, and what surrounds it."""

import copy
import math
import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.history import History
from skorch.utils import get_map_location
from torch import nn

from .._device import GENERATOR_LOCK
from ._blocks import Losses, join_blocks
from ._checkpoint import map_tensors, plain_row
from ._networks import NetworkEnsemble
from ._processes import ALONE
from ._sparse_rows import SparseRows

MIN_LR_SHARE = 1e-3
_PLAIN = ("seed", "lr", "batch_size", "max_epochs", "device", "verbose")  # settings of a net
DIVERGED = "the training has diverged; lower `lr`, or see whether a view of your own returns NaN"


@dataclass
class TrainingData:
    """What a net trains on.

    Parameters
    ----------
    views : ImageViews or FeatureViews
        Gives plain, weak and strong views of rows.
    candidates : bool Tensor or SparseCandidates of shape (n, C)
    known : bool Tensor of shape (n,)
        Rows whose label a human vouched for.
    prior : Tensor of shape (C,), "estimated" or None
        Shares of the classes that predictions are aligned to.
    eval_views : ImageViews, FeatureViews or None
    eval_labels : int ndarray or None
        Class indices of the evaluation rows.
    scores : Tensor or SoftLabels of shape (n, C), or None
        The annotator's probabilities.
    evidence : Tensor or MappedRows of shape (n, C), or None
        What predictions of the rows are multiplied by for the annotator's scores.
    clean : Tensor of shape (n,) or None
        Clean probabilities of the rows, where they are settled before the training.
    """

    views: object
    candidates: torch.Tensor
    known: torch.Tensor
    prior: object = None
    eval_views: object = None
    eval_labels: object = None
    scores: object = None
    evidence: object = None
    clean: object = None

    def __len__(self):
        return len(self.candidates)

    @property
    def annotation(self):
        """What the annotator has said of the rows."""
        return self.candidates, self.known, self.scores, self.evidence

    @property
    def is_sparse(self):
        """Whether no matrix (n, C) may be made of these rows."""
        return isinstance(self.candidates, SparseRows)


def cosine_factor(epoch, max_epochs):
    """Share of the learning rate in an epoch, from 0: a cosine from 1 towards `MIN_LR_SHARE`."""
    progress = epoch / max_epochs
    return MIN_LR_SHARE + (1 - MIN_LR_SHARE) * (1 + math.cos(math.pi * progress)) / 2


def even_chunks(rows, batch_size):
    """Split rows into ceil(n / batch_size) chunks of nearly equal size, none of a single row.

    Batch normalisation cannot be trained on one row.
    """
    n_chunks = min(math.ceil(len(rows) / batch_size), len(rows) // 2)
    return rows.tensor_split(max(1, n_chunks))


def endless_batches(rows, batch_size):
    """Yield batches from ever new permutations of the rows."""
    while True:
        yield from even_chunks(rows[torch.randperm(len(rows), device=rows.device)], batch_size)


def mix_up(inputs, target, alpha):
    """Mix rows with a permutation of them, by one factor l = max(b, 1 - b), b ~ Beta(alpha, alpha).

    Returns
    -------
    inputs, other_target : Tensors
        Mixed inputs, and the targets of the permuted rows.
    share : float
        l, the share of each row's own target.
    """
    share = torch.distributions.Beta(alpha, alpha, validate_args=False).sample().item()
    share = max(share, 1 - share)
    order = torch.randperm(len(inputs), device=inputs.device)
    return inputs.index_select(0, order).lerp_(inputs, share), target.index_select(0, order), share


class ProgressLine(Callback):
    """Prints a line an epoch if the net is verbose."""

    def on_epoch_end(self, net, **kwargs):
        """Print the line of the epoch."""
        if net.verbose:
            print(progress_line(net.history[-1], net.max_epochs), flush=True)


def progress_line(row, max_epochs):
    """Describe one row of the history in a line, with what it has."""
    row = dict(row)
    losses = [row.get(f"loss_{name}") for name in ("partial", "warm_up", "train")]
    row["loss"] = next((loss for loss in losses if loss is not None), None)
    figures = [
        ("loss", "loss", "7.4f"),
        ("partial", "partial_share", "6.1%"),
        ("changed", "label_change_rate", "6.1%"),
        ("covering", "covering_rate", "6.1%"),
        ("eval", "eval_accuracy", "6.1%"),
        ("lr", "lr", ".5f"),
    ]
    shown = [
        f"{name} {row[key]:{style}}" for name, key, style in figures if row.get(key) is not None
    ]
    epoch = f"epoch {row['epoch']:{len(str(max_epochs))}d}/{max_epochs}"
    return "  ".join([epoch, f"{row['phase']:18}", *shown, f"{row['seconds']:.1f} s"])


class EpochNet(NeuralNet):
    """skorch net that trains a `NetworkEnsemble`; a method of learning is a subclass.

    Each call of `run_single_epoch` is one epoch of the method: `train_epoch`, then the records. All
    randomness comes from torch's global generator, seeded from `seed` and the epoch, so that an
    epoch depends on nothing but the state before it.

    Parameters
    ----------
    module : class
        `NetworkEnsemble`.
    method : SimpleNamespace
        Parameters of the method, under the names of its classifier.
    seed : int
    processes : Processes
        With whom it trains.
    **kwargs
        Parameters of `skorch.NeuralNet`.
    """

    #: Names of the losses whose means are recorded.
    terms = ("train",)

    def __init__(self, module, *, method, seed, processes=ALONE, **kwargs):
        # the losses are functions that differ between phases, so the criterion is never called
        super().__init__(module, criterion=nn.Identity, **kwargs)
        self.method = method
        self.seed = seed
        self.processes = processes

    # -- what a method defines -----------------------------------------------------------------

    def train_epoch(self, data):
        """Train for one epoch, with `forward` and `descend`."""
        raise NotImplementedError

    def final_labels(self, data):
        """Return attributes of the classifier that describe the training rows.

        Returns
        -------
        dict
            ``label_distributions_`` (n, C) and what else the method knows, as tensors.
        """
        raise NotImplementedError

    def method_state(self):
        """Return the state of the method that `load_method_state` restores."""
        return {}

    def load_method_state(self, state, data):
        """Restore what `method_state` returned."""

    @staticmethod
    def forget_rows(state):
        """Return a method's state without what it remembers of the training rows."""
        return state

    # -- skorch's hooks ------------------------------------------------------------------------

    @property
    def _default_callbacks(self):
        return [("progress_line", ProgressLine())]

    def initialize(self):
        """Make the module and the optimiser."""
        super().initialize()
        self.share_work(self.processes)
        self.stopped_ = False
        self.terms_, self.gradient_samples_ = {}, 0
        return self

    def share_work(self, processes):
        """Let the networks share the rows of batches out among processes."""
        self.processes = processes
        for network in self.networks_:
            network.processes = processes

    def get_dataset(self, X, y=None):
        """Return the training data as they are."""
        return X

    def get_iterator(self, dataset, training=False):
        """Return the training data as they are: an epoch draws its own batches."""
        return dataset

    def notify(self, method_name, **cb_kwargs):
        """Call a hook of every callback.

        A callback ends the training, as skorch's own do, by a KeyboardInterrupt at an epoch's end;
        at any other time that is the user's and goes through.
        """
        if method_name != "on_epoch_end":
            return super().notify(method_name, **cb_kwargs)
        try:
            super().notify(method_name, **cb_kwargs)
        except KeyboardInterrupt:
            self.stopped_ = True
        self.stopped_ = self.processes.from_main(self.stopped_)

    def on_epoch_begin(self, net, **kwargs):
        """Seed the epoch and set its learning rate, before any callback."""
        super().on_epoch_begin(net, **kwargs)
        torch.manual_seed(self.seed + self.epoch_)
        for group in self.optimizer_.param_groups:
            group["lr"] = self.lr * cosine_factor(self.epoch_, self.max_epochs)

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run one epoch and record it in the history."""
        if not training or iterator is None:
            return
        data, start = iterator, time.perf_counter()
        self.terms_, self.gradient_samples_ = {}, 0
        self.train_epoch(data)
        for name in self.terms:
            values = self.terms_.get(name)
            mean = values[:].mean().item() if values else None
            if mean is not None and not math.isfinite(mean):
                raise ValueError(f"the loss of epoch {self.epoch_ + 1} is {mean}: {DIVERGED}")
            self.history.record(f"loss_{name}", mean)
        self.history.record("gradient_samples", self.gradient_samples_)
        if data.eval_views is not None:
            self._record_evaluation(data)
        self._check_together()
        self.history.record("lr", self.optimizer_.param_groups[0]["lr"])
        self.history.record("seconds", time.perf_counter() - start)
        # batches would pile up over a long training, but callbacks look at the last
        del self.history[-1]["batches"][:-1]

    # -- parts of an epoch ---------------------------------------------------------------------

    @property
    def epoch_(self):
        """Index of the current epoch, from 0."""
        return len(self.history) - 1

    @property
    def networks_(self):
        """The networks."""
        return self.module_.networks

    def autocast(self):
        """Return the context of forward passes: mixed precision if it is asked for."""
        device = torch.device(self.device).type
        return torch.autocast(device, torch.bfloat16, enabled=self.method.precision == "bf16")

    def embed(self, k, inputs):
        """Return embeddings of a batch that network k is trained on, and count its rows."""
        self.gradient_samples_ += len(inputs)
        with self.autocast():
            return self.networks_[k].embed(inputs)

    def classify(self, k, embedding):
        """Return network k's logits (n, C) of embeddings."""
        with self.autocast():
            return self.networks_[k].classifier(embedding).float()

    def project(self, network, embedding):
        """Return a network's L2-normalised projections of embeddings."""
        with self.autocast():
            return network.project(embedding)

    def collect(self, **terms):
        """Note losses of a batch for the history."""
        for name, value in terms.items():
            value = value.detach()
            self.terms_.setdefault(name, Losses(value)).append(value)

    def descend(self, loss, batch):
        """Make one gradient step, with skorch's hooks around it."""
        self.history.new_batch()
        self.notify("on_batch_begin", batch=batch, training=True)
        self.optimizer_.zero_grad(set_to_none=True)
        loss.backward()
        self.processes.average_gradients(self.module_.parameters())
        self.notify(
            "on_grad_computed",
            named_parameters=self.module_.named_parameters(),
            batch=batch,
            training=True,
        )
        # parameters of the other network have no gradient, so the optimiser leaves them alone
        self.optimizer_.step()
        self.notify("on_batch_end", batch=batch, training=True)

    def predict_blocks(self, k, view, n):
        """Predict n rows with network k, or the ensemble if k is None, a block after another.

        Parameters
        ----------
        k : int or None
        view : callable
            Maps row indices to a batch of inputs.
        n : int

        Yields
        ------
        rows : int Tensor of shape (m,)
        proba : Tensor of shape (m, C)
            Their probabilities.
        """
        model = (self.module_ if k is None else self.networks_[k]).eval()
        for batch in torch.arange(n, device=self.device).split(max(256, 2 * self.batch_size)):
            with torch.inference_mode():  # not around the yield, where others compute
                inputs = view(batch)
                with self.autocast():
                    proba = model(inputs).float().softmax(1)
            if not proba.isfinite().all():
                raise ValueError(f"the network predicts NaN: {DIVERGED}")
            yield batch, proba

    def predict_views(self, k, view, n):
        """Predict n rows as `predict_blocks` does, and return them together.

        Parameters
        ----------
        k : int or None
        view : callable
            Maps row indices to a batch of inputs.
        n : int

        Returns
        -------
        Tensor of shape (n, C)
            Probabilities.
        """
        return join_blocks(n, self.predict_blocks(k, view, n))

    def _record_evaluation(self, data):
        """Record the accuracy on the evaluation set, of the ensemble and of the first network."""
        n, view = len(data.eval_labels), data.eval_views.plain
        truth = torch.as_tensor(data.eval_labels, device=self.device)
        names = ["eval_accuracy", "eval_accuracy_single"][: len(self.networks_)]
        hits = torch.empty(n, len(names), device=self.device)
        for blocks in zip(*(self.predict_blocks(k, view, n) for k in range(len(self.networks_)))):
            rows, logits = blocks[0][0], [proba.log() for _, proba in blocks]
            for column, score in zip(range(len(names)), (sum(logits), logits[0])):
                hits[rows, column] = (score.argmax(1) == truth[rows]).float()
        for name, column in zip(names, hits.T):
            self.history.record(name, column.contiguous().mean().item())

    def _check_together(self):
        """Check that all processes have the same weights, statistics and memory."""
        if self.processes.size > 1:
            tensors = []
            map_tensors(tensors.append, [self.module_.state_dict(), self.method_state()])
            self.processes.check_together(tensors, self.device)

    # -- interruption and the end --------------------------------------------------------------

    def training_state(self):
        """Return everything the next epoch depends on, as tensors, lists and numbers."""
        return {
            "module": self.module_.state_dict(),
            "optimizer": self.optimizer_.state_dict(),
            "history": [plain_row(row) for row in self.history],
            "method": self.method_state(),
        }

    def load_training_state(self, state, data):
        """Continue from what `training_state` returned, which stays as it is."""
        # copies, as momentum, prototypes and queues are changed in place
        state = map_tensors(lambda t: torch.as_tensor(t).to(self.device, copy=True), state)
        self.module_.load_state_dict(state["module"])
        # the momentum buffers of then, the settings of now
        momentum = state["optimizer"]["state"]
        self.optimizer_.load_state_dict({**self.optimizer_.state_dict(), "state": momentum})
        self.history.clear()
        self.history.extend(state["history"])
        self.load_method_state(state["method"], data)

    def forget_training(self):
        """Drop what only the training needs, so that a pickle holds what predicts."""
        self.terms_ = self.optimizer_ = None
        self.module__init = self.callbacks = None
        if not isinstance(self.module__module, str):
            self.module__module = None
        self.callbacks_ = []
        self.method = SimpleNamespace(precision=self.method.precision)
        self.share_work(ALONE)
        for network in self.networks_:
            network.projector = None

    def __reduce_ex__(self, protocol):
        if getattr(self, "optimizer_", None) is not None:  # a callback of skorch's pickles it
            return _restore, (NeuralNet.__setstate__, type(self), super().__getstate__())
        if not isinstance(self.module__module, str):
            on_cpu = torch.device(self.device).type == "cpu"
            module = self.module_ if on_cpu else copy.deepcopy(self.module_).cpu()
            return _restore, (EpochNet._set_module, type(self), self._plain_state(), module)
        return super().__reduce_ex__(protocol)

    def __getstate__(self):
        """Return what predicts as arrays and plain values, in which skops sees all there is."""
        if not isinstance(self.module__module, str):
            raise TypeError(
                "only networks that have a name can be written without pickle, and this one is a "
                "module of your own; pickle the classifier, or export it with export_onnx"
            )
        names = ("module", "shape", "n_classes", "n_networks")
        return {
            **self._plain_state(),
            "network": {name: getattr(self, f"module__{name}") for name in names},
            "weights": {k: value.cpu().numpy() for k, value in self.module_.state_dict().items()},
        }

    def __setstate__(self, state):
        weights = {k: torch.from_numpy(np.array(v)) for k, v in state["weights"].items()}
        statistics = {name: weights[f"networks.0.{name}"] for name in ("mean", "scale")}
        # the weights are drawn before they are loaded
        with GENERATOR_LOCK, torch.random.fork_rng([]):
            module = NetworkEnsemble(**state["network"], **statistics, projection_dim=None)
        module.load_state_dict(weights)
        self._set_module(state, module)
        vars(self).update({f"module__{name}": value for name, value in state["network"].items()})

    def _plain_state(self):
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "precision": self.method.precision,
            "history": [plain_row(row) for row in self.history],
        }

    def _set_module(self, state, module):
        """Become a trained net."""
        settings = {name: state[name] for name in _PLAIN}
        settings["device"] = str(get_map_location(state["device"]))
        settings["method"] = SimpleNamespace(precision=state["precision"])
        self.__init__(NetworkEnsemble, module__module=None, train_split=None, **settings)
        # past skorch, which takes a module for one to be trained
        vars(self).update(module_=module.to(self.device), initialized_=True)
        self.history = History(state["history"])
        self.terms_ = self.optimizer_ = None
        self.callbacks_ = []


def _restore(set_state, cls, *state):
    """Make a net that holds what only pickle can write."""
    net = cls.__new__(cls)
    set_state(net, *state)
    return net
