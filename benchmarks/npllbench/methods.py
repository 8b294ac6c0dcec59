"""The methods of the benchmark: names, how to make their estimators, and their search spaces.

Estimators are imported when a method is made, so that the registry can be read without them. A
method gets the suite's shared schedule for the parameters that its estimator has, and keeps its
own defaults, those of its paper, for the rest.
"""

import importlib
import inspect
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import loguniform

from sklearn_npll.annotators import ImageEncoderStudent

# Searched for every method that trains networks; a method may add a few of its own.
NETWORK_SPACE = {"lr": loguniform(0.005, 0.2), "weight_decay": [1e-4, 5e-4, 2e-3]}


@dataclass(frozen=True)
class Method:
    """A method of the benchmark.

    Parameters
    ----------
    name : str
        As in the tables.
    make : callable
        ``make(**params)`` returns an unfitted estimator.
    networks : int
        Networks it trains; 0 for none.
    passes : float
        About how many gradient samples an epoch takes per training row, for a method whose
        estimator cannot say beforehand.
    kinds : tuple of {"features", "images"}
        The samples it learns from.
    group : {"cheap", "neural", "ablation", "paper-ablation", "oracle", "few-shot", "other"}
        What selects it: "cheap" and "neural" make up "all".
    needs : frozenset of {"scores", "votes", "known labels"}
        What the annotator must leave for the training rows.
    on_annotations : bool
        Whether it predicts from the annotator's answers to the test rows.
    eta : {"", "estimated", "oracle"}
        Whether its rule takes a noise rate, and where that comes from.
    space : dict
        Parameter -> list of values or scipy.stats distribution, for the tuned track.
    own : frozenset of str
        Parameters of the shared schedule that the method sets by itself.
    """

    name: str
    make: Callable
    networks: int = 0
    passes: float = 1.0
    kinds: tuple = ("features", "images")
    group: str = "other"
    needs: frozenset = frozenset()
    on_annotations: bool = False
    eta: str = ""
    space: dict = field(default_factory=dict)
    own: frozenset = frozenset()

    def build(self, schedule, seed, n_train=None, budget=None, eta=None, params=None, epochs=None):
        """Return an unfitted estimator.

        Parameters
        ----------
        schedule : dict
            ``{"shared": {...}, "coreg": {...}}`` of the task.
        seed : int
            Random state.
        n_train : int, default=None
            Training rows, to turn the budget into epochs.
        budget : int, default=None
            Gradient samples. None trains the epochs of the schedule.
        eta : float, default=None
            The true noise rate, given to methods whose `eta` is "oracle".
        params : dict, default=None
            Parameters that override the schedule, as drawn from the space.
        epochs : int, default=None
            Epochs to train, instead of those that the budget comes to.

        Returns
        -------
        estimator
            With the schedule, seed and parameters set.
        """
        estimator = self.make()
        known = set(estimator.get_params())
        if self.networks:
            if budget and epochs is None:
                epochs = max(
                    1, round(budget / (self._fixed_cost(n_train) or self.passes * n_train))
                )
            schedule = with_epochs(schedule, epochs)
            settings = {k: v for k, v in schedule["shared"].items() if k not in self.own}
            if _is_coreg(estimator):
                settings.update(schedule["coreg"])
            estimator.set_params(**{k: v for k, v in settings.items() if k in known})
            # What the method itself changes, as an ablation does, stands above the schedule.
            changed = non_default(self.make())
            estimator.set_params(**{k: v for k, v in changed.items() if k in known})
        if "random_state" in known:
            estimator.set_params(random_state=seed)
        if self.eta == "oracle":
            estimator.set_params(eta=eta)
        return estimator.set_params(**(params or {}))

    def _fixed_cost(self, n_train):
        """Return the gradient samples of an epoch, or None where they depend on the training."""
        per_epoch = getattr(self.make(), "gradient_samples_per_epoch", None)
        return per_epoch and per_epoch(n_train)


