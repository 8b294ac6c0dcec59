"""A vision-language model as an annotator that gives each image a set of candidate labels."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._compat import Interval, StrOptions
from .._images import is_image_data
from .._partial_labels import encode_labels
from .._rows import length
from .._rules import check_rule_value
from .._typing import Array, PathLike, Samples
from ._base import BasePartialAnnotator
from ._open_clip import SHIPPED_MODEL, names_clothes
from ._plan import AnnotationPlan, PromptedModel
from ._refinement import REFINEMENTS, check_refinement
from ._templates import resolve_classes, resolve_templates
from ._votes import VOTE_MODELS, check_weights


class VLMPartialAnnotator(BasePartialAnnotator):
    """Annotate images with candidate labels by asking a vision-language model in many ways.

    Every prompt template gives the model's zero-shot probabilities of the classes. With the rule
    "union" [1]_ a class is a candidate of an image if at least one template finds it the most
    probable, so the candidates are few where the templates agree and many where they do not.

    ``transform`` costs nothing: it returns a :class:`~sklearn_npll.PartialLabels` that runs the
    model the first time its candidates are used, so predicting with a pipeline does not, and one
    that was unpickled does not even load it. And ``fit_transform`` annotates at once. Both give the
    same candidates, except for labels given to ``fit_transform``.

    Parameters
    ----------
    classes : sequence of str or mapping
        Names of the classes, or a mapping from class labels (strings or integers) to one or several
        names each. The embeddings of several names are averaged, in each template, into one.
    templates : str or sequence of str, default="coreg-27"
        Prompts, with ``{}`` for the name of a class: "coreg-27" (27 general ones), "imagenet-80"
        (open_clip's 80 for ImageNet), "simple" ("a photo of a {}.") or your own.
    model : str, default="fashion-clip-tiny"
        "fashion-clip-tiny" is a small model for clothing that comes with this package. Otherwise
        any name of ``open_clip.list_models()`` with `pretrained`, ``"local-dir:<folder>"`` for a
        folder with ``open_clip_config.json`` and weights, or ``"hf-hub:<owner>/<name>"``.
    pretrained : str, default=None
        Tag or file of the weights, such as "openai", for a model named by open_clip. OpenAI's own
        weights need the models whose names end in "-quickgelu".
    vlm : object, default=None
        A model of your own, used instead of `model`. ``encode_image(images)`` receives a list of
        RGB PIL images and returns (n, d); ``encode_text(texts)`` receives a list of strings and
        returns (m, d), arrays or tensors; ``logit_scale`` is the factor of the cosines, not its
        logarithm. With `cache_dir` it also needs ``cache_key``, a string that names its weights.
        If it has ``encode_features(X)``, this embeds rows of a 2-D X. Clones share the object.
    rule : {"union", "topk", "threshold", "ratio", "cumulative", "cpl"}, default="union"
        From answers to candidates. "union" takes each template's most probable class. The others
        use the scores: the k largest; all of at least a given value, or else the largest; all of
        at least a given share of the largest; the smallest set of a given sum. "cpl" [2]_ looks at
        all images at once; see :meth:`~sklearn_npll.PartialLabels.from_scores`.
    rule_value : int, float or pair of float, default=None
        Argument of the rule: k=3, threshold=0.1, ratio=0.5, sum=0.9 or (alpha, beta)=(0.6, 0.9) by
        default; "union" has none.
    refine : {"zlap", "transclip", "inmap"}, default=None
        How to improve each template's probabilities by comparing the images given with each other,
        before votes and scores are made of them: "zlap" propagates labels over a graph of nearest
        neighbours [3]_, "transclip" fits a Gaussian to each class [4]_, "inmap" learns a prototype
        image of each class [5]_. See the notes.
    refine_params : dict, default=None
        Hyper-parameters of the method, by default those of its authors. "zlap": n_neighbors=5,
        gamma=5, alpha=0.3, max_iter=50, tol=1e-6. "transclip": n_neighbors=3, n_confident=8,
        prior_weight=1, temperature=50, max_iter=10, n_inner=5. "inmap": temperature=0.04,
        threshold=0.6, n_sinkhorn=0, learning_rate=10, max_iter=2000, tol=1e-5.
    aggregation : {"mean", "vote", "dawid_skene", "label_model"}, default="mean"
        From the templates' answers to scores: the mean of their probabilities, the shares of their
        votes, or the posterior of a model of their votes, fitted to those about the images given;
        see :class:`~sklearn_npll.baselines.DawidSkeneClassifier` and
        :class:`~sklearn_npll.baselines.LabelModelClassifier`. These two take templates to err
        independently. Those of one model do not, so their scores are far too confident.
    template_weights : "agreement" or array-like of shape (n_templates,), default=None
        What each template counts in the mean or the vote; all count the same by default. With
        "agreement" it is found from what the templates choose for the images given, before any
        refinement: the log-odds of each one's accuracy, estimated without labels, as in
        :class:`~sklearn_npll.annotators.EnsemblePartialAnnotator`. The rule "union" counts every
        template.
    max_scores : int, default=None
        How many scores of each image the returned container keeps: the largest, divided by their
        sum, in a sparse matrix. All by default, in a dense one. Candidates are made of all scores
        before, and an image that prefers no class keeps all. With many classes, 20 take a fraction
        of the memory; see the notes.
    output : {"images", "embeddings"}, default="images"
        What the ``data`` of the returned container is: the samples as given, or their embeddings.
        These need the image encoder, so that ``transform`` is then not lazy.
    device : str, default="auto"
        Where the model runs: "cpu", "cuda", "cuda:1", "mps"...; "auto" is CUDA if there is one.
    precision : {"fp32", "fp16", "bf16"}, default="fp32"
        Number type of the model.
    batch_size : int, default=256
        Images, and prompts, to encode at once.
    cache_dir : str or path-like, default=None
        Folder for embeddings of images and prompts, kept between runs. Images in it are not
        encoded again, whatever the templates or the rule; a changed file, model or preprocessing
        is noticed. Without it nothing is kept.
    on_error : {"raise", "skip"}, default="raise"
        What to do with an image that cannot be read. "skip" makes all classes candidates of it,
        with uniform scores, votes of -1 and an embedding of zeros, and warns.
    use_y : bool, default=False
        Whether ``fit_transform`` believes ``y``, where it is not -1: those rows get it as their
        only candidate. Off by default, since a cross-validation passes the full y along for its
        scorer. To trust some labels and score on all of them pass `known_labels` instead.
    verbose : int or bool, default=False
        Whether to show a progress bar.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    templates_ : list of str
        The templates.
    logit_scale_ : float
        The model's factor of the cosines.
    n_features_in_ : int
        Number of columns, if fitted on a 2-D X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if fitted on a data frame.

    See Also
    --------
    PartialLabels : The container returned.
    CoRegClassifier : Learns from it.

    Notes
    -----
    X may be an array of shape (n, H, W) or (n, H, W, 1|3|4): uint8, uint16, or floats in [0, 1] or
    [0, 255], memory maps included; a list, 1-D array or series of PIL images, paths, encoded bytes
    or arrays, of any sizes; or a dataset with a length, whose items are images, tuples that begin
    with one, or dictionaries with one under "image" or "img". A 2-D X holds image embeddings
    computed before, by :meth:`embed` for instance.

    Images are read and preprocessed in threads while the model works. Memory is proportional to
    the batch, apart from what is returned.

    What is returned takes four bytes for each image and class, for the scores, unless `max_scores`
    is set. Then no such matrix is made on the way either, except by the options that are called
    transductive below. Learners of the package take sparse scores; all but
    :class:`~sklearn_npll.CoRegClassifier` make them dense again, with zeros for those left out.

    Loaded models are kept by the process, so refitting and cloning do not load them again. A
    pickled annotator holds no model and loads it on first use; your own `vlm` is pickled with it.

    `refine`, the aggregations "dawid_skene" and "label_model", the weights "agreement" and the
    rule "cpl" are transductive: what an image gets depends on the others of the same call. So the
    probabilities of a part of X differ from the part of the probabilities of X, and those of a
    single image are of little use. A slice of a container that was not used yet is annotated by
    itself. To weigh templates the same way in every call, pass what :meth:`weigh_templates`
    returned once.

    With `refine`, votes too are those of the refined probabilities, and so is the rule "union":
    templates agree more, so that sets are smaller. The neighbours of all images are searched once,
    in time that grows with the square of their number; then the method runs for each template,
    "inmap" by far the longest. Memory is that of the embeddings, the graph of neighbours and a few
    arrays of shape (n_samples, n_classes). Probabilities by "zlap" are shares of what reaches an
    image, and much flatter than others, so that rules that use scores need other values. "inmap"
    is best with ``n_sinkhorn=20`` where all classes are equally frequent, and only there.

    References
    ----------
    .. [1] Wang, Xie, Zhang, Liu, Xia, "Pre-Trained Vision-Language Models as Noisy Partial
       Annotators", AAAI 2025.
    .. [2] Zhang, Wei, Liu, Feng, "Candidate Pseudolabel Learning: Enhancing Vision-Language Models
       by Prompt Tuning with Unlabeled Data", ICML 2024.
    .. [3] Stojnić, Kalantidis, Tolias, "Label Propagation for Zero-shot Classification with
       Vision-Language Models", CVPR 2024.
    .. [4] Zanella, Gérin, Ben Ayed, "Boosting Vision-Language Models with Transduction", NeurIPS
       2024.
    .. [5] Qian, Xu, Hu, "Intra-Modal Proxy Learning for Zero-Shot Visual Categorization with CLIP",
       NeurIPS 2023.

    Examples
    --------
    Any object with two encoders will do as the model; this one knows brightness only.

    >>> import numpy as np
    >>> from sklearn_npll import VLMPartialAnnotator
    >>> class Brightness:
    ...     logit_scale = 10.0
    ...
    ...     def encode_image(self, images):
    ...         angle = np.array([np.asarray(image).mean() / 255 for image in images]) * np.pi / 2
    ...         return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    ...
    ...     def encode_text(self, texts):
    ...         return np.array([[1, 0] if "night" in text else [0, 1] for text in texts])
    >>> annotator = VLMPartialAnnotator(["day", "night"], vlm=Brightness())
    >>> X = np.array([[[250]], [[3]], [[120]]], dtype=np.uint8)
    >>> annotator.fit_transform(X)
    PartialLabels(n_samples=3, n_classes=2, mean_set_size=1.00, data=ndarray)
    >>> annotator.predict(X)
    array(['day', 'night', 'night'], dtype='<U5')
    >>> annotator.set_params(rule="threshold", rule_value=0.3).fit_transform(X).candidates
    array([[ True, False],
           [False,  True],
           [ True,  True]])

    Among brighter images like it, the third one becomes day.

    >>> X = np.array([[[250]], [[3]], [[120]], [[140]], [[150]], [[160]]], dtype=np.uint8)
    >>> annotator.predict(X)
    array(['day', 'night', 'night', 'day', 'day', 'day'], dtype='<U5')
    >>> annotator.set_params(refine="transclip").predict(X)
    array(['day', 'night', 'day', 'day', 'day', 'day'], dtype='<U5')
    """

    # Tells scikit-learn before 1.6 that its checks cannot make one without arguments.
    _required_parameters = ["classes"]

    _shared_by_clones = ("vlm",)

    _parameter_constraints = {
        "classes": "no_validation",
        "templates": "no_validation",
        "model": [str],
        "pretrained": [str, os.PathLike, None],
        "vlm": "no_validation",
        "rule": [str],
        "rule_value": [Interval(Real, 0, None, closed="neither"), tuple, list, None],
        "refine": [StrOptions(set(REFINEMENTS)), None],
        "refine_params": [dict, None],
        "aggregation": [StrOptions({"mean", "vote", *VOTE_MODELS})],
        "template_weights": [StrOptions({"agreement"}), "array-like", None],
        "max_scores": [Interval(Integral, 1, None, closed="left"), None],
        "output": [StrOptions({"images", "embeddings"})],
        "device": [str],
        "precision": [StrOptions({"fp32", "fp16", "bf16"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "cache_dir": [str, os.PathLike, None],
        "on_error": [StrOptions({"raise", "skip"})],
        "use_y": ["boolean"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        classes: Mapping[Any, Any] | ArrayLike,
        *,
        templates: str | Sequence[str] = "coreg-27",
        model: str = SHIPPED_MODEL,
        pretrained: PathLike | None = None,
        vlm: Any = None,
        rule: str = "union",
        rule_value: float | Sequence[float] | None = None,
        refine: str | None = None,
        refine_params: dict[str, Any] | None = None,
        aggregation: str = "mean",
        template_weights: str | ArrayLike | None = None,
        max_scores: int | None = None,
        output: str = "images",
        device: str = "auto",
        precision: str = "fp32",
        batch_size: int = 256,
        cache_dir: PathLike | None = None,
        on_error: str = "raise",
        use_y: bool = False,
        verbose: bool = False,
    ) -> None:
        self.classes = classes
        self.templates = templates
        self.model = model
        self.pretrained = pretrained
        self.vlm = vlm
        self.rule = rule
        self.rule_value = rule_value
        self.refine = refine
        self.refine_params = refine_params
        self.aggregation = aggregation
        self.template_weights = template_weights
        self.max_scores = max_scores
        self.output = output
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.cache_dir = cache_dir
        self.on_error = on_error
        self.use_y = use_y
        self.verbose = verbose

    def predict_proba_per_template(self, X: Samples) -> Array:
        """Zero-shot probabilities of each template, refined if `refine` is given.

        Parameters
        ----------
        X : images or array-like of shape (n_samples, n_dimensions)
            The samples.

        Returns
        -------
        proba : ndarray of float32 of shape (n_samples, n_templates, n_classes)
            The probabilities. Memory is proportional to all three.
        """
        X = self._check_X(X)
        return self._plan().template_probabilities(X)

    def weigh_templates(self, X: Samples) -> Array:
        """Weights of the templates in the scores of X.

        Parameters
        ----------
        X : images or array-like of shape (n_samples, n_dimensions)
            The samples. Without ``template_weights="agreement"`` the weights do not depend on them.

        Returns
        -------
        weights : ndarray of float64 of shape (n_templates,)
            The weights, of sum 1, usable as `template_weights`.
        """
        X = self._check_X(X)
        plan = self._plan()
        if isinstance(plan.template_weights, str):
            return plan.weigh(plan.embed(X))
        n_templates = len(self.templates_)
        equal = np.full(n_templates, 1 / n_templates)
        return equal if plan.template_weights is None else plan.template_weights

    def embed(self, X: Samples) -> Array:
        """Embed images in the space they share with the prompts.

        Parameters
        ----------
        X : images or array-like of shape (n_samples, n_dimensions)
            The samples.

        Returns
        -------
        embeddings : ndarray of float32 of shape (n_samples, n_dimensions)
            Embeddings of length one, usable as X in any other method. Zeros for an image that
            cannot be read and was skipped.
        """
        X = self._check_X(X)
        return self._plan().embed(X)

    def _fit(self, X, y, known_labels, annotate):
        labels, names = resolve_classes(self.classes)
        classes, templates = np.asarray(labels), resolve_templates(self.templates)
        self._scoring_options(templates)
        check_rule_value(self.rule, self.rule_value, len(labels))
        X = self._check_X(X, reset=True)
        if self.vlm is None and self.model == SHIPPED_MODEL and not names_clothes(names):
            warnings.warn(
                f"The shipped model {SHIPPED_MODEL!r} knows clothes only, and no class is called"
                " like one. For other pictures take a model such as model='ViT-B-32-quickgelu',"
                " pretrained='openai', on the command line --model ViT-B-32-quickgelu --pretrained"
                " openai (0.6 GB, downloaded once).",
                stacklevel=4,  # this method, fit, its validation, the caller
            )
        trusted, name = self._trusted_labels(y, known_labels)
        codes = None if trusted is None else encode_labels(trusted, classes, length(X, "X"), name)
        prompted = PromptedModel(
            vlm=self.vlm,
            model=self.model,
            pretrained=self.pretrained,
            device=self.device,
            precision=self.precision,
            batch_size=self.batch_size,
            cache_dir=self.cache_dir,
            templates=templates,
            names=names,
        )
        prompted.load()
        self.classes_, self.templates_, self._prompted = classes, templates, prompted
        self.logit_scale_ = prompted.encoder.logit_scale
        if not is_image_data(X):
            self._plan().embed(X[:1])  # fails if X and the prompts have different dimensions
        return self._annotate(X, codes) if annotate else None

    @property
    def _is_transductive(self):
        return (
            self.refine is not None
            or self.aggregation in VOTE_MODELS
            or isinstance(self.template_weights, str)
        )

    @property
    def _embeds(self):
        return self.output == "embeddings"

    def _scoring_options(self, templates):
        """Check the options between embeddings and scores, and return them for a plan."""
        check_refinement(self.refine, self.refine_params)
        weights = check_weights(
            self.template_weights, len(templates), "template_weights", "templates"
        )
        if isinstance(weights, np.ndarray):
            weights = weights / weights.sum()
        if weights is not None and self.aggregation in VOTE_MODELS:
            raise ValueError(
                f"aggregation={self.aggregation!r} weighs the templates itself; template_weights"
                f" must be None, but is {self.template_weights!r}."
            )
        return {
            "template_weights": weights,
            "refine": self.refine,
            "refine_params": dict(self.refine_params or {}),
            "aggregation": self.aggregation,
        }

    def _plan(self):
        return AnnotationPlan(
            **self._scoring_options(self.templates_),
            prompted=self._prompted,
            rule=self.rule,
            rule_value=self.rule_value,
            batch_size=self.batch_size,
            skip=self.on_error == "skip",
            verbose=bool(self.verbose),
            max_scores=self.max_scores,
        )

    def _all_scores(self, X):
        return replace(self._plan(), max_scores=None)(X)["scores"]

    def _data_and_plan(self, X):
        """Decide what a container for checked samples carries, and how it is annotated."""
        plan = self._plan()
        return (plan.embed(X), replace(plan, embedded=True)) if self._embeds else (X, plan)
