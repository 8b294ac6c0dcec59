"""A million numbers, zero, denormal, huge and infinite ones among them, through every formula.

Each function must stay finite wherever its docstring does not say otherwise, and so must its
gradient. ``-W error`` and these tests turn NumPy's warnings of overflows into errors.
"""

import numpy as np
import pytest
import torch
from torch.autograd import grad

from sklearn_npll import _vote_models as votes_of
from sklearn_npll._distributions import project_simplex, restrict
from sklearn_npll._evidence import annotator_shares, majority_vote
from sklearn_npll._rules import candidates_from_scores
from sklearn_npll.annotators import _agreement, _conformal, _refinement
from sklearn_npll.baselines import _ipal, _pl_knn, _sure
from sklearn_npll.baselines import _rules as rivals
from sklearn_npll.baselines._rules import _candidates
from sklearn_npll.coreg import _division, _losses, _options
from sklearn_npll.detection import _deft_losses as deft
from sklearn_npll.detection import _rules as detection

pytestmark = pytest.mark.filterwarnings("error")

N, C = 100_000, 10  # a million numbers
TINY = [0.0, 1e-45, 1e-40, 1e-38, 1e-30, 1e-12, 1e-8, 1e-4]


def _rng():
    return np.random.default_rng(0)


def make_logits():
    """Ordinary, equal, large and huge logits, in rows of one kind and in mixed ones."""
    rng = _rng()
    scale = 10.0 ** rng.choice([-45, -3, 0, 1, 2, 4, 30], size=(N, 1))
    logits = rng.normal(size=(N, C)) * scale
    logits[::7] = rng.choice(
        [0.0, 1.0, 88.0, -104.0, 1e4, -1e4, 1e30, -1e30], (len(logits[::7]), C)
    )
    logits[:5] = logits[:5, :1]
    return logits.astype(np.float32)


def make_proba():
    """Distributions: flat ones, one-hot ones, and with entries that vanish."""
    rng = _rng()
    proba = rng.dirichlet(np.full(C, 0.05), N)
    proba[::3] = rng.dirichlet(np.ones(C), len(proba[::3]))
    proba[::5, 1:4] = rng.choice(TINY, size=(len(proba[::5]), 3))
    proba[:1000] = np.eye(C)[rng.integers(0, C, 1000)]
    proba[1000:2000] = 1 / C
    return (proba / proba.sum(axis=1, keepdims=True)).astype(np.float32)


def make_candidates():
    rng = _rng()
    candidates = rng.random((N, C)) < rng.random((N, 1))
    candidates[np.arange(N), rng.integers(0, C, N)] = True
    candidates[-1000:] = True
    return candidates


LOGITS, PROBA, CANDIDATES = make_logits(), make_proba(), make_candidates()
L, P, S = torch.from_numpy(LOGITS), torch.from_numpy(PROBA), torch.from_numpy(CANDIDATES)
LABEL = S.float().argmax(1)
ANY_PROBA = P.roll(1, 0)
UNIT = torch.nn.functional.normalize(
    torch.from_numpy(_rng().normal(size=(2000, 16))).float(), dim=1
)
OWN, GROUP = torch.arange(500), torch.arange(2000) % (2 * C)
CONTRASTS = _losses.contrastive_masks(LABEL[:500], S[:500, 0], C, "noise_tolerant")


def contrast(temperature):
    return lambda z: _losses.contrastive_loss(
        torch.nn.functional.normalize(z[:500, :8], dim=1),
        UNIT[:, :8] / UNIT[:, :8].norm(dim=1, keepdim=True),
        GROUP,
        OWN,
        *CONTRASTS,
        temperature,
    )