def with_epochs(schedule, max_epochs):
    """Return a schedule of as many epochs, its warm-up and start of the contrast in proportion."""
    shared, coreg = dict(schedule.get("shared", {})), dict(schedule.get("coreg", {}))
    if max_epochs is None:
        return {"shared": shared, "coreg": coreg}
    factor = max_epochs / shared.get("max_epochs", max_epochs)
    shared["max_epochs"] = max_epochs
    for part, key in ((shared, "warm_up"), (coreg, "warm_up"), (coreg, "contrastive_start")):
        if key in part:
            part[key] = round(part[key] * factor)
    return {"shared": shared, "coreg": coreg}


def non_default(estimator):
    """Return the parameters of an estimator that differ from its defaults."""
    defaults = {
        name: p.default
        for name, p in inspect.signature(type(estimator)).parameters.items()
        if p.default is not inspect.Parameter.empty
    }
    return {
        k: v
        for k, v in estimator.get_params(deep=False).items()
        if k != "random_state" and (k not in defaults or not _same(v, defaults[k]))
    }


def params_json(estimator):
    """Return the non-default parameters as JSON."""
    return json.dumps(non_default(estimator), default=_plain, sort_keys=True)


def sample_settings(method, n_trials, seed):
    """Draw the settings of a method's trials, the first of which is its default setting."""
    from sklearn.model_selection import ParameterSampler

    if not method.space or n_trials < 2:
        return [{}]
    rng = np.random.RandomState(zlib.crc32(f"{method.name}/{seed}".encode()))
    draws = [next(iter(ParameterSampler(method.space, 1, random_state=rng))) for _ in range(99)]
    settings = [{}]
    for draw in draws:
        if draw not in settings and len(settings) < n_trials:
            settings.append(draw)
    return settings


def _same(a, b):
    return a is b or (type(a) is type(b) and bool(np.all(a == b)))


def _plain(value):
    if isinstance(value, np.generic):
        return value.item()
    return value.tolist() if isinstance(value, np.ndarray) else " ".join(repr(value).split())


def _is_coreg(estimator):
    return type(estimator).__name__ == "CoRegClassifier"


# -- registry ------------------------------------------------------------------------------------

_REGISTRY = {}


def register(method):
    """Add a method to the registry, or replace the one of its name."""
    _REGISTRY[method.name] = method
    return method


def get_methods(names=None):
    """Return methods by name or group; "all" are the groups "cheap" and "neural"."""
    if names is None:
        return list(_REGISTRY.values())
    chosen = {}
    for name in [names] if isinstance(names, str) else names:
        groups = {"all": ("cheap", "neural")}.get(name, (name,))
        group = [m for m in _REGISTRY.values() if m.group in groups]
        if name not in _REGISTRY and not group:
            raise ValueError(f"unknown method {name!r}; known are {', '.join(_REGISTRY)}")
        for method in [_REGISTRY[name]] if name in _REGISTRY else group:
            chosen[method.name] = method
    return list(chosen.values())


def why_not(method, suite):
    """Return why a method does not apply to a suite, or an empty text."""
    if suite.kind not in method.kinds:
        return f"it does not learn from {suite.kind}"
    if missing := method.needs - suite.train_has:
        return f"the training rows have no {' and '.join(sorted(missing))}"
    if method.on_annotations and (missing := method.needs - suite.test_has):
        return f"the test rows have no {' and '.join(sorted(missing))} of the annotator"
    return ""


def _class(name, module="sklearn_npll.baselines"):
    found = getattr(importlib.import_module(module), name, None)
    if found is None:
        raise ImportError(f"{module} has no {name}")
    return found


def _add(name, class_name, *, params=None, module="sklearn_npll.baselines", **options):
    def make(**more):
        return _class(class_name, module)(**{**(params or {}), **more})

    register(Method(name, make, **options))


def _network(name, class_name, networks=1, *, space=None, group="neural", **options):
    space = {**NETWORK_SPACE, **(space or {})}
    _add(name, class_name, networks=networks, group=group, space=space, **options)


