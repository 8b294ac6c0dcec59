"""DeFT: two prompts, one that matches an image and one that is its threshold, find wrong labels."""

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from torch import nn

from .._compat import Interval, StrOptions
from .._device import resolve_device
from .._images import as_samples, check_not_empty, is_image_data
from .._inputs import forget_features, samples_of, validate_features
from .._partial_labels import PartialLabels
from .._typing import Estimator, Seed
from ..annotators import VLMPartialAnnotator
from ._annotator import fitted_annotator
from ._base import BaseNoiseDetector, check_among
from ._deft_losses import best_margin, prompt_margin, select_clean
from ._deft_towers import ImageTower, PromptTower, check_encoder, trainable
from ._deft_training import (
    DualPromptModel,
    Features,
    Images,
    ResidualPrompts,
    predict_logits,
    train,
)

_PUBLISHED = {
    "rule": "threshold",
    "complement": "random",
    "max_epochs": 10,
    "warm_up": 1,
    "batch_size": 64,
    "lr": 0.03,
    "weight_decay": 5e-4,
}
_OF_FEATURES = {
    "rule": "threshold_argmax",
    "complement": "all",
    "batch_size": 256,
    "lr": 0.01,
    "weight_decay": 0.0,
}
_STEPS_ON_FEATURES = 600


