"""How a class becomes an estimator, and what the docstrings of several estimators share."""

import inspect
import re
from dataclasses import dataclass, field
from typing import TypeVar

from .._typing import dataclass_transform

# What the docstrings of several classifiers say, by the name that stands for it there.
_SHARED_TEXTS = {
    "shared_parameters": """\
module : str, nn.Module or callable, default="auto"
        The network: "auto" (an MLP for features, a small strided ResNet for images of up to 64
        pixels, timm's ResNet-18 above), "mlp", "resnet8", "resnet8_strided", "preact_resnet18" (the
        Co-Reg paper's), "wrn_28_2", the name of any timm model, an `nn.Module` that is copied, or a
        class or function called with those of ``n_features``, ``in_channels``, ``image_size`` and
        ``n_classes`` that it accepts, as an instance of
        `sklearn_npll.annotators.ImageEncoderStudent` is. A module of your own maps a batch to
        logits, and its last `nn.Linear` has as many outputs as there are classes.
        Inputs are standardised before it, unless it has a true attribute ``raw_inputs``: then it
        gets images in [0, 1], or features as they are.
    init : dict, str, path or None, default=None
        State dict of the network, or a file with one, to start from.
    max_epochs : int, default=50
        Epochs, a warm-up included.
    batch_size : int or "auto", default="auto"
        Rows in a gradient step. "auto" is a sixteenth of the rows, from 8 to 256, and of images a
        32nd, from 8 to 64, as they need more steps; larger ones suit a GPU and a long training.
    lr : float or "auto", default="auto"
        Learning rate of the first epoch; it falls along a cosine to a thousandth. "auto" is 0.05 on
        images and 0.02 on features. Papers take 0.01 or so over hundreds of epochs, which in the
        default 50 leaves networks half trained.
    momentum : float, default=0.9
        Momentum of the stochastic gradient descent.
    weight_decay : float, default=5e-4
        L2 penalty.
    image_size : tuple of int (height, width) or None, default=None
        Size that images are resized to. By default the size they have; images of different sizes,
        or larger than 64 pixels, become 64 x 64. An array of grey images is learned from in grey,
        anything else in colour. Images that take more than 1 GiB then are not kept in memory but
        read anew for each batch, and if their sizes differ this must be set; to keep them, pass
        them as one array of uint8, which is used as it is.
    flip : bool, default=True
        Whether views of images may be mirrored. Turn it off for digits, letters and traffic signs.
    cutout : int or "auto", default="auto"
        Side in pixels of the square that strong views of images lose; "auto" is half the image.
        Short trainings learn faster with less.
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
    early_stopping : {"covering_rate", "approximated_accuracy", "accuracy"} or None, default=None
        Score that ends the training when it has not risen for `patience` epochs. The first two
        need no labels but measure agreement with the annotator; "accuracy" is of the `eval_set`.
    patience : int, default=10
        Epochs without improvement, after a warm-up.
    checkpoint_dir : str, path or None, default=None
        Folder to save the training state in. A fit of the same data with the same parameters
        continues from there, with the same result as without the interruption; a fit that differs
        in anything that matters has a file of its own. `random_state` must be set, best to an int.
        What callbacks remember is not saved. If a file cannot be written, or is damaged when it is
        read, there is a warning and the training goes on without it.
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
        ``eval_accuracy`` is; those that score batches, such as `EpochScoring`, find none here, and
        an `LRScheduler` changes nothing, as each epoch sets the learning rate of its cosine.
    device : str, default="auto"
        "auto" (CUDA if present), "cpu", "cuda", "cuda:1", ...
    precision : {"fp32", "bf16"}, default="fp32"
        "bf16" runs forward passes in mixed precision.
    accelerator : {"auto"} or None, default=None
        "auto" trains in all the processes that ``torchrun`` or ``accelerate launch`` has started
        on several GPUs or hosts, with the same result as one process: see :doc:`/scaling`. Needs
        accelerate.
    random_state : int, RandomState instance or None, default=None
        Seed of the networks, views and batches. The global generators are left alone, but that None
        draws a seed from numpy's.
    verbose : int, default=0
        1 prints a line an epoch.""",
    "shared_attributes": """\
classes_ : ndarray of shape (n_classes,)
        Names of the classes.
    n_features_in_ : int
        Number of features; only for features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X has string column names.
    net_ : skorch.NeuralNet
        The trained net; ``net_.module_.networks`` are its networks.
    n_iter_ : int
        Number of epochs run.
    transduction_ : ndarray of shape (n_samples,)
        Most probable label of each training sample, by `label_distributions_`.""",
    "rule_attributes": """\
label_distributions_ : ndarray of shape (n_samples, n_classes)
        Labels of the training samples as the method sees them after the last epoch.
    history_ : list of dict
        One row an epoch: ``epoch``, ``phase``, the mean losses, ``gradient_samples`` (rows passed
        forward to train on), ``eval_accuracy`` (with an `eval_set`), the label-free score that
        `early_stopping` watches, ``lr`` and ``seconds``.""",
    "eta_parameter": """\
eta : float in [0, 1) or None, default=None
        Noise rate: the share of samples whose candidates miss the true label. None estimates it in
        every epoch, by a mixture of two Gaussians on the losses of the last one.""",
    "eta_attributes": """\
noise_rate_ : float
        Noise rate that the last epoch used.
    noise_rate_source_ : {"oracle", "estimated"}
        "oracle" if `eta` was given.""",
}


_Class = TypeVar("_Class")


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
def learner(cls: type[_Class]) -> type[_Class]:
    """Make an estimator of a class: its fields become parameters.

    Names of `_SHARED_TEXTS` in braces in its docstring are replaced by the texts.
    """
    if cls.__doc__:
        # Python 3.13 takes the indentation off docstrings, and Python 3.10 does not
        doc = inspect.cleandoc(cls.__doc__)
        for name, text in _SHARED_TEXTS.items():
            doc = doc.replace(f"{{{name}}}", re.sub(r"(?m)^ {4}", "", text))
        cls.__doc__ = doc
    return dataclass(eq=False, repr=False, kw_only=True)(cls)