# Functions of logits with a gradient.
LOSSES = {
    "candidate_nll": lambda z: _losses.candidate_nll(z, S),
    "negative_entropy": _losses.negative_entropy,
    "warm_up_loss": lambda z: _losses.warm_up_loss(z, S),
    "score_cross_entropy": lambda z: _losses.score_cross_entropy(z, P),
    "soft_cross_entropy": lambda z: _losses.soft_cross_entropy(z, P),
    "squared_error": lambda z: _losses.squared_error(z, P, "sum"),
    "kl_divergence": lambda z: _losses.kl_divergence(z, P),
    "contrastive_loss": contrast(0.07),
    "contrastive_loss, hot": contrast(1.0),
    "contrastive_loss, cold": contrast(0.005),
    "elr_regulariser": lambda z: _options.elr_regulariser(z, P),
    "doubly_robust_correction": lambda z: _options.doubly_robust_correction(z, P, ANY_PROBA),
    "weighted_cross_entropy": lambda z: rivals.weighted_cross_entropy(z, P, S),
    "leveraged_loss": lambda z: rivals.leveraged_loss(z, rivals.leveraged_weights(z, S), S, 2.0),
    "leveraged_loss, LWC": lambda z: rivals.leveraged_loss(
        z, rivals.leveraged_weights(z, S), S, 2.0, "cross_entropy"
    ),
    "average_based_loss, MAE": lambda z: rivals.average_based_loss(z, S),
    "average_based_loss, GCE": lambda z: rivals.average_based_loss(z, S, "gce"),
    "complementary_loss": lambda z: rivals.complementary_loss(z, S),
    "consistency_loss": lambda z: rivals.consistency_loss(z[None], P, S),
    "fredis_loss": lambda z: rivals.fredis_loss(z, P, S, 1.0, 1.0),
    "neighbour_contrast": lambda z: rivals.neighbour_contrast(
        torch.nn.functional.normalize(z[:500], dim=1), UNIT[:, :C], OWN, 5, 0.07
    ),
    "generalised_cross_entropy": lambda z: rivals.generalised_cross_entropy(z, LABEL),
    "symmetric_cross_entropy": lambda z: rivals.symmetric_cross_entropy(z, LABEL),
    "elr_loss": lambda z: rivals.elr_loss(z, P, LABEL, 3.0),
    "dual_prompt_loss": lambda z: deft.dual_prompt_loss(z, P, ANY_PROBA),
    "similarity_loss": lambda z: deft.similarity_loss(z, S, S[:, 0]),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_losses_and_their_gradients_are_finite(loss):
    logits = L.clone().requires_grad_()
    value = loss(logits)
    assert value.shape == () and value.isfinite()
    (gradient,) = grad(value, logits)
    assert gradient.isfinite().all()
    assert gradient.any()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_losses_of_unlabelled_rows_alone_are_finite(loss, monkeypatch):
    monkeypatch.setitem(globals(), "S", torch.ones_like(S))
    logits = L.clone().requires_grad_()
    value = loss(logits)
    assert value.isfinite()
    assert grad(value, logits)[0].isfinite().all()


def test_contrasts_that_ignore_all_but_the_own_key_are_zero():
    masks = _losses.contrastive_masks(torch.zeros(3, dtype=torch.long), torch.zeros(3), 2, "moco")
    none = torch.zeros_like(masks[0])
    for temperature in (0.07, 1e-3):
        loss = _losses.contrastive_loss(
            UNIT[:3], UNIT[:3], torch.zeros(3, dtype=torch.long), torch.arange(3), none, none,
            temperature,
        )  # fmt: skip
        torch.testing.assert_close(loss, torch.tensor(0.0), atol=1e-3, rtol=0)


def as_tensor(values):
    return torch.from_numpy(np.asarray(values))


# Functions that return distributions, by whether these lie on the candidates.
ON_CANDIDATES = {
    "rescale_candidates": lambda: _division.rescale_candidates(P, S),
    "uniform_confidence": lambda: rivals.uniform_confidence(S),
    "consistent_confidence": lambda: rivals.consistent_confidence(
        torch.stack([L.log_softmax(1), ANY_PROBA.clamp(min=1e-30).log()]), S
    ),
    "restrict": lambda: restrict(PROBA.astype(float), CANDIDATES),
    "restrict, denormal": lambda: restrict(PROBA * np.float64(5e-324), CANDIDATES),
    "project_simplex": lambda: project_simplex(LOGITS.astype(float), CANDIDATES),
    "sure_assign": lambda: _sure.sure_assign(LOGITS, CANDIDATES, 0.3),
    "sure_assign, all reward": lambda: _sure.sure_assign(PROBA, CANDIDATES, 1e30),
    "correct_class_mass": lambda: _ipal.correct_class_mass(restrict(PROBA, CANDIDATES), CANDIDATES),
    "target_weights": lambda: deft.target_weights(L, S, torch.ones(N, dtype=torch.bool)),
}
DISTRIBUTIONS = {
    "align_distribution": lambda: _division.align_distribution(P, P.mean(0), P[5]),
    "align_distribution, a class never predicted": lambda: _division.align_distribution(
        P, torch.eye(C)[0], torch.full((C,), 1 / C)
    ),
    "sharpen": lambda: _division.sharpen(P, 0.5),
    "sharpen, cold": lambda: _division.sharpen(P, 1e-3),
    "partial_target": lambda: _division.partial_target(P[:, 0], P, ANY_PROBA),
    "blend_by_popularity": lambda: _options.blend_by_popularity(P, ANY_PROBA, P.mean(0), 1.0),
    "confident_target": lambda: _options.confident_target(P, LABEL, 0.3),
    "alim_target": lambda: rivals.alim_target(P, S, 0.0),
    "alim_target, scale": lambda: rivals.alim_target(P, S, 0.3, "scale", 0.1),
    "knn_label_votes": lambda: rivals.knn_label_votes(
        torch.from_numpy(_rng().choice([-1.0, *TINY, 1.0], (N, 4))).float(),
        torch.from_numpy(_rng().integers(0, N, (N, 4))),
        P,
    ),
    "label_smoothing": lambda: rivals.label_smoothing(P, 0.5),
    "complement_weights": lambda: deft.complement_weights(S[~S.all(1)], "all"),
    "neighbor_votes": lambda: detection.neighbor_votes(_rng().integers(0, N, (N, 4)), PROBA),
    "annotator_shares": lambda: annotator_shares(PROBA * np.float32(1e38), None, C),
    "annotator_shares, denormal": lambda: annotator_shares(
        np.maximum(PROBA * np.float32(1e-44), np.float32(1e-45)), None, C
    ),
    "majority_vote": lambda: majority_vote(_rng().integers(-1, C, (N, 5)), C),
    "one_coin_posterior": lambda: _agreement.one_coin_posterior(
        _rng().integers(-1, C, (N, 5)), [0.0, 700.0, 1e5, 1e-300, 30.0], C
    ),
    "sinkhorn": lambda: _refinement.sinkhorn(PROBA.astype(float), 20),
    "harden": lambda: _refinement.harden(PROBA, 0.6),
}


@pytest.mark.parametrize("rule", ON_CANDIDATES.values(), ids=ON_CANDIDATES)
def test_distributions_on_the_candidates(rule):
    target = as_tensor(rule()).double()
    assert (target >= 0).all()
    torch.testing.assert_close(target.sum(1), torch.ones(N).double(), atol=1e-5, rtol=0)
    assert not target[~S].any()


@pytest.mark.parametrize("rule", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_distributions(rule):
    target = as_tensor(rule()).double()
    assert (target >= 0).all()
    torch.testing.assert_close(target.sum(1), torch.ones(len(target)).double(), atol=1e-5, rtol=0)


# Other functions of probabilities or logits, and the interval their values lie in.
BOUNDED = {
    "division_loss": (lambda: _division.division_loss(P, S), 0, 18.5),
    "min_max_scale": (lambda: _division.min_max_scale(L.abs().amax(1)), 0, 1),
    "min_max_scale, equal": (lambda: _division.min_max_scale(torch.full((N,), 1e30)), 0, 0),
    "class_thresholds": (lambda: _options.class_thresholds(P.mean(0), 0.98), 0, 0.98),
    "pseudo_label_weights": (
        lambda: _options.pseudo_label_weights(P, P[5], S[:, 0], 0.9),
        0,
        2,
    ),
    "log_complement": (lambda: _candidates._log_complement(L).exp(), 0, 1),
    "candidate_mass": (lambda: detection.candidate_mass(PROBA, CANDIDATES), 0, 1),
    "candidate_loss": (lambda: detection.candidate_loss(PROBA, CANDIDATES), 0, 18.5),
    "consistency": (lambda: detection.consistency(PROBA, CANDIDATES), 0, 1),
    "best_margin": (lambda: deft.best_margin(L, S).sigmoid(), 0, 1),
    "alim_weight": (lambda: np.float64(rivals.alim_weight(P, S, 0.3)), 0, 1),
    "noise rate": (lambda: np.float64(rivals.estimate_noise_rate(P, S, 0)), 0, 1),
    "prototypes": (
        lambda: _division.update_prototypes(torch.zeros(C, 16), UNIT, GROUP // 2, 0.0).norm(dim=1),
        1 - 1e-5,
        1 + 1e-5,
    ),
    "lac_scores": (lambda: np.exp(-_conformal.lac_scores(PROBA)), 0, 1),
    "aps_scores": (lambda: np.exp(-_conformal.aps_scores(PROBA)), 0, 1),
    "vote_weights": (
        lambda: _agreement.vote_weights(_rng().uniform(1e-12, 1 - 1e-12, N), C),
        0,
        40,
    ),
    "pl_knn_votes": (
        lambda: _pl_knn.pl_knn_votes(
            _rng().choice([*TINY, 1.0, 1e150], (N, 4)), _rng().integers(0, N, (N, 4)), CANDIDATES
        ),
        0,
        4,
    ),
}


@pytest.mark.parametrize("rule, low, high", BOUNDED.values(), ids=BOUNDED)
def test_values_stay_in_their_interval(rule, low, high):
    values = as_tensor(rule())
    assert ((values >= low) & (values <= high)).all()


@pytest.mark.parametrize("shape", ["one clean", "one noisy", "two", "equal", "heavy"])
def test_mixtures_of_any_losses_give_probabilities(shape):
    loss = {
        "one clean": np.zeros(1000),
        "one noisy": np.ones(1000),
        "two": np.repeat([0.0, 1.0], [999, 1]),
        "equal": np.full(1000, 1 / 3) + np.arange(1000) * 1e-12,
        "heavy": _rng().pareto(0.5, 1000),
    }[shape]
    scaled = _division.min_max_scale(torch.from_numpy(loss)).numpy()
    clean, means = _division.clean_probability(scaled, 0)
    assert ((clean >= 0) & (clean <= 1)).all()
    assert np.isnan(means).all() or 0 <= means[0] <= means[1] <= 1
    mixture = detection.LossMixture(0).fit(loss)
    found = mixture.clean_probability(np.array([-1e300, 0.0, 1e300]))
    assert ((found >= 0) & (found <= 1)).all()


def test_optimal_transport_labels_every_row():
    for prior in (None, torch.eye(C)[2]):  # at worst a single class
        label = _options.balanced_labels(P, prior)
        assert label.shape == (N,) and ((label >= 0) & (label < C)).all()


@pytest.mark.parametrize("n_classes", [2, 40])
@pytest.mark.parametrize("estimate", [votes_of.dawid_skene, votes_of.label_model])
def test_models_of_votes_give_probabilities(estimate, n_classes):
    rng = _rng()
    truth = rng.integers(0, n_classes, 500)
    votes = np.where(
        rng.random((500, 4)) < 0.7, truth[:, None], rng.integers(-1, n_classes, (500, 4))
    )
    votes[:, 3] = -1  # who always abstains
    votes[0] = -1
    confusion, prior, _ = estimate(votes, n_classes)
    posterior = votes_of.dawid_skene_posterior(votes, confusion, prior)
    for values in (confusion, prior, posterior):
        assert (values >= 0).all()
        np.testing.assert_allclose(values.sum(axis=-1), 1, rtol=1e-6)


@pytest.mark.parametrize("params", [{}, {"n_neighbors": 500}, {"n_neighbors": 1}])
@pytest.mark.parametrize("method", list(_refinement.REFINEMENTS))
def test_refinements_of_equal_opposite_and_unread_images_are_distributions(method, params):
    if method == "inmap" and params:
        pytest.skip("has no neighbours")
    images = UNIT.numpy()[:60].copy()
    images[:20] = images[0]
    images[20:25] = -images[0]
    images[25] = 0  # could not be read
    text = UNIT.numpy()[None, 60:65]
    for scale in (1e-3, 100.0, 1e6):
        (proba,) = _refinement.refined_probabilities(images, text, scale, method, params)
        assert (proba >= 0).all()
        np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-4)


@pytest.mark.parametrize("rule", ["topk", "threshold", "ratio", "cumulative", "cpl"])
def test_candidate_rules_leave_no_row_empty(rule):
    candidates = candidates_from_scores(PROBA, rule)
    assert candidates.shape == PROBA.shape and candidates.any(axis=1).all()
    if rule == "topk":
        assert (candidates_from_scores(LOGITS, rule).sum(axis=1) == 3).all()