class DeFTDetector(BaseNoiseDetector):
    """Find wrong labels with a positive and a negative prompt learnt for a vision-language model.

    Two contexts are learnt, shared by all classes. The positive prompt of a class matches its
    images; the negative one is a threshold for each image: a label is clean if the image is
    closer to the positive than to the negative prompt of that class, which takes neither the
    noise rate nor a model of the losses. In the first epochs every label counts as clean, later
    those that the rule selects at that moment. The mask is found once training is over.

    Parameters
    ----------
    annotator : VLMPartialAnnotator, default=None
        Gives the model, the names of the classes and, with `backend` "feature", the text features:
        the embeddings of the classes, averaged over its templates. One that is not fitted is
        cloned and fitted. Without an annotator X holds features of any kind; they are
        standardised, and the prompts are two linear classifiers. Only for `backend` "feature".
    backend : {"feature", "text", "full"}, default="feature"
        What is learnt.

        - "full": the contexts, through the frozen text tower, and a few parameters of the image
          tower: the published method [1]_. Needs images, a model of open_clip with CLIP's kind of
          text tower and, but for small data, a GPU.
        - "text": the contexts only, on embeddings of the images that are computed once.
        - "feature": no context, but for each class a residual on its text features. An
          approximation of DeFT that needs no text tower and takes seconds.
    n_ctx : int, default=16
        Number of vectors in each context; not for "feature".
    image_tuner : {"vpt_deep", "lora", "bias", "none"}, default="vpt_deep"
        What "full" learns of the image tower: tokens added to the input of every block [2]_,
        low-rank updates of the queries and values in every block [3]_, or all biases. The first
        two need a vision transformer.
    n_prompt_tokens : int, default=20
        Number of tokens for "vpt_deep".
    lora_rank : int, default=4
        Rank of the updates for "lora".
    rule : {"threshold", "threshold_argmax"}, default=None
        When a label is clean: if its probability of a "yes" exceeds `threshold`; or if besides no
        other class has a larger one. None means "threshold", and with "feature" the other.
    complement : {"random", "all"}, default=None
        Which other classes the negative prompt learns to call wrong in each step: one drawn for
        every row, or all. None means "random", and with "feature" "all".
    threshold : float in (0, 1), default=0.5
        Probability above which the answer is "yes".
    relabel : bool, default=True
        Whether the negative prompt learns, from rows that are not selected, to call right the
        class that the positive prompt finds most probable. Otherwise it learns nothing right
        from them.
    warm_up : int, default=None
        Number of epochs in which every label counts as clean. None means 1, and with "feature" a
        quarter of the epochs.
    max_epochs : int, default=None
        Number of epochs. None means 10, and with "feature" as many as make 600 steps.
    batch_size : int, default=None
        None means 64, and 256 with "feature".
    lr : float, default=None
        First learning rate, which falls to zero along a cosine. None means 0.03 for SGD with a
        momentum of 0.9, and with "feature" 0.01 for Adam.
    weight_decay : float, default=None
        None means 0.0005, and 0 with "feature".
    device : str, default="auto"
        Where to train: "cpu", "cuda", "cuda:1", "mps"...; "auto" is where the annotator's model
        runs and, with "feature", CUDA if there is one.
    random_state : int, RandomState instance or None, default=None
        Draws the contexts, the batches and the complements.
    verbose : int or bool, default=False
        Whether to show a progress bar.

    Attributes
    ----------
    clean_mask_ : bool ndarray of shape (n_samples,)
        The rows whose label is clean, by a pass over all of them after the last epoch.
    clean_score_ : ndarray of shape (n_samples,)
        Probability of a "yes" to the label; of a set of candidates, the largest in it.
    noise_score_ : ndarray of shape (n_samples,)
        ``1 - clean_score_``.
    proba_yes_ : ndarray of float32 of shape (n_samples, n_classes)
        Probability of a "yes" to each class.
    classes_ : ndarray of shape (n_classes,)
        Names of the classes; those of the annotator if there is one.
    prompt_features_ : ndarray of float32 of shape (2, n_classes, n_dimensions)
        Features of the classes by the positive and by the negative prompt. Without an annotator
        the weights of the two linear classifiers, with the intercept as the last column.
    contexts_ : ndarray of float32 of shape (2, n_ctx, width)
        The learnt vectors of the positive and of the negative prompt; not for "feature".
    annotator_ : VLMPartialAnnotator
        The fitted annotator; only with `annotator`.
    rule_, complement_ : str
        What was used.
    n_iter_ : int
        Number of epochs.
    history_ : list of dict
        A row for each epoch: the two losses, the share of rows selected, the learning rate and
        the seconds.
    n_features_in_ : int
        Number of columns, if fitted on a 2-D X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if fitted on a data frame.

    See Also
    --------
    LabelMatchDetector : Asks the annotator alone, and learns nothing.
    DeFTClassifier : Trains a classifier on the rows that a detector believes.

    Notes
    -----
    With an annotator X holds images or, but for "full", their embeddings; without one, features.
    Labels are among the annotator's classes. With "feature" both prompts start from the mean of the
    annotator's text features over its templates, weighted by its `template_weights`; how it
    aggregates or refines otherwise is left aside.

    With "full" an image that cannot be read is an error; with the others it is what the annotator's
    `on_error` says.

    Sets that the annotator itself made agree with its text features from the start, so that the
    mask keeps nearly all of them; `noise_score_` still ranks them.

    For sets of candidates, a row is selected if the class with the surest "yes" within the set
    passes the rule. Its positive loss is -log of the probability of the set; the negative prompt
    learns to call right the candidates, in the share of their probabilities, and to call wrong
    the classes outside. For sets of one this is the published method.

    With "text" and "full" each step encodes two prompts of every class, whose cost grows with the
    number of classes and not with the batch. Both start from random contexts: where ten epochs make
    less than some 150 steps, as of fewer than 1,000 rows, take more epochs or smaller batches.

    The annotator's model is shared by the process and left as it is: towers are tuned beside it.
    A pickle holds what was learnt and the annotator, without the model. It is loaded again when
    needed.

    References
    ----------
    .. [1] T. Wei, H.-T. Li, C.-S. Li, J.-X. Shi, Y.-F. Li, M.-L. Zhang, "Vision-Language Models are
       Strong Noisy Label Detectors", NeurIPS 2024.
    .. [2] M. Jia et al.,
       "Visual Prompt Tuning", ECCV 2022.
    .. [3] E. Hu et al.,
       "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.

    Examples
    --------
    Labels of which a third is wrong, and what the model itself thinks of them:

    >>> import numpy as np
    >>> from sklearn.metrics import f1_score
    >>> from sklearn_npll import VLMPartialAnnotator
    >>> from sklearn_npll.datasets import load_fashion_mnist
    >>> from sklearn_npll.detection import DeFTDetector
    >>> data = load_fashion_mnist()
    >>> X, y = data.images[:500], data.target[:500]
    >>> rng = np.random.default_rng(0)
    >>> wrong = rng.random(500) < 1 / 3
    >>> noisy = data.target_names[np.where(wrong, (y + rng.integers(1, 10, 500)) % 10, y)]
    >>> annotator = VLMPartialAnnotator(data.class_prompts).fit(X)
    >>> detector = DeFTDetector(annotator, random_state=0).fit(X, noisy)
    >>> zero_shot = f1_score(~wrong, annotator.predict(X) == noisy)
    >>> f1_score(~wrong, detector.clean_mask_) > zero_shot + 0.05
    True

    Features of any kind need no annotator:

    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> wrong = rng.random(len(y)) < 1 / 3
    >>> noisy = np.where(wrong, (y + rng.integers(1, 10, len(y))) % 10, y)
    >>> detector = DeFTDetector(max_epochs=30, random_state=0).fit(X, noisy)
    >>> f1_score(~wrong, detector.clean_mask_) > 0.9
    True
    """

    _parameter_constraints = {
        "annotator": [VLMPartialAnnotator, None],
        "backend": [StrOptions({"feature", "text", "full"})],
        "n_ctx": [Interval(Integral, 1, None, closed="left")],
        "image_tuner": [StrOptions({"vpt_deep", "lora", "bias", "none"})],
        "n_prompt_tokens": [Interval(Integral, 1, None, closed="left")],
        "lora_rank": [Interval(Integral, 1, None, closed="left")],
        "rule": [StrOptions({"threshold", "threshold_argmax"}), None],
        "complement": [StrOptions({"random", "all"}), None],
        "threshold": [Interval(Real, 0, 1, closed="neither")],
        "relabel": ["boolean"],
        "warm_up": [Interval(Integral, 0, None, closed="left"), None],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "lr": [Interval(Real, 0, None, closed="neither"), None],
        "weight_decay": [Interval(Real, 0, None, closed="left"), None],
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        annotator: Estimator = None,
        *,
        backend: str = "feature",
        n_ctx: int = 16,
        image_tuner: str = "vpt_deep",
        n_prompt_tokens: int = 20,
        lora_rank: int = 4,
        rule: str | None = None,
        complement: str | None = None,
        threshold: float = 0.5,
        relabel: bool = True,
        warm_up: int | None = None,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        weight_decay: float | None = None,
        device: str = "auto",
        random_state: Seed = None,
        verbose: bool = False,
    ) -> None:
        self.annotator = annotator
        self.backend = backend
        self.n_ctx = n_ctx
        self.image_tuner = image_tuner
        self.n_prompt_tokens = n_prompt_tokens
        self.lora_rank = lora_rank
        self.rule = rule
        self.complement = complement
        self.threshold = threshold
        self.relabel = relabel
        self.warm_up = warm_up
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_learnt")

    def _check_problem(self, X, y):
        for name in ("_learnt", "annotator_", "contexts_"):
            vars(self).pop(name, None)  # an earlier fit is over, however this one ends
        if self.annotator is None:
            if self.backend != "feature":
                raise ValueError(
                    f'backend="{self.backend}" learns prompts for a vision-language model: pass an'
                    ' annotator, or use backend="feature"'
                )
            return super()._check_problem(X, y)
        self.annotator_ = fitted_annotator(self.annotator, X)
        if self.backend != "feature":
            check_encoder(self.annotator_._prompted.encoder, self.backend)
        problem = check_among(X, y, self.annotator_.classes_, "the annotator")
        # the prompts are in the annotator's order
        if problem.classes.tolist() != self.annotator_.classes_.tolist():
            raise ValueError(
                "the annotator was fitted by an earlier version, which did not sort its classes:"
                " fit it again"
            )
        return problem

    def _check_samples(self, data, reset):
        if not hasattr(self, "annotator_"):
            return super()._check_samples(data, reset)
        check_not_empty(samples_of(data))
        if is_image_data(data):
            as_samples(data)  # refuses shapes that are not of images
            if reset:
                forget_features(self)
            return data
        backend = self.backend if reset else self._learnt["backend"]
        if backend == "full":
            raise ValueError(
                'backend="full" tunes the image tower, so X must hold images; for embeddings use'
                ' backend="text" or "feature"'
            )
        return validate_features(self, data, reset, [np.float64, np.float32])

    def _fit_scores(self, problem):
        data, candidates = problem.data, problem.candidates
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        generator = torch.Generator().manual_seed(seed)
        settings = self._settings(np.count_nonzero(~candidates.all(axis=1)))
        decay, lr, batch_size = (settings[k] for k in ("weight_decay", "lr", "batch_size"))
        learnt = {"backend": self.backend, "batch_size": batch_size, "scale": 1.0}
        if hasattr(self, "annotator_"):
            learnt["scale"] = self.annotator_.logit_scale_
        else:
            learnt["scaler"] = StandardScaler().fit(data)
        if self.backend == "full":
            learnt["tower"] = (self.image_tuner, self.n_prompt_tokens, self.lora_rank)

        samples = self._samples(data, learnt)
        prompts = self._prompts(samples, len(problem.classes), generator)
        images = self._image_tower(learnt, generator)
        model = DualPromptModel(prompts, images, learnt["scale"]).to(self._device(self.backend))
        parameters = list(trainable(model).values())
        if self.backend == "feature":
            optimizer = torch.optim.Adam(parameters, lr, weight_decay=decay)
        else:
            optimizer = torch.optim.SGD(parameters, lr, momentum=0.9, weight_decay=decay)
        history = train(
            model,
            samples,
            candidates,
            known=problem.known,
            optimizer=optimizer,
            max_epochs=settings["max_epochs"],
            warm_up=settings["warm_up"],
            batch_size=batch_size,
            rule=settings["rule"],
            threshold=self.threshold,
            complement=settings["complement"],
            relabel=self.relabel,
            generator=generator,
            verbose=bool(self.verbose),
        )
        with torch.no_grad():
            features = torch.stack(prompts()).cpu()
        self.prompt_features_ = features.numpy()
        if self.backend != "feature":
            self.contexts_ = np.stack(list(_state(prompts).values()))
        learnt["images"] = _state(images)
        margin = prompt_margin(*self._logits(samples, learnt))
        sets = torch.from_numpy(candidates)
        self.proba_yes_ = margin.sigmoid().numpy()
        self.history_, self.n_iter_ = history, len(history)
        self.rule_, self.complement_ = settings["rule"], settings["complement"]
        self._learnt = learnt
        mask = select_clean(margin, sets, self.rule_, self.threshold)
        return mask.numpy(), best_margin(margin, sets).sigmoid().numpy()

    def _predict_proba(self, X):
        positive, _ = self._logits(self._new_samples(X), self._learnt)
        return positive.double().softmax(1).numpy()

    def _score(self, X, candidates):
        margin = prompt_margin(*self._logits(self._new_samples(X), self._learnt))
        return best_margin(margin, torch.from_numpy(candidates)).sigmoid().numpy()

    def _settings(self, n_labelled):
        """Return the parameters with a default of their own for each backend."""
        settings = dict(_OF_FEATURES if self.backend == "feature" else _PUBLISHED)
        given = {name: getattr(self, name) for name in _PUBLISHED}
        settings.update({name: value for name, value in given.items() if value is not None})
        n_batches = -(-n_labelled // settings["batch_size"])
        settings.setdefault("max_epochs", -(-_STEPS_ON_FEATURES // n_batches))
        settings.setdefault("warm_up", -(-settings["max_epochs"] // 4))
        return settings

    def _device(self, backend):
        if self.device == "auto" and backend != "feature":
            return self.annotator_._prompted.encoder.device
        return resolve_device(self.device)

    def _prompts(self, samples, n_classes, generator):
        if not hasattr(self, "annotator_"):
            return ResidualPrompts((n_classes, samples.array.shape[1]))
        prompted = self.annotator_._prompted
        if self.backend != "feature":
            return PromptTower(prompted.encoder, prompted.names, self.n_ctx, generator)
        plan = self.annotator_._plan()
        weights = plan.template_weights
        if isinstance(weights, str):  # "agreement", that is by the samples
            weights = plan.weigh(samples.array)
        text = torch.from_numpy(np.average(prompted.text, axis=0, weights=weights)).float()
        text = nn.functional.normalize(text, dim=1)
        return ResidualPrompts(text.shape, text)

    def _image_tower(self, learnt, generator=None):
        """Return the image tower, or what stands for it where features are given."""
        if learnt["backend"] != "full":
            return nn.Identity()
        encoder = self.annotator_._prompted.encoder
        return ImageTower(encoder, *learnt["tower"], generator or torch.Generator())

    def _samples(self, data, learnt):
        if learnt["backend"] == "full":
            return Images(data, self.annotator_._prompted.encoder)
        if hasattr(self, "annotator_"):
            return Features(self.annotator_.embed(data), self._device(learnt["backend"]))
        scaled = learnt["scaler"].transform(data)
        with_intercept = np.c_[scaled, np.ones(len(scaled))].astype(np.float32)
        return Features(with_intercept, self._device(learnt["backend"]))

    def _new_samples(self, X):
        data = X.data if isinstance(X, PartialLabels) else X
        return self._samples(self._check_samples(data, reset=False), self._learnt)

    def _logits(self, samples, learnt):
        tower = self._image_tower(learnt)
        with torch.no_grad():
            for name, parameter in trainable(tower).items():
                parameter.copy_(torch.from_numpy(learnt["images"][name]))
        device = self._device(learnt["backend"])
        positive, negative = torch.from_numpy(self.prompt_features_).to(device)
        return predict_logits(
            samples, tower.to(device), positive, negative, learnt["scale"], learnt["batch_size"]
        )


def _state(module):
    """Copy what was learnt to arrays, which skops can write."""
    return {name: p.detach().float().cpu().numpy().copy() for name, p in trainable(module).items()}