def _coreg(
    name,
    group="neural",
    passes=2.0,
    needs=frozenset(),
    kinds=("features", "images"),
    **params,
):
    space = {"temperature": [0.5, 1.0], "n_mixed_views": [1, 2]}
    needs = set(needs)
    if params.get("prior") == "annotator" or params.get("evidence_weight"):
        needs.add("scores")
    if params.get("doubly_robust"):
        needs.add("known labels")
    _network(
        name,
        "CoRegClassifier",
        2,
        passes=passes,
        module="sklearn_npll",
        params=params,
        group=group,
        space=space,
        needs=frozenset(needs),
        kinds=kinds,
        own=frozenset({"warm_up"}),
    )


def _with_noise_rate(name, class_name, networks=1, params=None, **options):
    for suffix, source, group in (("", "estimated", "neural"), (" (oracle)", "oracle", "oracle")):
        _network(
            name + suffix,
            class_name,
            networks,
            params=params,
            eta=source,
            group=group,
            **options,
        )


def _features(name, class_name, space=None, params=None):
    _add(
        name,
        class_name,
        params=params,
        kinds=("features",),
        group="cheap",
        space=space or {},
    )


def _on_vote(name, labels, make_estimator, space, group="cheap"):
    def make():
        pseudo = _class("PseudoLabelClassifier")
        return pseudo(make_estimator(), labels=labels)

    register(Method(name, make, kinds=("features",), group=group, space=space))


def _logistic():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def _graph(class_name):
    from sklearn import semi_supervised
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(), getattr(semi_supervised, class_name)(kernel="knn", max_iter=1000)
    )


def _self_training():
    from sklearn.semi_supervised import SelfTrainingClassifier

    return SelfTrainingClassifier(_logistic())


_coreg("Co-Reg")
_coreg("Co-Reg (paper)", passes=5, variant="paper")

_network("CC", "CCClassifier")
_network("PRODEN", "PRODENClassifier")
_network("RC", "PRODENClassifier", params={"variant": "rc"})
_network("LWS", "LWSClassifier")
_network("CAVL", "CAVLClassifier")
_network("ABS-MAE", "ABSClassifier", params={"loss": "mae"})
_network("ABS-GCE", "ABSClassifier", params={"loss": "gce"})
_network("CRDPLL", "CRDPLLClassifier")
_network("PiCO", "PiCOClassifier", own=frozenset({"warm_up"}))
_with_noise_rate("PiCO+", "PiCOPlusClassifier")
_with_noise_rate("ALIM-Onehot", "ALIMClassifier", params={"scaling": "onehot"})
_with_noise_rate("ALIM-Scale", "ALIMClassifier", params={"scaling": "scale"})
_network("FREDIS", "FREDISClassifier")
_network("PALS", "PALSClassifier")
_network("POP", "POPClassifier")

_network("CE", "CEClassifier")
_network("GCE", "GCEClassifier")
_network("SCE", "SCEClassifier")
_network("ELR", "ELRClassifier")
_with_noise_rate("Co-teaching", "CoTeachingClassifier", 2)
_network("DivideMix", "DivideMixClassifier", 2, passes=5)
_network("KD*", "DistillationClassifier", needs=frozenset({"scores"}))

_features("PL-kNN", "PLKNeighborsClassifier", {"n_neighbors": [5, 10, 20, 40]})
_features("IPAL", "IPALClassifier", {"n_neighbors": [5, 10, 20]})
_features("CLPL", "CLPLClassifier")
_features("PL-SVM", "PLSVMClassifier")
_features("SURE", "SUREClassifier")

_C = {"estimator__logisticregression__C": loguniform(1e-3, 1e2)}
_on_vote("Logistic (best)", "best", _logistic, _C)
_on_vote("Logistic (unanimous)", "unanimous", _logistic, _C)
for _name in ("LabelPropagation", "LabelSpreading"):
    _on_vote(
        _name,
        "unanimous",
        lambda _name=_name: _graph(_name),
        {f"estimator__{_name.lower()}__n_neighbors": [5, 7, 10, 20]},
    )
