"""The options of Co-Reg: what they do to a step and to a training, and their errors."""

import pickle
import random

import numpy as np
import pytest
import torch
from coreg_epochs import close
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.callbacks import Callback

from sklearn_npll import CoRegClassifier, PartialLabels
from sklearn_npll.baselines import DivideMixClassifier
from sklearn_npll.coreg import _dividing_net, _division, _memory, _net
from sklearn_npll.coreg import _options as rules
from sklearn_npll.coreg._division import Division
from sklearn_npll.coreg._net import CoRegNet

X, T = make_blobs(60, centers=3, cluster_std=3.0, random_state=0)
Y = np.eye(3, dtype=int)[T]
Y[::3, 0] = 1  # a wrong class besides the true one
Y[::4] = np.roll(Y[::4], 1, axis=1)  # the true class missing, mostly
KNOWN = np.arange(60) % 6 == 1
Y[KNOWN] = np.eye(3, dtype=int)[T[KNOWN]]
LABELS = PartialLabels(X, np.arange(3), Y, known=KNOWN)

LEVEL = np.arange(24) % 2
IMAGES = np.random.default_rng(0).integers(0, 200, size=(24, 8, 8, 3), dtype=np.uint8)
IMAGES += (LEVEL * 50).astype(np.uint8)[:, None, None, None]
IMAGE_LABELS = PartialLabels(
    IMAGES, [0, 1], np.eye(2)[np.where(np.arange(24) % 5, LEVEL, 1 - LEVEL)], known=LEVEL * 0 < 0
)
IMAGE_LABELS.known[[1, 2, 3]] = True

# A value of each option that is on.
OPTIONS = {
    "alignment_rounds": 5,
    "neighbor_weight": 0.5,
    "division": "class",
    "elr_weight": 1.0,
    "pseudo_label_threshold": "class",
    "disagreement_weight": 0.9,
    "candidate_update": "cluster",
    "doubly_robust": True,
    "prototype_blend": 0.8,
    "confidence_weight": 0.5,
}
EACH = [pytest.param({name: value}, id=name) for name, value in OPTIONS.items()]


def classifier(**params):
    small = {
        "max_epochs": 5,
        "warm_up": 1,
        "contrastive_start": 1,
        "batch_size": 16,
        "queue_size": 64,
        "lr": 0.05,
        "random_state": 0,
    }
    return CoRegClassifier(**{**small, **params})


def image_classifier(**params):
    return classifier(**{"max_epochs": 3, "contrastive_start": 0, "batch_size": 8, **params})


def assert_same_fit(a, b, samples=X):
    drop = [[{k: v for k, v in r.items() if k != "seconds"} for r in c.history_] for c in (a, b)]
    assert drop[0] == drop[1]
    for name in ("label_distributions_", "clean_probability_"):
        assert_array_equal(getattr(a, name), getattr(b, name))
    assert_array_equal(a.predict_proba(samples), b.predict_proba(samples))


class Interrupt(Callback):
    """Counts epochs, and interrupts the training in the middle of one."""

    epochs = []  # of all instances, as the estimator trains with a copy

    def __init__(self, at=None):
        self.at = at

    def get_params(self, deep=True):
        return {}  # one that does not interrupt makes the same training

    def on_batch_end(self, net, **kwargs):
        if len(net.history) == self.at:
            raise KeyboardInterrupt

    def on_epoch_begin(self, net, **kwargs):
        self.epochs.append(len(net.history))


