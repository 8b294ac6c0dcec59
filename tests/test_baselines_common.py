"""What all rivals that train networks have in common, and scikit-learn's common checks of them."""

import pickle

import numpy as np
import pytest
from fakes import OLD_TORCH
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_npll import PartialLabels
from sklearn_npll._neural import _base
from sklearn_npll._neural._checkpoint import save_checkpoint
from sklearn_npll._neural._contrastive import ContrastiveNet
from sklearn_npll.baselines import (
    ABSClassifier,
    ALIMClassifier,
    CAVLClassifier,
    CCClassifier,
    CEClassifier,
    CoTeachingClassifier,
    CRDPLLClassifier,
    DistillationClassifier,
    DivideMixClassifier,
    ELRClassifier,
    FREDISClassifier,
    GCEClassifier,
    LWSClassifier,
    PALSClassifier,
    PiCOClassifier,
    PiCOPlusClassifier,
    POPClassifier,
    PRODENClassifier,
    SCEClassifier,
)
from sklearn_npll.datasets import make_candidates

SHORT = {"max_epochs": 12, "batch_size": 32, "lr": 0.05, "random_state": 0}
RIVALS = {
    "CC": CCClassifier(),
    "PRODEN": PRODENClassifier(),
    "RC": PRODENClassifier(variant="rc"),
    "LWS": LWSClassifier(),
    "LWC": LWSClassifier(loss="cross_entropy"),
    "CAVL": CAVLClassifier(),
    "ABS-GCE": ABSClassifier(),
    "ABS-MAE": ABSClassifier(loss="mae"),
    "CR-DPLL": CRDPLLClassifier(),
    "PiCO": PiCOClassifier(),
    "POP": POPClassifier(warm_up=3, window=2),
    "FREDIS": FREDISClassifier(warm_up=3),
    "PALS": PALSClassifier(warm_up=5),
    "PiCO+": PiCOPlusClassifier(warm_up=3),
    "ALIM-Onehot": ALIMClassifier(warm_up=3),
    "ALIM-Scale": ALIMClassifier(warm_up=3, scaling="scale", confidence="prediction"),
    "CE": CEClassifier(),
    "GCE": GCEClassifier(),
    "SCE": SCEClassifier(),
    "ELR": ELRClassifier(),
    "Co-teaching": CoTeachingClassifier(warm_up=3),
    "DivideMix": DivideMixClassifier(warm_up=5),
}
RIVALS = {name: rival.set_params(**SHORT) for name, rival in RIVALS.items()}
rivals = pytest.mark.parametrize("rival", RIVALS.values(), ids=RIVALS)


# one of each class; on a few clean blobs the squared error of DivideMix needs less weight
CHECKED = {type(rival): rival for rival in RIVALS.values()}
CHECKED[DivideMixClassifier] = clone(RIVALS["DivideMix"]).set_params(unlabelled_weight=1.0)


@parametrize_with_checks(list(CHECKED.values()))
def test_common_checks(estimator, check):
    if OLD_TORCH and check.func.__name__ == "check_methods_subset_invariance":
        pytest.skip("PyTorch before 2.5 sums single rows in another order, and 1e-7 is asked for")
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    """Digits with one wrong candidate in ten and a tenth of the sets without the truth."""
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=600, random_state=0)
    scaler = StandardScaler().fit(X_train)
    candidates = make_candidates(y_train, q=0.1, eta=0.1, random_state=0)
    data = scaler.transform(X_train).astype(np.float32)
    labels = PartialLabels.from_candidates(candidates, data)
    return labels, y_train, scaler.transform(X_test).astype(np.float32), y_test


@rivals
def test_learns(rival, digits):
    labels, y, X_test, y_test = digits
    rival = clone(rival).fit(labels)
    # a single candidate is right in about two of three rows, chosen at random
    assert rival.score(X_test, y_test) > 0.75
    assert rival.label_distributions_.shape == (len(y), 10)
    np.testing.assert_allclose(rival.label_distributions_.sum(1), 1, rtol=1e-4)
    assert np.mean(rival.transduction_ == y) > 0.65
    assert len(rival.history_) == rival.n_iter_ == 12
    assert all(row["gradient_samples"] >= 600 for row in rival.history_)


@rivals
def test_samples_of_an_epoch_are_those_announced(rival, digits):
    announced = rival.gradient_samples_per_epoch(600)
    if announced is None:
        pytest.skip("depends on the training")
    history = clone(rival).fit(digits[0]).history_
    assert np.mean([row["gradient_samples"] for row in history]) == announced


