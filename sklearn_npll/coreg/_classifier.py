"""Co-Reg as a scikit-learn classifier."""

import copy
import inspect
import os
import threading
import warnings
from numbers import Integral, Real
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._compat import Interval, StrOptions, TagsMixin, fit_context, validate_data
from .._images import as_image_array, is_image_data, read_images
from .._partial_labels import PartialLabels
from ..model_selection import approximated_accuracy_scorer, covering_rate_scorer
from ._checkpoint import fingerprint, load_checkpoint, map_tensors, save_checkpoint
from ._inputs import as_labels, check_problem, encode_target, is_unlabelled
from ._net import CoRegNet, TrainingData
from ._networks import CoRegModule, DeployedNetwork, load_weights
from ._views import FeatureViews, ImageViews

# Parameters that do not change the result of a fit, so a checkpoint is valid without them.
_NO_EFFECT = ("verbose", "checkpoint_dir", "checkpoint_every", "deploy", "warm_start")
MAX_IMAGE_SIZE = 64
# All threads draw from the same torch generator.
_ONE_FIT_AT_A_TIME = threading.RLock()


class CoRegClassifier(TagsMixin, ClassifierMixin, BaseEstimator):
    """Classifier that learns from candidate labels, of which some miss the true label.

    Co-Reg trains two networks. After a warm-up on the candidates, each network divides the data in
    every epoch into samples whose candidates it believes and samples whose candidates it does not,
    and gives the other network targets purified accordingly. Prototypes and a contrastive loss
    that tolerates wrong pseudo-labels shape the representation.

    Parameters
    ----------
    module : str, nn.Module or callable, default="auto"
        The network, made twice: "auto" (an MLP for features, a small strided ResNet for images of
        up to 64 pixels, timm's ResNet-18 above), "mlp", "resnet8", "resnet8_strided",
        "preact_resnet18" (the paper's), "wrn_28_2", the name of any timm model, an `nn.Module` that
        is copied, or a class or function called with those of ``n_features``, ``in_channels``,
        ``image_size`` and ``n_classes`` that it accepts. A module of your own maps a batch to
        logits, and its last `nn.Linear` has as many outputs as there are classes.
    init : dict, str, path or None, default=None
        State dict of the network, or a file with one, that both networks start from.
    max_epochs : int, default=50
        Epochs, the warm-up included. The paper takes 100 to 800.
    warm_up : int, default=10
        Epochs in which each network learns from the candidates alone (Eq. 1-3). The paper takes 50.
    batch_size : int or "auto", default="auto"
        Rows of each split in a gradient step. "auto" is a sixteenth of the rows, from 8 to 256; the
        paper takes 256.
    lr : float, default=0.01
        Learning rate of the first epoch; it falls along a cosine to a thousandth.
    momentum : float, default=0.9
        Momentum of the stochastic gradient descent.
    weight_decay : float, default=5e-4
        L2 penalty.
    prior : {"uniform", "annotator", "estimated"}, array-like of shape (n_classes,) or None, \
default="uniform"
        Class shares that the predictions are aligned to before the division: equal shares, the mean
        of the annotator's scores, the mean of the predictions restricted to the candidates, given
        shares, or no alignment. Equal shares are wrong for imbalanced classes.
    loss_window : int, default=5
        Epochs over which division losses (and the mean prediction of the alignment) are averaged;
        1 as the paper writes it.
    clean_threshold : float, default=0.5
        Clean probability above which a sample joins the partial split.
    co_labelling : {"peer", "own"}, default="peer"
        Whose division trains a network: the other's, or its own (an ablation).
    n_weak_views : int, default=2
        Weak views whose predictions are averaged in the targets (Eq. 6).
    temperature : float, default=0.5
        Sharpening temperature (Eq. 7).
    use_unlabelled : bool, default=True
        Whether samples outside the partial split are trained on, without their candidates.
    unlabelled_loss : {"release", "paper"}, default="release"
        Squared error of Eq. 8: its mean over classes, ramped up over 16 epochs, as the authors
        released it; or its sum over classes, as the paper writes it.
    unlabelled_weight : float, default=1.0
        Weight of that term.
    mixup_alpha : float or None, default=4.0
        Parameter of the Beta distribution of MixUp; None for no MixUp.
    prototype_weight : float, default=0.1
        Weight of the prototype alignment (Eq. 9-10); 0 for none.
    prototype_momentum : float, default=0.999
        Share of a prototype that a sample leaves in place.
    prototype_temperature : float, default=0.3
        Temperature of the similarities to the prototypes.
    prototype_views : {"mixed", "strong"}, default="mixed"
        What is aligned: the mixed strong views, as released, or the plain strong view.
    contrastive : {"noise_tolerant", "supcon", "moco", "none"}, default="noise_tolerant"
        Contrastive loss (Eq. 11): pairs with the same pseudo-label attract when both are in the
        partial split; always; never; or no such loss.
    contrastive_weight : float, default=0.1
        Weight of that loss.
    contrastive_temperature : float, default=0.07
        Its temperature.
    contrastive_start : int, default=10
        Epochs after the warm-up at which the prototype and contrastive losses set in.
    queue_size : int, default=8192
        Keys that are remembered for the contrastive loss, at most one a sample.
    key_momentum : float, default=0.999
        Share of the key encoder that a step leaves in place.
    reset_keys : bool, default=False
        Whether the key encoder is copied anew in every epoch, as released.
    projection_dim : int, default=128
        Dimension of the projections.
    image_size : tuple of int (height, width) or None, default=None
        Size that images are resized to. By default the size they have; images of different sizes,
        or larger than 64 pixels, become 64 x 64. An array of grey images is learned from in grey,
        anything else in colour.
    flip : bool, default=True
        Whether views of images may be mirrored. Turn it off for digits, letters and traffic signs.
    cutout : int or "auto", default="auto"
        Side in pixels of the square that strong views of images lose; "auto" is half the image. The
        paper takes 16 of 28 or 32 pixels; short trainings learn faster with less.
    strong_operations : bool or "auto", default="auto"
        Whether strong views of images get a random photometric or geometric operation besides the
        cutout; "auto" for colour images only.
    weak_noise, strong_noise : float, default=0.05, 0.15
        Noise of the views of features, in standard deviations of each feature.
    feature_dropout : float, default=0.1
        Share of features that a strong view replaces by their mean.
    weak_transform, strong_transform : callable or None, default=None
        Views of your own: functions of a batch of float tensors, (n, channels, H, W) in [0, 1] or
        (n, n_features). They must be picklable and draw from torch's random numbers.
    deploy : {"ensemble", "single"}, default="ensemble"
        Whether predictions come from both networks or from the first, at half the cost.
    early_stopping : {"covering_rate", "approximated_accuracy", "accuracy"} or None, default=None
        Score that ends the training when it has not risen for `patience` epochs. The first two
        need no labels but measure agreement with the annotator; "accuracy" is of the `eval_set`.
    patience : int, default=10
        Epochs without improvement, after the warm-up.
    checkpoint_dir : str, path or None, default=None
        Folder to save the training state in. A fit of the same data with the same parameters
        continues from there, with the same result as without the interruption; a fit that differs
        in anything that matters has a file of its own. `random_state` must be set, best to an int.
        What callbacks remember is not saved.
    checkpoint_every : int, default=5
        Epochs between checkpoints.
    warm_start : bool, default=False
        Whether `fit` continues from the last fit up to `max_epochs`: the epochs already done count,
        and the cosine of the learning rate spans the new `max_epochs`, as it would have from the
        start. On other data of the same classes the networks go on and the rows begin anew. The
        training state is kept in the estimator and its pickle.
    callbacks : list of skorch.callbacks.Callback or None, default=None
        Further callbacks. They are copied, so read what they found from `history_`, where
        ``net.history.record`` in a callback writes to. One that raises a KeyboardInterrupt at an
        epoch's end, as `skorch.callbacks.EarlyStopping` does, ends the training; at any other time
        the interrupt leaves `fit`. What they monitor must be recorded in every epoch, as
        ``eval_accuracy`` is; those that score batches, such as `EpochScoring`, find none here.
    device : str, default="auto"
        "auto" (CUDA if present), "cpu", "cuda", "cuda:1", ...
    precision : {"fp32", "bf16"}, default="fp32"
        "bf16" runs forward passes in mixed precision.
    random_state : int, RandomState instance or None, default=None
        Seed of the networks, views and batches. The global generators are left alone, but that None
        draws a seed from numpy's.
    verbose : int, default=0
        1 prints a line an epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Names of the classes.
    n_features_in_ : int
        Number of features; only for features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X has string column names.
    net_ : skorch.NeuralNet
        The trained net; ``net_.module_`` holds both networks.
    history_ : list of dict
        One row an epoch: ``epoch``, ``phase``, the mean losses ``loss_warm_up``,
        ``loss_partial``, ``loss_unlabelled``, ``loss_prototype``, ``loss_contrastive`` (None where
        a term was not used), ``partial_size``, ``partial_share``, ``partial_clean_probability``,
        ``mixture_means``, ``label_change_rate``, ``covering_rate``, ``approximated_accuracy`` (of
        the training predictions, after the warm-up), ``eval_accuracy`` and
        ``eval_accuracy_single`` (with an `eval_set`), ``lr`` and ``seconds``.
    label_distributions_ : ndarray of shape (n_samples, n_classes)
        Purified labels of the training samples: Eq. 6 without sharpening, the mean of both
        networks.
    transduction_ : ndarray of shape (n_samples,)
        Most probable purified label of each training sample.
    clean_probability_ : ndarray of shape (n_samples,)
        Probability that the candidates hold the true label, the mean of both networks.
    n_iter_ : int
        Number of epochs run.

    See Also
    --------
    VLMPartialAnnotator : Makes candidate labels with a vision-language model.
    PartialLabels : The container of samples and candidates.

    Notes
    -----
    The networks standardise their inputs by themselves.

    A row in which every class is a candidate carries no label: it is never in the partial split and
    does not count in the warm-up. An epoch whose partial split is empty trains on the candidates as
    in the warm-up; one whose unlabelled split is empty trains on the partial split alone.

    References
    ----------
    .. [1] Q.-W. Wang, Y. Xie, L. Zhang, Z. Liu, S.-T. Xia, "Pre-Trained Vision-Language Models as
       Noisy Partial Annotators", AAAI 2025, arXiv:2406.18550.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import make_blobs
    >>> from sklearn_npll import CoRegClassifier
    >>> X, y = make_blobs(300, centers=3, random_state=0)
    >>> candidates = np.eye(3, dtype=int)[y]
    >>> candidates[::3, 0] = 1  # some sets hold a wrong class besides the true one
    >>> candidates[::10] = np.roll(candidates[::10], 1, axis=1)  # and some miss the true class
    >>> clf = CoRegClassifier(max_epochs=15, warm_up=5, random_state=0).fit(X, candidates)
    >>> clf.score(X, y) > 0.85
    True
    """

    _parameter_constraints = {
        "module": [str, nn.Module, callable],
        "init": [dict, str, os.PathLike, None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "warm_up": [Interval(Integral, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left"), StrOptions({"auto"})],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "prior": [StrOptions({"uniform", "annotator", "estimated"}), "array-like", None],
        "loss_window": [Interval(Integral, 1, None, closed="left")],
        "clean_threshold": [Interval(Real, 0, 1, closed="left")],
        "co_labelling": [StrOptions({"peer", "own"})],
        "n_weak_views": [Interval(Integral, 1, None, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "use_unlabelled": ["boolean"],
        "unlabelled_loss": [StrOptions({"release", "paper"})],
        "unlabelled_weight": [Interval(Real, 0, None, closed="left")],
        "mixup_alpha": [Interval(Real, 0, None, closed="neither"), None],
        "prototype_weight": [Interval(Real, 0, None, closed="left")],
        "prototype_momentum": [Interval(Real, 0, 1, closed="left")],
        "prototype_temperature": [Interval(Real, 0, None, closed="neither")],
        "prototype_views": [StrOptions({"mixed", "strong"})],
        "contrastive": [StrOptions({"noise_tolerant", "supcon", "moco", "none"})],
        "contrastive_weight": [Interval(Real, 0, None, closed="left")],
        "contrastive_temperature": [Interval(Real, 0, None, closed="neither")],
        "contrastive_start": [Interval(Integral, 0, None, closed="left")],
        "queue_size": [Interval(Integral, 0, None, closed="left")],
        "key_momentum": [Interval(Real, 0, 1, closed="both")],
        "reset_keys": ["boolean"],
        "projection_dim": [Interval(Integral, 1, None, closed="left")],
        "image_size": [tuple, list, None],
        "flip": ["boolean"],
        "cutout": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "strong_operations": ["boolean", StrOptions({"auto"})],
        "weak_noise": [Interval(Real, 0, None, closed="left")],
        "strong_noise": [Interval(Real, 0, None, closed="left")],
        "feature_dropout": [Interval(Real, 0, 1, closed="left")],
        "weak_transform": [callable, None],
        "strong_transform": [callable, None],
        "deploy": [StrOptions({"ensemble", "single"})],
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
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        module="auto",
        *,
        init=None,
        max_epochs=50,
        warm_up=10,
        batch_size="auto",
        lr=0.01,
        momentum=0.9,
        weight_decay=5e-4,
        prior="uniform",
        loss_window=5,
        clean_threshold=0.5,
        co_labelling="peer",
        n_weak_views=2,
        temperature=0.5,
        use_unlabelled=True,
        unlabelled_loss="release",
        unlabelled_weight=1.0,
        mixup_alpha=4.0,
        prototype_weight=0.1,
        prototype_momentum=0.999,
        prototype_temperature=0.3,
        prototype_views="mixed",
        contrastive="noise_tolerant",
        contrastive_weight=0.1,
        contrastive_temperature=0.07,
        contrastive_start=10,
        queue_size=8192,
        key_momentum=0.999,
        reset_keys=False,
        projection_dim=128,
        image_size=None,
        flip=True,
        cutout="auto",
        strong_operations="auto",
        weak_noise=0.05,
        strong_noise=0.15,
        feature_dropout=0.1,
        weak_transform=None,
        strong_transform=None,
        deploy="ensemble",
        early_stopping=None,
        patience=10,
        checkpoint_dir=None,
        checkpoint_every=5,
        warm_start=False,
        callbacks=None,
        device="auto",
        precision="fp32",
        random_state=None,
        verbose=0,
    ):
        self.module = module
        self.init = init
        self.max_epochs = max_epochs
        self.warm_up = warm_up
        self.batch_size = batch_size
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.prior = prior
        self.loss_window = loss_window
        self.clean_threshold = clean_threshold
        self.co_labelling = co_labelling
        self.n_weak_views = n_weak_views
        self.temperature = temperature
        self.use_unlabelled = use_unlabelled
        self.unlabelled_loss = unlabelled_loss
        self.unlabelled_weight = unlabelled_weight
        self.mixup_alpha = mixup_alpha
        self.prototype_weight = prototype_weight
        self.prototype_momentum = prototype_momentum
        self.prototype_temperature = prototype_temperature
        self.prototype_views = prototype_views
        self.contrastive = contrastive
        self.contrastive_weight = contrastive_weight
        self.contrastive_temperature = contrastive_temperature
        self.contrastive_start = contrastive_start
        self.queue_size = queue_size
        self.key_momentum = key_momentum
        self.reset_keys = reset_keys
        self.projection_dim = projection_dim
        self.image_size = image_size
        self.flip = flip
        self.cutout = cutout
        self.strong_operations = strong_operations
        self.weak_noise = weak_noise
        self.strong_noise = strong_noise
        self.feature_dropout = feature_dropout
        self.weak_transform = weak_transform
        self.strong_transform = strong_transform
        self.deploy = deploy
        self.early_stopping = early_stopping
        self.patience = patience
        self.checkpoint_dir = checkpoint_dir
        self.checkpoint_every = checkpoint_every
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    # -- fitting -------------------------------------------------------------------------------

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, eval_set=None):
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
        self : CoRegClassifier

        Raises
        ------
        ValueError
            If a row has no candidate, there are fewer than two classes or samples, lengths differ,
            values are missing, or options do not suit the data.
        """
        problem = check_problem(X, y)
        data = self._check_samples(problem.data, reset=True)
        vars(self).pop("net_", None)  # not to predict with it should this fit be interrupted
        self.classes_ = problem.classes
        self._check_options(eval_set)
        device = self._resolve_device()
        training = TrainingData(
            views=self._make_views(data, device),
            candidates=torch.from_numpy(problem.candidates).to(device),
            known=torch.from_numpy(problem.known).to(device),
            prior=self._resolve_prior(problem, device),
        )
        eval_data = None
        if eval_set is not None:
            eval_data, training.eval_labels = self._check_eval_set(eval_set)
            training.eval_views = self._make_views(eval_data, device)

        seed = check_random_state(self.random_state).randint(2**31 - 1)
        cuda = [torch.device(device)] if torch.device(device).type == "cuda" else []
        with _ONE_FIT_AT_A_TIME, torch.random.fork_rng(cuda):
            torch.manual_seed(seed)
            self._train(data, training, eval_data, seed, device)
        return self

    def _check_options(self, eval_set):
        if self.early_stopping == "accuracy" and eval_set is None:
            raise ValueError("early_stopping='accuracy' needs fit(..., eval_set=(X, y))")
        if self.checkpoint_dir is not None and self.random_state is None:
            raise ValueError(
                "checkpoint_dir needs a random_state, best an int: without a seed no later fit is "
                "the same as the interrupted one"
            )

    def _train(self, data, training, eval_data, seed, device):
        net = self._make_net(data, seed, device)
        data_key = None
        if self.warm_start or self.checkpoint_dir is not None:
            data_key = fingerprint(data, training.candidates, training.known)
        previous = self._previous_state(data_key)
        checkpoint = state = None
        if self.checkpoint_dir is not None:
            Path(self.checkpoint_dir).mkdir(parents=True, exist_ok=True)
            eval_key = fingerprint(eval_data, training.eval_labels)
            key = self._checkpoint_key(data_key, training.prior, eval_key, seed, previous)
            checkpoint = Path(self.checkpoint_dir, f"coreg-{key}.pt")
            state = load_checkpoint(checkpoint, device)
        if state is not None:
            net.load_training_state(state, training)
        elif previous is not None:
            self._continue(net, previous, training)

        net.notify("on_train_begin", X=training, y=None)
        while not self._is_finished(net):
            net.fit_loop(training, epochs=1)
            done = len(net.history)
            if checkpoint and (done % self.checkpoint_every == 0 or self._is_finished(net)):
                save_checkpoint(net.training_state(), checkpoint)
        net.notify("on_train_end", X=training, y=None)

        self.history_ = [{k: v for k, v in row.items() if k != "batches"} for row in net.history]
        self.n_iter_ = len(self.history_)
        vars(self).pop("training_state_", None)
        if self.warm_start:
            self.training_state_ = {
                **map_tensors(lambda t: t.detach().cpu().clone(), net.training_state()),
                "classes": self.classes_.tolist(),
                "data": data_key,
            }
        self._record_labels(net, training)
        net.forget_training()
        self.net_ = net

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
            empty = [[], []]
            state = {**state, "losses": empty, "mean_proba": empty, "labels": None, "clean": None}
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

    def _make_net(self, data, seed, device):
        n = len(data)
        batch_size = self.batch_size
        if batch_size == "auto":
            batch_size = min(256, max(8, n // 16))
        mean, scale, shape = _input_statistics(data)
        method = SimpleNamespace(**self.get_params(deep=False))
        net = CoRegNet(
            CoRegModule,
            method=method,
            seed=seed,
            module__module=self.module,
            module__shape=shape,
            module__n_classes=len(self.classes_),
            module__mean=mean,
            module__scale=scale,
            module__projection_dim=self.projection_dim,
            module__init=self.init,
            optimizer=torch.optim.SGD,
            optimizer__momentum=self.momentum,
            optimizer__weight_decay=self.weight_decay,
            lr=self.lr,
            batch_size=batch_size,
            max_epochs=self.max_epochs,
            train_split=None,
            callbacks=copy.deepcopy(self.callbacks),
            device=device,
            verbose=int(self.verbose),
        )
        return net.initialize()

    def _record_labels(self, net, training):
        purified, clean = net.final_purified(training)
        self.label_distributions_ = purified.cpu().numpy()
        self.transduction_ = self.classes_[self.label_distributions_.argmax(1)]
        self.clean_probability_ = clean.cpu().numpy()

    def _out_of_patience(self, history):
        if self.early_stopping is None:
            return False
        name = "eval_accuracy" if self.early_stopping == "accuracy" else self.early_stopping
        scores = [row[name] for row in history if row["phase"] != "warm_up"]
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

    def _resolve_device(self):
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device={self.device!r} cannot be used: {error}") from error
        return self.device

    def _resolve_prior(self, problem, device):
        prior, n_classes = self.prior, len(problem.classes)
        if prior is None or (isinstance(prior, str) and prior == "estimated"):
            return prior
        if isinstance(prior, str) and prior == "uniform":
            prior = np.ones(n_classes)
        elif isinstance(prior, str):
            if problem.scores is None:
                raise ValueError(
                    "prior='annotator' needs PartialLabels with scores; these have none. Use "
                    "prior='estimated' or give the class shares"
                )
            prior = problem.scores.mean(0)
        prior = np.asarray(prior, dtype=np.float32)
        if prior.shape != (n_classes,) or not (np.all(prior >= 0) and 0 < prior.sum() < np.inf):
            raise ValueError(
                f"prior must be {n_classes} non-negative class shares, one a class; got {prior!r}"
            )
        return torch.from_numpy(prior / prior.sum()).to(device)

    def _check_eval_set(self, eval_set):
        """Return samples and class indices."""
        if not (isinstance(eval_set, tuple) and len(eval_set) == 2):
            raise ValueError("eval_set must be a tuple (X, y)")
        X, y = eval_set
        data = self._check_samples(X, reset=False)
        return data, encode_target(y, self.classes_, len(data), "eval_set")

    # -- samples -------------------------------------------------------------------------------

    def _check_samples(self, X, reset):
        """Return float32 features (n, n_features) or uint8 images (n, H, W, channels)."""
        if isinstance(X, PartialLabels):
            X = X.data
        if X is None:
            raise ValueError("these PartialLabels carry no samples (data is None); pass them as X")
        if isinstance(X, (list, tuple)) and not X:
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
        is_image = is_image_data(X)
        if not reset and is_image != (self.image_shape_ is not None):
            kind = {True: "images", False: "features"}
            raise ValueError(
                f"this classifier was fitted on {kind[not is_image]} but X holds {kind[is_image]}"
            )
        if not is_image:
            if reset:
                self.image_shape_ = None
            features = validate_data(self, X, reset=reset, dtype=np.float32)
            return np.require(features, requirements="W")  # torch wants what it could write to
        if not len(X):
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
        if reset:
            for name in ("n_features_in_", "feature_names_in_"):
                vars(self).pop(name, None)
            images = self._read_images(X)
            self.image_shape_ = images.shape[1:]
            return images
        height, width, channels = self.image_shape_
        return as_image_array(X, image_size=(height, width), channels=channels)

    def _read_images(self, X):
        """Read images to fit on, in their own size if it is small and common to all."""
        if self.image_size is not None:
            size = tuple(self.image_size)
            if len(size) != 2 or not all(isinstance(n, Integral) and n > 0 for n in size):
                raise ValueError(f"image_size must be (height, width) in pixels; got {size}")
            return as_image_array(X, image_size=size)
        if max(read_images(X, [0], mode=None)[0].size) <= MAX_IMAGE_SIZE:
            try:
                return as_image_array(X)
            except ValueError:  # sizes differ, or else the next line raises again
                pass
        return as_image_array(X, image_size=(MAX_IMAGE_SIZE, MAX_IMAGE_SIZE))

    def _make_views(self, data, device):
        transforms = {
            "weak_transform": self.weak_transform,
            "strong_transform": self.strong_transform,
            "device": device,
        }
        if data.ndim == 2:
            return FeatureViews(
                data,
                weak_noise=self.weak_noise,
                strong_noise=self.strong_noise,
                dropout=self.feature_dropout,
                **transforms,
            )
        operations = self.strong_operations
        if operations == "auto":
            operations = data.shape[3] == 3
        cutout = min(data.shape[1:3]) // 2 if self.cutout == "auto" else self.cutout
        return ImageViews(data, flip=self.flip, cutout=cutout, operations=operations, **transforms)

    # -- prediction ----------------------------------------------------------------------------

    def predict_proba(self, X):
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
        check_is_fitted(self, "net_")
        k = 0 if self._is_single(None) else None
        data = self._check_samples(X, reset=False)
        views = self._make_views(data, self.net_.device)
        proba = self.net_.predict_views(k, views.plain, len(data)).double()
        return (proba / proba.sum(1, keepdim=True)).cpu().numpy()

    def predict(self, X):
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
        proba = self.predict_proba(X)
        return self.classes_[proba.argmax(1)]

    def score(self, X, y=None, sample_weight=None):
        """Score predictions against labels, candidate sets, or the annotator.

        Parameters
        ----------
        X : PartialLabels, array-like of shape (n_samples, n_features), or images
            Samples as in `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_classes), PartialLabels, default=None
            True labels, of which -1 are left out; or candidates.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, for true labels only.

        Returns
        -------
        float
            Accuracy for labels; covering rate (share of predictions among the candidates) for
            candidates; and without y, for X a `PartialLabels`, the approximated accuracy (mean
            candidate-restricted confidence of the prediction). The last two measure agreement
            with the annotator, not correctness.
        """
        is_matrix = isinstance(y, PartialLabels) or issparse(y)
        is_matrix = is_matrix or (np.ndim(y) == 2 and np.shape(y)[1] > 1)
        if sample_weight is not None and (y is None or is_matrix):
            raise ValueError("sample_weight needs true labels y; candidates cannot be weighted")
        if y is None:
            if not isinstance(X, PartialLabels):
                raise ValueError("score needs y unless X is a PartialLabels")
            return approximated_accuracy_scorer(self, X)
        if is_matrix:
            return covering_rate_scorer(self, X, y)
        check_is_fitted(self, "net_")
        y = as_labels(y)
        labelled = np.full(len(y), True) if -1 in self.classes_.tolist() else ~is_unlabelled(y)
        if not labelled.any():
            raise ValueError("every label in y is -1 (unlabelled); there is nothing to score")
        y_pred = self.predict(X)
        check_consistent_length(y, y_pred, sample_weight)
        if sample_weight is not None:
            sample_weight = np.asarray(sample_weight)[labelled]
        return float(accuracy_score(y[labelled], y_pred[labelled], sample_weight=sample_weight))

    # -- deployment ----------------------------------------------------------------------------

    def to_module(self, deploy=None):
        """Return a plain module that maps inputs to class probabilities.

        Parameters
        ----------
        deploy : {"ensemble", "single"}, default=None
            Both networks or the first; by default what the parameter `deploy` says.

        Returns
        -------
        nn.Module
            In evaluation mode, on the CPU. Its input is a float tensor (n, n_features), or images
            (n, channels, H, W) in [0, 1].
        """
        check_is_fitted(self, "net_")
        n_networks = 1 if self._is_single(deploy) else 2
        return DeployedNetwork(list(self.net_.module_.networks)[:n_networks]).cpu().eval()

    def _is_single(self, deploy):
        deploy = self.deploy if deploy is None else deploy
        if deploy not in ("ensemble", "single"):
            raise ValueError(f"deploy must be 'ensemble' or 'single'; got {deploy!r}")
        return deploy == "single"

    def export_onnx(self, path, deploy=None):
        """Write the module of `to_module` as an ONNX file with a free batch size.

        Parameters
        ----------
        path : str or path
            File to write.
        deploy : {"ensemble", "single"}, default=None
            As in `to_module`.

        Raises
        ------
        ImportError
            If the packages onnx and onnxscript are not installed.
        """
        module = self.to_module(deploy)
        if self.image_shape_ is None:
            shape = (self.n_features_in_,)
        else:
            height, width, channels = self.image_shape_
            shape = (channels, height, width)
        try:
            import onnx  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ImportError("export_onnx needs `pip install onnx onnxscript`") from error
        if "dynamic_shapes" in inspect.signature(torch.onnx.export).parameters:
            options = {"dynamic_shapes": ({0: torch.export.Dim("n")},), "dynamo": True}
        else:  # torch < 2.5
            options = {"dynamic_axes": {"input": {0: "n"}, "probabilities": {0: "n"}}}
        torch.onnx.export(
            module,
            (torch.zeros(2, *shape),),
            str(path),
            input_names=["input"],
            output_names=["probabilities"],
            verbose=False,
            **options,
        )

    def _tag_values(self):
        return {"non_deterministic": False, "input_tags.allow_nan": False}


def _input_statistics(data):
    """Return mean and scale of features or channels, and the shape of one input."""
    if data.ndim == 2:
        axes, shape, unit = 0, data.shape[1:], 1.0
    else:
        data = data[:: -(-len(data) // 1000)]  # enough, and a memory map stays on disk
        height, width, channels = data.shape[1:]
        axes, shape, unit = (0, 1, 2), (channels, height, width), 255.0
    # in float64, as a float32 sum over many pixels stops growing
    mean, scale = (f(data, axis=axes, dtype=np.float64) / unit for f in (np.mean, np.std))
    scale = np.where(scale > 1e-8, scale, 1.0)
    form = (-1, *[1] * (len(shape) - 1))
    return *(torch.from_numpy(v.reshape(form)).float() for v in (mean, scale)), tuple(shape)