_on_vote(
    "SelfTraining", "unanimous", _self_training, {"estimator__threshold": [0.6, 0.75, 0.9, 0.95]}
)

# On the labels known by humans alone, the other rows unlabelled.
for _name, _make, _space in (
    ("linear probe", _logistic, _C),
    ("LabelPropagation (known)", lambda: _graph("LabelPropagation"), {}),
    ("SelfTraining (known)", _self_training, {}),
):
    _on_vote(_name, "known", _make, _space, group="few-shot")

for _name, _class_name, _needed, _params in (
    ("zero-shot*", "AnnotatorClassifier", "scores", {"aggregation": "mean"}),
    ("majority vote", "AnnotatorClassifier", "votes", {"aggregation": "vote"}),
    ("Dawid-Skene", "DawidSkeneClassifier", "votes", {}),
):
    _add(
        _name,
        _class_name,
        params=_params,
        group="cheap",
        needs=frozenset({_needed}),
        on_annotations=True,
    )

# What section 5 of the paper leaves out or replaces, more of the same, back to the paper's setting
# in one of the parts that the default variant changes, and what other papers add ("+").
for _name, _params in {
    "own pseudo-labels": {"co_labelling": "own"},
    "two mixed views": {"n_mixed_views": 2},
    "contrastive": {"contrastive": "noise_tolerant"},
    "supervised contrastive": {"contrastive": "supcon"},
    "no prototypes": {"prototype_weight": 0.0},
    "no unlabelled split": {"use_unlabelled": False},
    "no distribution alignment": {"prior": None},
    "prior estimated": {"prior": "estimated"},
    "prior of the annotator": {"prior": "annotator"},
    "prior uniform": {"prior": "uniform"},
    "sharpening (T = 0.5)": {"temperature": 0.5},
    "warm-up on candidates": {"warm_up_target": "candidates"},
    "no MixUp": {"mixup_alpha": None},
    "MixUp of the paper": {"mixup_alpha": 4.0},
    "light MixUp": {"mixup_alpha": 0.5},
    "single network": {"co_labelling": "own", "deploy": "single"},
    "unlabelled rows as often": {"unlabelled_sampling": "equal"},
    "two networks": {"co_labelling": "peer"},
    "average of one network": {"co_labelling": "average"},
    "no evidence": {"evidence_weight": 0.0},
    "evidence": {"evidence_weight": 1.0},
    "two networks, MixUp of the paper, no evidence": {
        "co_labelling": "peer",
        "mixup_alpha": 4.0,
        "evidence_weight": 0.0,
    },
    "+ balanced assignment": {"alignment_rounds": 10},
    "+ neighbours": {"neighbor_weight": 0.5},
    "+ a division for each class": {"division": "class"},
    "+ these three": {"alignment_rounds": 10, "neighbor_weight": 0.5, "division": "class"},
    "+ early-learning regularisation": {"elr_weight": 0.3},
    "+ class-wise thresholds": {"pseudo_label_threshold": "class"},
    "+ weight of disagreement": {"disagreement_weight": 0.9},
    "+ candidate update": {"candidate_update": "cluster"},
    "+ doubly robust loss": {"doubly_robust": True},
    "+ pseudo-labels of prototypes": {"prototype_blend": 1.0},
    "+ confidence loss": {"confidence_weight": 0.5},
}.items():
    _coreg(f"Co-Reg: {_name}", "ablation", **_params)
# The paper's variant with one part of the default's.
for _name, _params in {
    "adaptive prior": {"prior": "adaptive"},
    "one mixed view": {"n_mixed_views": 1},
    "unlabelled rows once": {"unlabelled_sampling": "once"},
    "no sharpening": {"temperature": 1.0},
    "no contrastive": {"contrastive": "none"},
}.items():
    _params = {"variant": "paper", **_params}
    _coreg(f"Co-Reg (paper): {_name}", "paper-ablation", passes=5, **_params)

_coreg(
    "Co-Reg: student from the annotator's encoder",
    "ablation",
    needs={"scores"},
    kinds=("images",),
    module=ImageEncoderStudent(),
)