@rivals
def test_same_seed_same_result(rival, digits):
    labels, _, X_test, _ = digits
    first = clone(rival).set_params(max_epochs=5).fit(labels)
    second = pickle.loads(pickle.dumps(clone(first).fit(labels)))
    assert_array_equal(first.predict_proba(X_test), second.predict_proba(X_test))
    assert_array_equal(first.label_distributions_, second.label_distributions_)
    other = clone(first).set_params(random_state=1).fit(labels)
    assert (other.predict_proba(X_test) != first.predict_proba(X_test)).any()


@rivals
def test_resumes_where_it_was_interrupted(rival, digits, tmp_path, monkeypatch):
    labels, _, X_test, _ = digits
    rival = clone(rival).set_params(max_epochs=6)
    whole = clone(rival).fit(labels)
    rival.set_params(checkpoint_dir=tmp_path, checkpoint_every=2)

    def save_and_stop(state, path):
        save_checkpoint(state, path)
        if len(state["history"]) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_base, "save_checkpoint", save_and_stop)
        clone(rival).fit(labels)
    resumed = rival.fit(labels)
    assert_array_equal(resumed.predict_proba(X_test), whole.predict_proba(X_test))
    assert len(resumed.history_) == 6
    assert_array_equal(resumed.label_distributions_, whole.label_distributions_)


@rivals
def test_images(rival):
    rng = np.random.default_rng(0)
    y = np.arange(48) % 3
    images = rng.integers(0, 60, (48, 12, 12), dtype=np.uint8)
    images[np.arange(48), 4 * y] = 250  # a bright row tells the class
    rival = clone(rival).set_params(max_epochs=4, batch_size=16, flip=False)
    rival.fit(PartialLabels.from_candidates(np.eye(3, dtype=bool)[y], images))
    assert rival.predict_proba(images).shape == (48, 3)


@rivals
def test_labels_of_unlabelled_rows_are_predictions(rival, digits):
    labels, y, _, _ = digits
    candidates = labels.toarray().copy()  # digits is everybody's
    candidates[::3] = True
    rival = clone(rival).fit(PartialLabels.from_candidates(candidates, labels.data))
    unlabelled = rival.transduction_[::3]
    assert np.mean(unlabelled == rival.predict(labels.data[::3])) > 0.8
    assert np.mean(unlabelled == y[::3]) > 0.6


@rivals
def test_warm_start_on_other_rows(rival, digits):
    labels, _, X_test, _ = digits
    rival = clone(rival).set_params(max_epochs=6, warm_start=True).fit(labels[:300])
    with pytest.warns(UserWarning, match="nothing to do"):  # but the rows are new
        rival.fit(labels[300:500])
    assert rival.label_distributions_.shape == (200, 10)
    rival.set_params(max_epochs=8).fit(labels[200:])
    assert len(rival.history_) == 8
    assert np.isfinite(rival.predict_proba(X_test)).all()
    assert rival.label_distributions_.shape == (400, 10)


def test_early_stopping_waits_for_the_end_of_the_warm_up(digits):
    clf = FREDISClassifier(**{**SHORT, "max_epochs": 20}, warm_up=8, patience=1)
    clf.set_params(early_stopping="covering_rate").fit(digits[0])
    assert clf.n_iter_ > 8
    assert [row["phase"] for row in clf.history_[6:10]] == ["warm_up"] * 2 + ["training"] * 2


def test_single_labels_are_drawn_alike_in_every_fit(digits):
    labels = digits[0]
    for random_state in (None, np.random.RandomState(0)):
        clf = CEClassifier(**{**SHORT, "random_state": random_state, "max_epochs": 1})
        clf.set_params(warm_start=True).fit(labels)
        first = clf.training_state_["data"]
        assert clf.set_params(max_epochs=2).fit(labels).training_state_["data"] == first
    seeds = [CEClassifier(random_state=seed)._check_problem(labels, None) for seed in (0, 1)]
    assert (seeds[0].candidates != seeds[1].candidates).any()


def test_keys_are_made_only_where_they_are_read(digits, monkeypatch):
    def refuse(self, k, inputs):
        raise AssertionError("keys are made")

    monkeypatch.setattr(ContrastiveNet, "encode_keys", refuse)
    labels = digits[0][:100]
    options = {**SHORT, "max_epochs": 2, "warm_start": True}
    for clf in (
        ALIMClassifier(confidence="prediction", **options),
        ALIMClassifier(contrastive_weight=0, **options),
        PiCOClassifier(contrastive_weight=0, **options),
    ):
        assert clf.fit(labels).training_state_["method"]["keys"] == [None]
        clf.set_params(max_epochs=3).fit(labels)
    for clf in (
        ALIMClassifier(**options),
        PiCOClassifier(**options),
        PiCOPlusClassifier(contrastive_weight=0, **options),
    ):
        with pytest.raises(AssertionError, match="keys are made"):
            clf.fit(labels)