def assert_resumes(clf, labels, folder, samples):
    """An interrupted fit goes on where it was, with the same result as without interruption."""
    whole = clone(clf).fit(labels)
    clf = clone(clf).set_params(checkpoint_dir=folder, checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        clf.set_params(callbacks=[Interrupt(clf.max_epochs)]).fit(labels)
    Interrupt.epochs.clear()
    clf.set_params(callbacks=[Interrupt()]).fit(labels)
    assert Interrupt.epochs == [clf.max_epochs]
    assert_same_fit(clf, whole, samples)


# -- a step ------------------------------------------------------------------------------------


def spy(monkeypatch, owner, name):
    original, calls = getattr(owner, name), []

    def wrapper(*args, **kwargs):
        calls.append((args, original(*args, **kwargs)))
        return calls[-1][1]

    monkeypatch.setattr(owner, name, wrapper)
    return calls


def test_regulariser_is_of_the_mixed_partial_rows(monkeypatch):
    mixes = spy(monkeypatch, _net, "mix_up")
    terms = spy(monkeypatch, _net, "elr_regulariser")
    descents = spy(monkeypatch, CoRegNet, "descend")
    params = {"elr_weight": 2.0, "max_epochs": 2, "n_mixed_views": 1, "prototype_weight": 0.0}
    params["unlabelled_sampling"] = "equal"  # some in every step
    losses = spy(monkeypatch, CoRegNet, "_self_training_loss")
    classifier(**params).fit(X, Y)
    assert len(terms) == len(mixes) == len(losses) > 1
    for (mix, (_, other, share)), ((logits, target), term), (step, _) in zip(mixes, terms, losses):
        table, (_, _, mixed, n, _) = mix[1], step
        assert len(logits) == len(target) == n < len(table)
        both = share * table + (1 - share) * other
        close(mixed, both[:, :3])
        close(target, both[:n, 3:])
        assert term < 0
    steps = [args[1] for args, _ in descents][-len(terms) :]
    for total, (_, term), (_, loss) in zip(steps, terms, losses):
        close(total, loss + 2 * term)


def test_weights_are_mixed_as_the_targets_are(monkeypatch):
    mixes = spy(monkeypatch, _net, "mix_up")
    errors = spy(monkeypatch, _net, "squared_error")
    params = {"pseudo_label_threshold": 0.45, "disagreement_weight": 0.8, "prototype_weight": 0.0}
    params["unlabelled_sampling"] = "equal"  # some in every step
    classifier(max_epochs=3, **params).fit(X, Y)
    seen = set()
    for ((_, table, _), (_, other, share)), ((_, _, _, weight), _) in zip(
        mixes, errors, strict=True
    ):
        assert table.shape[1] == 4
        close(weight, (share * table + (1 - share) * other)[-len(weight) :, 3])
        seen |= set(table[:, 3].tolist())
    assert {round(value, 6) for value in seen} == {0.0, 0.4, 1.6, 1.0}


def test_known_rows_keep_their_label_beside_hardened_predictions(monkeypatch):
    calls = spy(monkeypatch, _net, "confident_target")
    classifier(confidence_weight=0.8, max_epochs=3, use_unlabelled=False).fit(LABELS)
    weights = torch.cat([args[2][:, 0] for args, _ in calls])
    for (target, _, weight), mixed in calls:
        kept = weight[:, 0] == 0
        close(mixed[kept], target[kept])
    # none in the first step; then 0.8 times a ramp of 16 epochs
    assert calls[0][0][2].max() == 0
    assert 0 < weights.max() < 0.8 * 2 / 16
    assert set((weights == 0).tolist()) == {True, False}


@pytest.mark.parametrize("prior", ["uniform", "estimated", None])
def test_hardened_predictions_have_the_shares_of_the_prior(monkeypatch, prior):
    calls = spy(monkeypatch, _dividing_net, "balanced_labels")
    classifier(confidence_weight=0.8, max_epochs=3, prior=prior).fit(X, Y)
    assert len(calls) == 4  # two networks, two epochs
    for (proba, given), label in calls:
        if prior is None:
            assert given is None
            assert label.tolist() == proba.argmax(1).tolist()
            continue
        assert given.sum().item() == pytest.approx(1)
        close(label.bincount(minlength=3) / 60, given, atol=5.5 / 60, rtol=0)


def test_doubly_robust_loss(monkeypatch):
    """Known rows have pseudo-labels like all, and their labels in the correction."""
    targets = spy(monkeypatch, CoRegNet, "_targets")
    corrections = spy(monkeypatch, _net, "doubly_robust_correction")
    terms = spy(monkeypatch, CoRegNet, "_doubly_robust_term")
    clf = classifier(doubly_robust=True, max_epochs=4, temperature=1.0).fit(LABELS)
    known = torch.from_numpy(KNOWN)
    (net, _, _, _, rows, n_partial, _), (target, _) = targets[0]
    in_batch = known[rows[:n_partial]]
    assert in_batch.any()
    assert (target[:n_partial][in_batch] < 1).all()  # not their label, which is certain
    for ((logits, label, pseudo), _), (args, _) in zip(corrections, terms, strict=True):
        rows = args[4]
        assert known[rows].all()
        assert label.argmax(1).tolist() == T[rows].tolist()
        assert ((pseudo > 0) & (pseudo < 1)).all()
        assert not pseudo.requires_grad
        assert logits.requires_grad
    # a share t / T of it in epoch t
    shares = [(term / correction).item() for (_, correction), (_, term) in zip(corrections, terms)]
    assert sorted({round(share, 4) for share in shares}) == [0.5, 0.75, 1.0]
    counts = [row["gradient_samples"] for row in clf.history_]
    steps = len(terms) // 3
    plain = classifier(max_epochs=2, temperature=1.0).fit(LABELS)
    # ten known rows a step, on top of the same batches of the first epoch
    assert counts[1] == plain.history_[1]["gradient_samples"] + 10 * steps
    assert (clf.clean_probability_[KNOWN] == 1).all()
    assert_array_equal(clf.transduction_[KNOWN], T[KNOWN])


@pytest.mark.parametrize("n_known", [1, 2])
@pytest.mark.parametrize("co_labelling", ["peer", "average"])
def test_doubly_robust_with_hardly_any_known_rows(n_known, co_labelling):
    data, truth = load_digits(return_X_y=True)
    labels = PartialLabels(data[:600], np.arange(10), np.eye(10)[truth[:600]])
    labels = labels.with_known(np.where(np.arange(600) < n_known, truth[:600], -1))
    options = {"doubly_robust": True, "n_weak_views": 1, "co_labelling": co_labelling}
    clf = classifier(**options, max_epochs=15, warm_up=3, batch_size=32).fit(labels)
    assert clf.score(data[600:], truth[600:]) > 0.8


def test_prototypes_speak_from_their_start_on(monkeypatch):
    calls = spy(monkeypatch, _net, "blend_by_popularity")
    divisions = spy(monkeypatch, CoRegNet, "divide")
    params = {"prototype_blend": 0.7, "max_epochs": 4, "warm_up": 1}
    classifier(contrastive_start=2, **params).fit(X, Y)
    popularities = [division.popularity for _, division in divisions]
    for (linear, semantic, popularity, amount), _ in calls:
        assert linear.shape == semantic.shape
        close(semantic.sum(1), torch.ones(len(semantic)))
        # of the last epoch, as the others come before the prototypes
        assert any(torch.equal(popularity, p) for p in popularities[-2:])
        assert amount == 0.7
    assert calls
    n_calls = len(calls)
    classifier(contrastive_start=3, **params).fit(X, Y)
    assert len(calls) == n_calls


def test_popularity():
    proba = torch.tensor([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.8, 0.2, 0.0], [0.5, 0.3, 0.2]])
    close(Division(proba, None, None, None).popularity, torch.tensor([0.75, 0.25, 0.0]))


