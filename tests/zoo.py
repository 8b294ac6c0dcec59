"""One of each public estimator, small enough to be fitted many times, with what it is fitted to."""

from dataclasses import dataclass, field
from importlib.util import find_spec

import numpy as np
from fakes import FeatureVLM
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

import sklearn_npll
from sklearn_npll import PartialLabels, annotators, baselines, detection
from sklearn_npll.annotators import (
    ChatPartialAnnotator,
    ConformalPartialAnnotator,
    EnsemblePartialAnnotator,
    VLMPartialAnnotator,
)
from sklearn_npll.detection import (
    CLIPCleanerDetector,
    ConfidentLearningDetector,
    DeFTClassifier,
    DeFTDetector,
    LabelMatchDetector,
    NeighborVoteDetector,
    SmallLossDetector,
)

NAMES = np.array(["ant", "bee", "cow"])
N = 36


def blobs(n=N, seed=0):
    """Features (n, 4) in float32 and class indices (n,), all classes present."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return (rng.normal(size=(n, 4)) + 3 * np.eye(3, 4)[y]).astype(np.float32), y


def noisy_labels(data, y, seed=0):
    """Partial labels with scores and votes: wrong ones, large ones, one unlabelled, one known."""
    rng = np.random.default_rng(seed)
    noisy = np.where(rng.random(len(y)) < 0.2, (y + 1) % 3, y)
    candidates = np.eye(3, dtype=bool)[noisy]
    candidates[::3, 0] = True
    candidates[4] = True
    scores = 0.2 + 0.4 * np.eye(3)[noisy]
    votes = np.stack([noisy, y, (y + (rng.random(len(y)) < 0.3)) % 3], axis=1)
    known = (np.arange(len(y)) == 7) & (candidates.sum(axis=1) == 1)
    return PartialLabels(data, NAMES, candidates, scores=scores, votes=votes, known=known)


X, Y = blobs()
LABELS = noisy_labels(X, Y)
NOISY = NAMES[LABELS.votes[:, 0]]
NEW_X, NEW_Y = blobs(20, seed=1)
NEW = noisy_labels(NEW_X, NEW_Y, seed=1)
IMAGES = np.random.default_rng(0).integers(0, 255, (N, 8, 8), dtype=np.uint8)
VLM = VLMPartialAnnotator(NAMES.tolist(), vlm=FeatureVLM())


class Brightness:
    """A chat model that answers by the brightness of an image."""

    cache_key = "brightness"

    def __call__(self, images, prompt):
        return [NAMES[int(np.asarray(image).mean()) % 3] for image in images]


@dataclass
class Case:
    """An estimator and what it is fitted to and asked about."""

    estimator: object
    X: object = field(default_factory=lambda: LABELS)
    y: object = None
    new: object = field(default_factory=lambda: NEW)
    fit_params: dict = field(default_factory=dict)

    def fit(self):
        """Fit a clone."""
        return clone(self.estimator).fit(self.X, self.y, **self.fit_params)

    def results(self, fitted):
        """Everything that the fitted estimator says, by name."""
        found = {
            name: getattr(fitted, name)
            for name in ("label_distributions_", "clean_score_", "clean_mask_", "quantiles_")
            if hasattr(fitted, name)
        }
        for method in ("predict", "predict_proba", "score_noise"):
            if hasattr(fitted, method):
                found[method] = getattr(fitted, method)(self.new)
        if hasattr(fitted, "transform"):
            labels = fitted.transform(self.new)
            found.update(transform=labels.toarray(), scores=labels.scores, votes=labels.votes)
        return {name: value for name, value in found.items() if value is not None}


def _network(cls, **params):
    given = {"max_epochs": 3, "batch_size": 8, "lr": 0.05, "random_state": 0, **params}
    if "warm_up" in cls().get_params():
        given.setdefault("warm_up", 1)
    return cls(**given)


def _cases():
    neural = {
        name: Case(_network(getattr(baselines, name)))
        for name in baselines.__all__
        if hasattr(getattr(baselines, name), "to_module")
    }
    coreg = sklearn_npll.CoRegClassifier
    everything = {
        "contrastive_start": 0,
        "contrastive": "supcon",
        "elr_weight": 1.0,
        "pseudo_label_threshold": "class",
        "disagreement_weight": 0.9,
        "candidate_update": "cluster",
        "prototype_blend": 0.5,
        "confidence_weight": 0.5,
    }
    images = {"X": PartialLabels(IMAGES, NAMES, LABELS.candidates), "new": IMAGES[:20]}
    chat = ChatPartialAnnotator(NAMES.tolist(), backend=Brightness(), questions="simple")
    known = np.where(np.arange(N) % 2, NAMES[Y], "-1")
    by_features = {"X": X, "y": NOISY}
    cases = {
        **neural,
        "CoRegClassifier": Case(_network(coreg, contrastive_start=0)),
        "CoRegClassifier, paper": Case(_network(coreg, variant="paper", contrastive_start=0)),
        "CoRegClassifier, all options": Case(_network(coreg, **everything)),
        "CoRegClassifier, images": Case(_network(coreg, contrastive_start=0), **images),
        "PLKNeighborsClassifier": Case(baselines.PLKNeighborsClassifier()),
        "IPALClassifier": Case(baselines.IPALClassifier()),
        "CLPLClassifier": Case(baselines.CLPLClassifier()),
        "PLSVMClassifier": Case(baselines.PLSVMClassifier(max_iter=10, random_state=0)),
        "SUREClassifier": Case(baselines.SUREClassifier()),
        "PseudoLabelClassifier": Case(
            baselines.PseudoLabelClassifier(LogisticRegression(), random_state=0)
        ),
        "PseudoLabelClassifier, soft": Case(
            baselines.PseudoLabelClassifier(LogisticRegression(), labels="soft", random_state=0)
        ),
        "AnnotatorClassifier": Case(baselines.AnnotatorClassifier("vote")),
        "DawidSkeneClassifier": Case(baselines.DawidSkeneClassifier()),
        "LabelModelClassifier": Case(baselines.LabelModelClassifier()),
        "SmallLossDetector": Case(SmallLossDetector(random_state=0)),
        "NeighborVoteDetector": Case(NeighborVoteDetector()),
        "LabelMatchDetector": Case(LabelMatchDetector(VLM)),
        "CLIPCleanerDetector": Case(CLIPCleanerDetector(VLM, random_state=0)),
        "DeFTDetector": Case(DeFTDetector(VLM, max_epochs=3, random_state=0)),
        "DeFTDetector, alone": Case(DeFTDetector(max_epochs=3, random_state=0)),
        "DeFTClassifier": Case(
            DeFTClassifier(NeighborVoteDetector(), LogisticRegression()), **by_features
        ),
        "VLMPartialAnnotator": Case(VLM, X=X, new=NEW_X),
        "VLMPartialAnnotator, refined": Case(clone(VLM).set_params(refine="zlap"), X=X, new=NEW_X),
        "EnsemblePartialAnnotator": Case(
            EnsemblePartialAnnotator([("vlm", VLM), ("ratio", VLM)]), X=X, new=NEW_X
        ),
        "ConformalPartialAnnotator": Case(
            ConformalPartialAnnotator(VLM),
            X=X,
            new=NEW_X,
            fit_params={"known_labels": known},
        ),
        "ChatPartialAnnotator": Case(chat, X=IMAGES, new=IMAGES[:20]),
    }
    if find_spec("cleanlab"):
        cases["ConfidentLearningDetector"] = Case(ConfidentLearningDetector(), **by_features)
    return cases


CASES = _cases()
PUBLIC = {
    name
    for package in (sklearn_npll, annotators, baselines, detection)
    for name in package.__all__
    if hasattr(getattr(package, name), "fit") and name != "BaseNoiseDetector"
}
