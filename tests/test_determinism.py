"""The same seed gives the same bits, in threads too, and the global generators are left alone."""

import random
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
import threadpoolctl
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.mixture import GaussianMixture
from zoo import CASES, PUBLIC

from sklearn_npll import CoRegClassifier, PartialLabels
from sklearn_npll.annotators import _open_clip
from sklearn_npll.baselines import CEClassifier
from sklearn_npll.coreg import _division

cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture(scope="module")
def serial():
    """What each estimator says that is fitted and asked with nothing beside it."""
    return {name: case.results(case.fit()) for name, case in CASES.items()}


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert_array_equal(found[name], value, err_msg=name, strict=True)


def test_every_public_estimator_is_here():
    missing = PUBLIC - {name.partition(",")[0] for name in CASES}
    assert missing == (set() if find_spec("cleanlab") else {"ConfidentLearningDetector"})


@pytest.mark.parametrize("name", CASES)
def test_same_seed_same_bits_and_the_global_generators_untouched(name, serial):
    case = CASES[name]
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    found = case.results(case.fit())
    assert random.getstate() == states[0]
    for now, before in zip(np.random.get_state(), states[1]):  # noqa: NPY002
        assert_array_equal(now, before)
    assert torch.equal(torch.get_rng_state(), states[2])
    assert_same(found, serial[name])
    assert len(found) >= 2  # something was compared


def test_fits_and_predictions_in_threads_are_those_in_turn(serial):
    def fit_and_ask(name):
        return CASES[name].results(CASES[name].fit())

    with ThreadPoolExecutor(4) as pool:
        for name, found in zip(CASES, pool.map(fit_and_ask, CASES)):
            assert_same(found, serial[name])


@cases
def test_one_fitted_estimator_answers_several_threads(case):
    fitted = case.fit()
    expected = case.results(fitted)
    together = threading.Barrier(4)

    def ask(_):
        together.wait(60)
        return case.results(fitted)

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(ask, range(4)):
            assert_same(found, expected)


def test_who_loads_a_model_does_not_disturb_a_training(serial, monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    loading = threading.Event()

    def slow_load(*args, **kwargs):
        loading.set()
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            torch.rand(1)  # as the random weights are drawn that a model starts with
        raise OSError("no weights")

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", slow_load)
    case = CASES["CoRegClassifier"]
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(_open_clip._load.__wrapped__, "ViT-B-32", "openai", "cpu", "fp32", None)
        assert loading.wait(60)
        found = case.results(case.fit())
        with pytest.raises(RuntimeError, match="no weights"):
            load.result()
    assert_same(found, serial["CoRegClassifier"])


def test_mixtures_in_threads_leave_no_filter_of_warnings_behind(monkeypatch):
    class SlowMixture(GaussianMixture):
        def fit(self, X, y=None):
            time.sleep(0.02)
            return super().fit(X)

    monkeypatch.setattr(_division, "GaussianMixture", SlowMixture)
    before = list(warnings.filters)
    losses = np.random.default_rng(0).random((12, 20))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(_division.fit_loss_mixture, losses, range(12)))
    assert list(warnings.filters) == before


@pytest.fixture
def n_threads():
    """Set the threads of torch and of NumPy's linear algebra."""
    before = torch.get_num_threads()
    limits = []

    def set_number(n):
        torch.set_num_threads(n)
        limits.append(threadpoolctl.threadpool_limits(n))

    yield set_number
    for limit in limits[::-1]:
        limit.restore_original_limits()
    torch.set_num_threads(before)


LARGE = np.random.default_rng(0).normal(size=(600, 64)).astype(np.float32)
LARGE_CANDIDATES = np.random.default_rng(1).random((600, 10)) < 0.2
LARGE_CANDIDATES[np.arange(600), LARGE[:, :10].argmax(axis=1)] = True


@pytest.mark.parametrize(
    "estimator",
    [
        CEClassifier(max_epochs=2, batch_size=256, random_state=0),
        CoRegClassifier(
            max_epochs=3, warm_up=1, contrastive_start=0, batch_size=256, random_state=0
        ),
    ],
)
def test_a_number_of_threads_gives_the_same_bits_every_time(estimator, n_threads):
    labels = PartialLabels.from_candidates(LARGE_CANDIDATES, LARGE)
    found = {}
    for n in (1, 2):
        n_threads(n)
        found[n] = estimator.fit(labels).predict_proba(LARGE)
        assert_array_equal(estimator.fit(labels).predict_proba(LARGE), found[n])
    # sums in another order: the same but for rounding, which a short training hardly amplifies
    assert_allclose(found[2], found[1], rtol=0, atol=1e-3)