def test_divisions_judge_the_updated_sets(monkeypatch):
    updates = spy(monkeypatch, _memory, "update_candidates")
    losses = spy(monkeypatch, _dividing_net, "division_loss")
    classifier(candidate_update="cluster", max_epochs=5).fit(X, Y)
    first, later = losses[0][0][1], [args[1] for args, _ in losses[2:]]
    assert torch.equal(first, torch.from_numpy(Y).bool())
    assert any(not torch.equal(sets, first) for sets in later)
    # each network has its own: the sets that it judges are those that it changed before
    assert updates[2][0][0].data_ptr() == later[0].data_ptr()


# -- trainings ---------------------------------------------------------------------------------

PEERS = {"images": {}, "peers": {"co_labelling": "peer"}}


@pytest.fixture(scope="module")
def plain_fits():
    return {
        "robust": classifier().fit(LABELS),
        "paper": classifier(variant="paper").fit(LABELS),
        **{name: image_classifier(**p).fit(IMAGE_LABELS) for name, p in PEERS.items()},
    }


def test_off_is_what_other_methods_get():
    defaults = CoRegClassifier().get_params()
    assert {name: defaults[name] for name in OPTIONS} == rules.OPTIONS_OFF
    assert DivideMixClassifier._fixed.items() >= rules.OPTIONS_OFF.items()