def test_fredis_adds_no_class_if_told_so(digits):
    labels = digits[0]
    clf = FREDISClassifier(**SHORT, warm_up=1, theta=0.9, max_added=0.0).fit(labels)
    assert (clf.label_distributions_[~labels.toarray()] == 0).all()
    clf = FREDISClassifier(**SHORT, warm_up=1, theta=0.9, max_added=1e-9).fit(labels)
    assert (clf.label_distributions_[~labels.toarray()] > 0).any()


def test_the_first_epoch_of_pico_plus_always_waits(digits):
    clf = PiCOPlusClassifier(**{**SHORT, "max_epochs": 3}, warm_up=0).fit(digits[0])
    samples = [row["gradient_samples"] for row in clf.history_]
    assert samples == [600, 1200, 1200]
    assert clf.gradient_samples_per_epoch(600) == 1000


def test_one_labelled_row_is_enough():
    X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    candidates = np.ones((20, 2), dtype=bool)
    candidates[0, 1] = False
    clf = CCClassifier(max_epochs=2, random_state=0).fit(X, candidates)
    assert np.isfinite(clf.predict_proba(X)).all()


def test_noise_rate_is_estimated_or_taken(digits):
    labels = digits[0]
    for name in ("ALIM-Onehot", "PiCO+", "Co-teaching"):
        estimated = clone(RIVALS[name]).fit(labels)
        assert estimated.noise_rate_source_ == "estimated"
        assert 0 < estimated.noise_rate_ < 0.6
        given = clone(RIVALS[name]).set_params(eta=0.25, max_epochs=2).fit(labels)
        assert (given.noise_rate_, given.noise_rate_source_) == (0.25, "oracle")


def test_distillation_learns_from_scores(digits):
    labels, y, X_test, y_test = digits
    scores = np.full((len(y), 10), 0.04, dtype=np.float32)
    scores[np.arange(len(y)), y] = 0.64
    with_scores = PartialLabels.from_scores(scores, "topk", 1, data=labels.data)
    clf = DistillationClassifier(**SHORT).fit(with_scores)
    assert clf.score(X_test, y_test) > 0.85
    # the target is soft: its confidence, not just its label, is learnt
    assert 0.4 < clf.predict_proba(X_test).max(1).mean() < 0.8
    with pytest.raises(ValueError, match="there are no scores"):
        DistillationClassifier(**SHORT).fit(labels)
    all_classes = PartialLabels.from_scores(scores, "topk", 10, data=labels.data)
    assert DistillationClassifier(**SHORT).fit(all_classes).score(X_test, y_test) > 0.85
    for score in ("covering_rate", "approximated_accuracy"):
        with pytest.raises(ValueError, match=f"early_stopping='{score}'.*all classes are cand"):
            DistillationClassifier(**SHORT, early_stopping=score).fit(all_classes)
    assert CEClassifier(**SHORT).fit(all_classes).score(X_test, y_test) > 0.85
    negative = PartialLabels(labels.data, labels.classes, labels.toarray(), scores=-scores)
    with pytest.raises(ValueError, match="negative or all zero"):
        DistillationClassifier(**SHORT).fit(negative)


def test_early_stopping_on_a_label_free_score(digits):
    clf = CCClassifier(**{**SHORT, "max_epochs": 40}, early_stopping="covering_rate", patience=2)
    clf.fit(digits[0])
    assert clf.n_iter_ < 40
    assert all("covering_rate" in row for row in clf.history_)


def test_bad_options():
    X, y = np.eye(4), np.arange(4) % 2
    with pytest.raises(ValueError, match="variant"):
        PRODENClassifier(variant="prodne").fit(X, y)
    for shares in ((0.9,), (np.nan, 0.8), (2.0, 0.5), ("a", "b")):
        with pytest.raises(ValueError, match="confidence_momentum must be two shares"):
            PiCOClassifier(confidence_momentum=shares).fit(X, y)
    full = PartialLabels.from_candidates(np.ones((4, 2)), X)
    for learner in (CEClassifier(), PRODENClassifier()):
        with pytest.raises(ValueError, match="nothing to learn from"):
            learner.fit(full)
    with pytest.raises(ValueError, match="eta"):
        ALIMClassifier(eta=1.5).fit(X, y)
    with pytest.raises(ValueError, match="NaN"):
        CCClassifier().fit(np.full((4, 2), np.nan), y)
    with pytest.raises(ValueError, match="no candidate"):
        CCClassifier().fit(X, np.zeros((4, 3)))
