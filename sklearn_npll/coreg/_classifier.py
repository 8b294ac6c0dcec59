"""Co-Reg as a scikit-learn classifier."""

from collections.abc import Mapping
from numbers import Integral, Real

import numpy as np
import torch

from .._compat import HasMethods, Interval, StrOptions
from .._inputs import check_problem, shares_by_class
from .._neural._docs import learner
from .._neural._pair import PairClassifier
from .._neural._sparse_rows import map_rows
from ._annotation import annotator_labels, resolve_prior
from ._division import annotator_evidence, detected_clean_probability
from ._net import CoRegNet

# What "auto" stands for; "scores" only where there are any.
VARIANTS = {
    "paper": {
        "prior": "uniform",
        "warm_up_target": "candidates",
        "n_mixed_views": 2,
        "unlabelled_sampling": "equal",
        "temperature": 0.5,
        "contrastive": "noise_tolerant",
        "co_labelling": "peer",
        "mixup_alpha": 4.0,
        "evidence_weight": 0.0,
    },
    "robust": {
        "prior": "adaptive",
        "warm_up_target": "scores",
        "n_mixed_views": 1,
        "unlabelled_sampling": "once",
        "temperature": 1.0,
        "contrastive": "none",
        "co_labelling": "peer",
        "mixup_alpha": 4.0,
        "evidence_weight": 0.0,
    },
}
# What the robust variant has instead where the samples are images.
ROBUST_ON_IMAGES = {"co_labelling": "average", "mixup_alpha": 0.5, "evidence_weight": 1.0}