def test_no_rule_is_called_by_default(monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("an option that is off is at work")

    names = {name for name in vars(rules) if callable(getattr(rules, name))}
    for module in (_net, _dividing_net, _memory):
        for name in names & set(vars(module)):
            monkeypatch.setattr(module, name, forbidden)
    states = spy(monkeypatch, CoRegNet, "method_state")
    classifier(warm_start=True).fit(LABELS)
    assert states[-1][1]["memory"] == [{}, {}]
    with pytest.raises(AssertionError, match="at work"):
        classifier(elr_weight=1.0).fit(LABELS)


@pytest.mark.parametrize("variant", ["robust", "paper"])
@pytest.mark.parametrize("options", EACH)
def test_option_changes_the_training(plain_fits, options, variant):
    clf = classifier(variant=variant, **options).fit(LABELS)
    assert not np.array_equal(clf.predict_proba(X), plain_fits[variant].predict_proba(X))


@pytest.mark.parametrize("options", EACH)
def test_option_changes_the_training_on_images(plain_fits, options, monkeypatch):
    monkeypatch.setattr(_division, "MIN_ROWS", 5)  # of 24
    # of the default's network and average none sees what another predicts
    name = "peers" if "disagreement_weight" in options else "images"
    clf = image_classifier(**{**PEERS[name], **options}).fit(IMAGE_LABELS)
    proba = clf.predict_proba(IMAGES)
    assert np.isfinite(proba).all()
    assert not np.array_equal(proba, plain_fits[name].predict_proba(IMAGES))


REMEMBERED = ["elr_weight", "pseudo_label_threshold", "candidate_update"]


@pytest.mark.parametrize("names", [list(OPTIONS), *([name] for name in REMEMBERED)])
def test_resuming_equals_not_stopping(tmp_path, monkeypatch, names):
    monkeypatch.setattr(_memory, "CLASS_THRESHOLD", 0.8)  # where the status tells
    clf = classifier(**{name: OPTIONS[name] for name in names})
    assert_resumes(clf, LABELS, tmp_path, X)


def test_resuming_on_images(tmp_path):
    clf = image_classifier(variant="paper", **OPTIONS)
    assert_resumes(clf, IMAGE_LABELS, tmp_path, IMAGES)


def test_warm_start_goes_on_with_what_is_remembered():
    whole = classifier(**OPTIONS, warm_start=True).fit(LABELS)
    state = whole.training_state_["method"]["memory"]
    names = {"early_target", "weight", "class_status", "candidates", "mean_proba"}
    assert [set(part) for part in state] == [names, names]
    more = pickle.loads(pickle.dumps(whole)).set_params(max_epochs=6).fit(LABELS)
    assert more.n_iter_ == 6
    after = more.training_state_["method"]["memory"]
    assert not np.array_equal(after[0]["early_target"], state[0]["early_target"])
    # more rows than before: what is remembered of rows would not fit
    rows = np.r_[np.arange(60), np.arange(40)]
    other = PartialLabels(X[rows], np.arange(3), Y[rows], known=KNOWN[rows])
    more.set_params(max_epochs=7).fit(other)
    assert more.label_distributions_.shape == (100, 3)
    assert len(more.training_state_["method"]["memory"][0]["early_target"]) == 100


def test_seed_pickle_and_clone():
    legacy = np.random.get_state  # noqa: NPY002
    python, numpy, torchs = random.getstate(), legacy()[1].copy(), torch.get_rng_state()
    clf = classifier(**OPTIONS).fit(LABELS)
    assert random.getstate() == python
    assert_array_equal(legacy()[1], numpy)
    assert torch.equal(torch.get_rng_state(), torchs)
    assert_same_fit(clone(clf).fit(LABELS), clf)
    again = pickle.loads(pickle.dumps(clf))
    assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    assert again.get_params() == clf.get_params()
    assert clf.net_.memory_ is None


def test_all_options_in_mixed_precision_and_without_mixup():
    for params in ({"precision": "bf16"}, {"mixup_alpha": None}):
        clf = classifier(**OPTIONS, max_epochs=3, n_mixed_views=2, **params).fit(LABELS)
        assert np.isfinite(clf.predict_proba(X)).all()


@pytest.mark.parametrize("n_samples", [2, 3, 5])
def test_few_samples(n_samples):
    known = np.arange(n_samples) == 0
    labels = PartialLabels(X[:n_samples], np.arange(5), np.eye(5)[:n_samples], known=known)
    clf = classifier(**OPTIONS, contrastive_start=0).fit(labels)
    assert np.isfinite(clf.predict_proba(X)).all()


def test_rows_without_a_label_stay_so():
    Y_some = np.where((np.arange(60) % 7 == 2)[:, None], 1, Y)
    clf = classifier(candidate_update="cluster").fit(X, Y_some)
    assert (clf.clean_probability_[np.arange(60) % 7 == 2] == 0).all()


# -- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, value",
    [
        ("alignment_rounds", 0),
        ("neighbor_weight", 1.5),
        ("neighbors", 0),
        ("neighbors", "near"),
        ("division", "classes"),
        ("elr_weight", -0.1),
        ("pseudo_label_threshold", "classes"),
        ("pseudo_label_threshold", 0.0),
        ("pseudo_label_threshold", 1),
        ("disagreement_weight", 0.4),
        ("disagreement_weight", 1.1),
        ("candidate_update", "clusters"),
        ("candidate_update", True),
        ("doubly_robust", "yes"),
        ("prototype_blend", 1.5),
        ("confidence_weight", -0.5),
    ],
)
def test_bad_values(name, value):
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter"):
        classifier(**{name: value}).fit(X, Y)


@pytest.mark.parametrize(
    "params, message",
    [
        ({"alignment_rounds": 2, "prior": None}, "needs a prior to align to"),
        ({"doubly_robust": True}, "rows whose label is known, and there are none"),
        ({"disagreement_weight": 0.9, "co_labelling": "own"}, "needs co_labelling='peer'"),
        ({"prototype_blend": 0.5, "prototype_weight": 0}, "with prototype_weight=0"),
        (
            {"candidate_update": "cluster", "division": CoRegClassifier()},
            "candidate_update='cluster' needs division='mixture'",
        ),
    ],
)
def test_options_that_cannot_work(params, message):
    with pytest.raises(ValueError, match=message):
        classifier(**params).fit(X, Y)


@parametrize_with_checks(
    [
        CoRegClassifier(
            max_epochs=6,
            warm_up=4,
            contrastive_start=1,
            batch_size=32,
            lr=0.05,
            **{name: value for name, value in OPTIONS.items() if name != "doubly_robust"},
        )
    ]
)
def test_common_checks(estimator, check):
    check(estimator)