@learner
class CoRegClassifier(PairClassifier):
    """Classifier that learns from candidate labels, of which some miss the true label.

    Co-Reg trains two networks. After a warm-up on the annotator's labels, each network divides the
    data in every epoch into samples whose candidates it believes and samples whose candidates it
    does not, and gives the other network targets purified accordingly. Class prototypes and, in
    the paper's variant, a contrastive loss that tolerates wrong pseudo-labels shape the
    representation.

    Parameters
    ----------
    {shared_parameters}
    variant : {"robust", "paper"}, default="robust"
        What "auto" stands for in the parameters that have it. "paper" is the method as published.
        "robust" starts from the annotator's scores where there are any, does not assume balanced
        classes, does not sharpen, and spends its work on more steps rather than on a second view
        and the contrastive loss, which did better on most of our benchmarks.
    warm_up : int or "auto", default="auto"
        Epochs in which each network learns from the annotator alone. "auto" is a share of
        `max_epochs`, rounded up: two fifths if `warm_up_target` is "scores", else half on images
        and a fifth on features. The paper takes 50 of 100, and 50 or 100 of 800. A warm-up of a few
        hundred steps or less leaves networks of images whose first division is near chance.
    warm_up_target : {"auto", "scores", "candidates"}, default="auto"
        What the warm-up learns from. "scores": the annotator's probabilities, or the shares of its
        votes, by their cross-entropy, in batches of `batch_size`; rows that prefer no class are
        left out. "candidates": Eq. 1-3, in batches twice as large. "auto" is "candidates" in the
        paper's variant; in the robust one "scores" if the `PartialLabels` have votes, or scores
        that are probabilities.
    prior : {"auto", "adaptive", "uniform", "candidates", "annotator", "estimated"}, mapping, \
array-like of shape (n_classes,) or None, default="auto"
        Class shares that the predictions are aligned to before the division, if they are known by
        the names of the classes, such as ``{"cat": 0.7, "dog": 0.3}`` or a pandas Series with them
        as index, or as an array in the order of `classes_`, which is sorted. Shares are divided by
        their sum. "uniform": equal shares, wrong for imbalanced classes. "candidates": the mean of
        the candidate sets with equal weight in each. "annotator": the mean of the annotator's
        scores or votes. "adaptive": "uniform" if the annotator, or else the sets, name the classes
        about equally often, otherwise the fourth root of "annotator", normalised, or else
        "candidates". "estimated": the mean of the predictions restricted to the candidates. None:
        no alignment. "auto" is "uniform" in the paper's variant, "adaptive" in the robust one.
    alignment_rounds : int, default=1
        Rounds of that alignment. 1 divides by the ratio of the mean prediction to `prior`, as
        released. More come close to Sinkhorn's balanced assignment, in which the classes have
        exactly these shares.
    neighbor_weight : float in [0, 1], default=0.0
        Share of the mean prediction of a row's neighbours in the predictions that divide the data
        and re-scale the candidates (Eq. 4-5), before the alignment. Neighbours are found anew in
        every epoch, by the cosine of the embeddings of the dividing network.
    neighbors : int or transformer, default=10
        How many neighbours, found exactly, in time that grows with the square of the rows; or a
        transformer whose ``fit_transform`` returns their graph, such as scikit-learn's
        :class:`~sklearn.neighbors.KNeighborsTransformer` or, for approximate neighbours at scale,
        pynndescent's ``PyNNDescentTransformer``.
    loss_window : int, default=5
        Epochs over which division losses (and the mean prediction of the alignment) are averaged;
        1 as the paper writes it.
    division : {"mixture", "class"} or object, default="mixture"
        Where clean probabilities come from. "mixture": in every epoch from a mixture of two
        Gaussians on the losses of each network. "class": from one for each class that is the most
        probable candidate of at least 20 rows, so that no class is put away as a whole because it
        is hard. Otherwise a detector, an estimator with
        ``fit(X, y)``, ``clean_mask_`` and ``clean_score_`` such as those of
        `sklearn_npll.detection`, a clone of which is fitted once, before the warm-up. Its own
        random numbers are set in the detector. If its annotator has names for classes, so must the
        candidates, as those of a `PartialLabels`.
    clean_threshold : float, default=0.5
        Clean probability above which a sample joins the partial split. A detector's mask decides by
        itself: its scores are clipped so that those of the mask alone are above.
    co_labelling : {"auto", "peer", "own", "average"}, default="auto"
        Who divides the data and labels them for a network. "peer": the other network, as in the
        paper. "own": itself (an ablation). "average": only one network is trained, in half the
        time, and the other is the moving average of its weights, a mean teacher [8]_, whose
        predictions also make up the targets. "auto" is "average" for images in the robust variant,
        else "peer".
    average_momentum : float in [0, 1), default=0.99
        Share of the moving average that a gradient step leaves in place; less in the first steps.
    evidence_weight : float or "auto", default="auto"
        Power of the annotator's scores, or of the shares of its votes, that the predictions are
        multiplied by where they are restricted to the candidates (Eq. 5); before, the scores are
        aligned to `prior` as the predictions are. 0 takes the bare sets. "auto" is 1 for images in
        the robust variant if the warm-up is on scores, else 0.
    n_weak_views : int, default=2
        Weak views whose predictions are averaged in the targets (Eq. 6).
    n_mixed_views : {1, 2} or "auto", default="auto"
        Strong views of each sample that are mixed and trained on in a step (Eq. 8); half the work
        with one. "auto" is 2 in the paper's variant, 1 in the robust one.
    temperature : float or "auto", default="auto"
        Sharpening temperature (Eq. 7); 1 does not sharpen. "auto" is 0.5 in the paper's variant, 1
        in the robust one.
    use_unlabelled : bool, default=True
        Whether samples outside the partial split are trained on, without their candidates.
    unlabelled_sampling : {"auto", "equal", "once"}, default="auto"
        Rows outside the partial split in a step. "equal": as many as of the partial split, so that
        they are gone through again and again where they are few. "once": so many that each comes
        once an epoch, at most as many. "auto" is "equal" in the paper's variant, "once" in the
        robust one.
    unlabelled_loss : {"release", "paper"}, default="release"
        Squared error of Eq. 8: its mean over classes, ramped up over 16 epochs, as the authors
        released it; or its sum over classes, as the paper writes it.
    unlabelled_weight : float, default=1.0
        Weight of that term.
    mixup_alpha : float, None or "auto", default="auto"
        Parameter of the Beta distribution of MixUp; None for no MixUp. "auto" is 0.5 for
        images in the robust variant, else 4.
    prototype_weight : float, default=0.1
        Weight of the prototype alignment (Eq. 9-10); 0 for none.
    prototype_momentum : float, default=0.999
        Share of a prototype that a sample leaves in place.
    prototype_temperature : float, default=0.3
        Temperature of the similarities to the prototypes.
    prototype_views : {"mixed", "strong"}, default="mixed"
        What is aligned: the mixed strong views, as released, or the plain strong view.
    contrastive : {"auto", "noise_tolerant", "supcon", "moco", "none"}, default="auto"
        Contrastive loss (Eq. 11): pairs with the same pseudo-label attract when both are in the
        partial split; always; never; or no such loss. It takes a pass with gradients and one
        without. "auto" is "noise_tolerant" in the paper's variant, "none" in the robust one.
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
    elr_weight : float, default=0.0
        Weight of early-learning regularisation [2]_ in the partial split, which pulls each network
        to the moving average of its earlier predictions of a row; 0 for none.
    pseudo_label_threshold : "class", float in (0, 1) or None, default=None
        Confidence below which a row outside the partial split does not count in the squared error.
        "class" is 0.98 for the class with the largest mean prediction and less for others, in
        proportion to theirs [3]_.
    disagreement_weight : float in [0.5, 1], default=0.5
        Weight w in the squared error of rows for which the two networks predict different classes;
        it is 1 - w for the others, and both are doubled, so that 0.5 changes nothing. The authors
        [3]_ take 0.9, and call it disagreement if one network alone is confident.
    candidate_update : {"cluster"} or None, default=None
        Whether a set that a division does not believe is changed for the next one, by a rule of
        ours after the expansion and shrinkage of [4]_. Classes are clustered by the confusion of
        candidates and predictions. A row that is predicted with a probability of at least 0.5 gains
        the classes of the predicted one's cluster; then every row loses those with a mean
        probability below an equal share, but for its best.
    doubly_robust : bool, default=False
        Whether rows with a known label are trained, after the warm-up, on what they are predicted,
        like the others, and what that does to the loss on average is corrected by their labels
        [5]_: a share t / T of the correction in epoch t of T. Each step passes known rows forward
        for it. By default known rows are trained on their label.
    prototype_blend : float in [0, 1], default=0.0
        Largest share of the prototypes' predictions in the pseudo-labels outside the partial split,
        from `contrastive_start` on. The share is in proportion to how often the class that is
        predicted without them is predicted [6]_.
    confidence_weight : float in [0, 1], default=0.0
        Weight of each network's own prediction, hardened, in the targets of the partial split [7]_;
        it grows over 16 epochs. It is hardened once an epoch, so that the classes have the shares
        of `prior`.
    deploy : {"ensemble", "single"}, default="ensemble"
        Whether predictions come from both networks or from the first, at half the cost.

    Attributes
    ----------
    {shared_attributes}
    history_ : list of dict
        One row an epoch: ``epoch``, ``phase``, the mean losses ``loss_warm_up``,
        ``loss_partial``, ``loss_unlabelled``, ``loss_prototype``, ``loss_contrastive`` (None where
        a term was not used), ``partial_size``, ``partial_share``, ``partial_clean_probability``,
        ``mixture_means``, ``label_change_rate``, ``covering_rate``, ``approximated_accuracy`` (of
        the training predictions, after the warm-up), ``eval_accuracy`` and
        ``eval_accuracy_single`` (with an `eval_set`), ``gradient_samples`` (rows passed forward
        to train on), ``lr`` and ``seconds``.
    label_distributions_ : ndarray or csr_array of shape (n_samples, n_classes)
        Purified labels of the training samples: Eq. 6 without sharpening, the mean of both
        networks. Sparse in large problems; see the notes.
    clean_probability_ : ndarray of shape (n_samples,)
        Probability that the candidates hold the true label: the mean of both networks, or the
        detector's score, clipped at `clean_threshold` to agree with its mask.

    See Also
    --------
    VLMPartialAnnotator : Makes candidate labels with a vision-language model.
    PartialLabels : The container of samples and candidates.
    sklearn_npll.detection.DeFTClassifier : Learns from the rows alone that a detector believes.

    Notes
    -----
    The paper trains 100 to 800 epochs with batches of 256, a learning rate of 0.01 and a cutout of
    16 of 28 or 32 pixels; ``variant="paper"`` leaves these to their own parameters. `batch_size`
    counts the rows of the partial split; `unlabelled_sampling` tells how many others come with
    them.

    The networks standardise their inputs by themselves.

    Where ``n_samples * n_classes`` is 2**26 or more, no matrix of this shape is made: candidates
    and scores stay sparse, and the predictions that divide the data are made twice, block by block,
    where they are aligned. That changes nothing but the rounding. Only ``label_distributions_`` and
    three figures of the history, ``label_change_rate``, ``covering_rate`` and
    ``approximated_accuracy``, then come from the predictions of the candidates and of the 20 most
    probable classes by each network; the distributions are divided by their sums. `elr_weight`,
    `candidate_update` and `confidence_weight` remember matrices, so that with one of these on
    everything is dense.

    The parameters from `elr_weight` to `confidence_weight` come from other papers and are off.
    `elr_weight`, `pseudo_label_threshold` and `disagreement_weight` are taken on mixed rows, with
    what belongs to the two rows mixed as their targets are.

    A row in which every class is a candidate carries no label: it is never in the partial split and
    does not count in a warm-up on candidates. An epoch whose partial split is empty trains as in
    the warm-up; one whose unlabelled split is empty trains on the partial split alone.

    References
    ----------
    .. [1] Q.-W. Wang, Y. Xie, L. Zhang, Z. Liu, S.-T. Xia, "Pre-Trained Vision-Language Models as
       Noisy Partial Annotators", AAAI 2025, arXiv:2406.18550.
    .. [2] S. Liu, J. Niles-Weed, N. Razavian, C. Fernandez-Granda, "Early-Learning Regularization
       Prevents Memorization of Noisy Labels", NeurIPS 2020.
    .. [3] H. P. Zou, C. Caragea, "JointMatch: A Unified Approach for Diverse and Collaborative
       Pseudo-Labeling to Semi-Supervised Text Classification", EMNLP 2023.
    .. [4] Y. Duan, Z. Zhao, L. Qi, L. Zhou, L. Wang, Y. Shi, "Roll With the Punches: Expansion and
       Shrinkage of Soft Label Selection for Semi-supervised Fine-Grained Learning", AAAI 2024.
    .. [5] B. Zhu, M. Ding, P. Jacobson, M. Wu, W. Zhan, M. Jordan, J. Jiao, "Doubly Robust
       Self-Training", NeurIPS 2023.
    .. [6] Y. Oh, D.-J. Kim, I. S. Kweon, "DASO: Distribution-Aware Semantics-Oriented Pseudo-label
       for Imbalanced Semi-Supervised Learning", CVPR 2022.
    .. [7] C. Burns et al., "Weak-to-Strong Generalization: Eliciting Strong Capabilities With Weak
       Supervision", 2023, arXiv:2312.09390.
    .. [8] A. Tarvainen, H. Valpola, "Mean Teachers Are Better Role Models", NeurIPS 2017.

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
        **PairClassifier._parameter_constraints,
        "variant": [StrOptions({"robust", "paper"})],
        "warm_up": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "warm_up_target": [StrOptions({"auto", "scores", "candidates"})],
        "prior": [
            StrOptions({"auto", "adaptive", "uniform", "candidates", "annotator", "estimated"}),
            Mapping,
            "array-like",
            None,
        ],
        "alignment_rounds": [Interval(Integral, 1, None, closed="left")],
        "neighbor_weight": [Interval(Real, 0, 1, closed="both")],
        "neighbors": [Interval(Integral, 1, None, closed="left"), HasMethods(["fit_transform"])],
        "loss_window": [Interval(Integral, 1, None, closed="left")],
        "division": [StrOptions({"mixture", "class"}), HasMethods(["fit"])],
        "clean_threshold": [Interval(Real, 0, 1, closed="left")],
        "co_labelling": [StrOptions({"auto", "peer", "own", "average"})],
        "average_momentum": [Interval(Real, 0, 1, closed="left")],
        "evidence_weight": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "n_weak_views": [Interval(Integral, 1, None, closed="left")],
        "n_mixed_views": [Interval(Integral, 1, 2, closed="both"), StrOptions({"auto"})],
        "temperature": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "use_unlabelled": ["boolean"],
        "unlabelled_sampling": [StrOptions({"auto", "equal", "once"})],
        "unlabelled_loss": [StrOptions({"release", "paper"})],
        "unlabelled_weight": [Interval(Real, 0, None, closed="left")],
        "mixup_alpha": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"}), None],
        "prototype_weight": [Interval(Real, 0, None, closed="left")],
        "prototype_momentum": [Interval(Real, 0, 1, closed="left")],
        "prototype_temperature": [Interval(Real, 0, None, closed="neither")],
        "prototype_views": [StrOptions({"mixed", "strong"})],
        "contrastive": [StrOptions({"auto", "noise_tolerant", "supcon", "moco", "none"})],
        "contrastive_weight": [Interval(Real, 0, None, closed="left")],
        "contrastive_temperature": [Interval(Real, 0, None, closed="neither")],
        "contrastive_start": [Interval(Integral, 0, None, closed="left")],
        "queue_size": [Interval(Integral, 0, None, closed="left")],
        "key_momentum": [Interval(Real, 0, 1, closed="both")],
        "reset_keys": ["boolean"],
        "projection_dim": [Interval(Integral, 1, None, closed="left")],
        "elr_weight": [Interval(Real, 0, None, closed="left")],
        "pseudo_label_threshold": [
            Interval(Real, 0, 1, closed="neither"),
            StrOptions({"class"}),
            None,
        ],
        "disagreement_weight": [Interval(Real, 0.5, 1, closed="both")],
        "candidate_update": [StrOptions({"cluster"}), None],
        "doubly_robust": ["boolean"],
        "prototype_blend": [Interval(Real, 0, 1, closed="both")],
        "confidence_weight": [Interval(Real, 0, 1, closed="both")],
    }
    _net_class = CoRegNet
    _samples_per_row = None  # the partial split decides

    variant: str = "robust"
    warm_up: object = "auto"
    warm_up_target: str = "auto"
    prior: object = "auto"
    alignment_rounds: int = 1
    neighbor_weight: float = 0.0
    neighbors: object = 10
    loss_window: int = 5
    division: object = "mixture"
    clean_threshold: float = 0.5
    co_labelling: str = "auto"
    average_momentum: float = 0.99
    evidence_weight: object = "auto"
    n_weak_views: int = 2
    n_mixed_views: object = "auto"
    temperature: object = "auto"
    use_unlabelled: bool = True
    unlabelled_sampling: str = "auto"
    unlabelled_loss: str = "release"
    unlabelled_weight: float = 1.0
    mixup_alpha: object = "auto"
    prototype_weight: float = 0.1
    prototype_momentum: float = 0.999
    prototype_temperature: float = 0.3
    prototype_views: str = "mixed"
    contrastive: str = "auto"
    contrastive_weight: float = 0.1
    contrastive_temperature: float = 0.07
    contrastive_start: int = 10
    queue_size: int = 8192
    key_momentum: float = 0.999
    reset_keys: bool = False
    projection_dim: int = 128
    elr_weight: float = 0.0
    pseudo_label_threshold: object = None
    disagreement_weight: float = 0.5
    candidate_update: str | None = None
    doubly_robust: bool = False
    prototype_blend: float = 0.0
    confidence_weight: float = 0.0

    def _check_options(self, eval_set):
        super()._check_options(eval_set)
        if self.disagreement_weight > 0.5 and self._resolved("co_labelling") != "peer":
            raise ValueError(
                f"disagreement_weight={self.disagreement_weight!r} needs co_labelling='peer': "
                "otherwise no network sees what another predicts"
            )
        if self.prototype_blend and not self.prototype_weight:
            raise ValueError(
                f"prototype_blend={self.prototype_blend!r} needs prototypes, and there are none "
                "with prototype_weight=0"
            )
        if self.alignment_rounds > 1 and self._resolved("prior") is None:
            raise ValueError(
                f"alignment_rounds={self.alignment_rounds!r} needs a prior to align to, not None"
            )
        if self.candidate_update is not None and not isinstance(self.division, str):
            raise ValueError(
                f"candidate_update={self.candidate_update!r} needs division='mixture' or 'class': "
                "a detector has judged the given candidates for good, so others would not be used"
            )

    def _check_problem(self, X, y):
        keeps_matrices = (
            self.alignment_rounds > 1
            or self.neighbor_weight > 0
            or self.elr_weight > 0
            or self.candidate_update is not None
            or self.confidence_weight > 0
        )
        return check_problem(X, y, sparse=not keeps_matrices)

    def _make_training(self, problem, views, device):
        if self.doubly_robust and not problem.known.any():
            raise ValueError(
                "doubly_robust=True corrects by rows whose label is known, and there are none: say "
                "which they are with PartialLabels(..., known=...), or set doubly_robust=False"
            )
        training = super()._make_training(problem, views, device)
        prior, target = self._resolved("prior"), self._resolved("warm_up_target")
        asked = [
            f"{name}={value!r}"
            for name, value in (("prior", "annotator"), ("warm_up_target", "scores"))
            if isinstance(getattr(self, name), str) and getattr(self, name) == value
        ]
        weight = self.evidence_weight
        if not isinstance(weight, str) and weight > 0:
            asked.append(f"evidence_weight={weight!r}")
        labels = shares = None
        if (
            asked
            or target == "scores"
            or (isinstance(prior, str) and prior in ("adaptive", "annotator"))
        ):
            labels, shares = annotator_labels(problem, bool(asked), device)
        if asked and labels is None:
            raise ValueError(
                f"{asked[0]} needs PartialLabels with scores or votes that prefer some classes; "
                "these have none. Use prior='estimated', warm_up_target='candidates' and "
                "evidence_weight=0"
            )
        if target == "scores":
            training.scores = labels
        prior = shares_by_class(prior, problem.classes, "prior")
        training.prior = resolve_prior(prior, shares, problem.candidates)
        if isinstance(training.prior, np.ndarray):
            training.prior = torch.from_numpy(training.prior).to(device)
        if isinstance(weight, str):
            weight = self._resolved("evidence_weight") if training.scores is not None else 0
        if weight > 0:
            mean = torch.from_numpy(shares).float().to(device)
            training.evidence = map_rows(
                lambda scores: annotator_evidence(scores, mean, training.prior, weight), labels
            )
        if not isinstance(self.division, str):
            clean = detected_clean_probability(self.division, problem, self.clean_threshold)
            training.clean = torch.from_numpy(clean).to(device)
        return training

    def _settings(self, training):
        warm_up = self.warm_up
        if isinstance(warm_up, str):
            on_candidates = 2 if self.image_shape_ is None else 5
            tenths = on_candidates if training.scores is None else 4
            warm_up = -(-tenths * self.max_epochs // 10)
        resolved = {name: self._resolved(name) for name in VARIANTS[self.variant]}
        if self.contrastive_weight == 0:
            resolved["contrastive"] = "none"
        return {**super()._settings(training), **resolved, "warm_up": warm_up}

    def _resolved(self, name):
        """Return a parameter, or what the variant says in place of "auto"."""
        value = getattr(self, name)
        if not (isinstance(value, str) and value == "auto"):
            return value
        defaults = VARIANTS[self.variant]
        if self.variant == "robust" and self.image_shape_ is not None:
            defaults = {**defaults, **ROBUST_ON_IMAGES}
        return defaults[name]
