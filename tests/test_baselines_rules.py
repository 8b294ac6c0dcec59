"""The rules of rival methods against values worked out by hand and against plain loops."""

import math

import pytest
import torch

from sklearn_npll.baselines import _rules as rules

# softmax of the logarithm of a distribution is that distribution
PROBA = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]])
LOGITS = PROBA.log()
CANDIDATES = torch.tensor([[1, 0, 1], [0, 1, 0]]).bool()
# the third row carries no label
PROBA_3 = torch.cat([PROBA, torch.tensor([[0.6, 0.3, 0.1]])])
CANDIDATES_3 = torch.cat([CANDIDATES, torch.ones(1, 3, dtype=torch.bool)])


def value(loss):
    assert loss.shape == ()
    return loss.item()


def near(expected):
    return pytest.approx(expected, rel=1e-5)


# ------------------------------------------------------------------ losses of partial labels

PARTIAL_LOSSES = {
    "weighted_cross_entropy": lambda z, S: rules.weighted_cross_entropy(
        z, rules.uniform_confidence(S), S
    ),
    "lws": lambda z, S: rules.leveraged_loss(z, rules.leveraged_weights(z, S), S, 2.0),
    "lwc": lambda z, S: rules.leveraged_loss(
        z, rules.leveraged_weights(z, S), S, 2.0, "cross_entropy"
    ),
    "abs_mae": lambda z, S: rules.average_based_loss(z, S),
    "abs_gce": lambda z, S: rules.average_based_loss(z, S, "gce"),
    "complementary": rules.complementary_loss,
    "consistency": lambda z, S: rules.consistency_loss(
        torch.stack([z, -z]), rules.uniform_confidence(S), S
    ),
    "fredis": lambda z, S: rules.fredis_loss(z, rules.uniform_confidence(S), S, 1.0, 1.0),
}


@pytest.mark.parametrize("name", PARTIAL_LOSSES)
def test_rows_of_all_candidates_are_left_out(name):
    loss = PARTIAL_LOSSES[name]
    logits = PROBA_3.log().requires_grad_()
    result = loss(logits, CANDIDATES_3)
    assert value(result) == near(value(loss(LOGITS, CANDIDATES)))
    result.backward()
    assert logits.grad[:2].abs().sum() > 0
    assert not logits.grad[2].any()


@pytest.mark.parametrize("name", PARTIAL_LOSSES)
def test_nothing_but_unlabelled_rows_costs_nothing(name):
    logits = LOGITS.clone().requires_grad_()
    result = PARTIAL_LOSSES[name](logits, torch.ones(2, 3, dtype=torch.bool))
    result.backward()
    assert value(result) == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("name", PARTIAL_LOSSES)
@pytest.mark.parametrize("size", [30.0, 200.0, 1e4])
def test_partial_losses_are_finite_at_extreme_logits(name, size):
    rows = [[size, -size, 0], [-size, size, size], [size, size, size], [-size, -size, size]]
    subsets = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]]
    logits = torch.tensor(rows).repeat(len(subsets), 1).requires_grad_()
    candidates = torch.tensor(subsets).bool().repeat_interleave(len(rows), 0)
    result = PARTIAL_LOSSES[name](logits, candidates)
    result.backward()
    assert result.dtype == torch.float32
    assert result.isfinite()
    assert logits.grad.isfinite().all()


def test_uniform_confidence():
    expected = torch.tensor([[0.5, 0, 0.5], [0, 1, 0], [1 / 3, 1 / 3, 1 / 3]])
    torch.testing.assert_close(rules.uniform_confidence(CANDIDATES_3), expected)


def test_weighted_cross_entropy():
    confidence = torch.tensor([[0.9, 0.0, 0.1], [0.0, 1.0, 0.0]])
    expected = -(0.9 * math.log(0.7) + 0.1 * math.log(0.1) + math.log(0.25)) / 2
    assert value(rules.weighted_cross_entropy(LOGITS, confidence, CANDIDATES)) == near(expected)


def test_leveraged_weights():
    weights = rules.leveraged_weights(PROBA_3.log().requires_grad_(), CANDIDATES_3)
    # row 0: 0.7 and 0.1 of 0.8, and 0.2 alone; row 1: 0.25 alone, and 0.5 and 0.25 of 0.75
    expected = torch.tensor([[7 / 8, 1, 1 / 8], [2 / 3, 1, 1 / 3], [0.6, 0.3, 0.1]])
    torch.testing.assert_close(weights, expected)
    assert not weights.requires_grad


def test_leveraged_loss():
    weights = torch.tensor([[0.8, 1.0, 0.2], [0.4, 1.0, 0.6]])
    # sigmoid(-log a) = 1 / (1 + a) and sigmoid(log a) = a / (1 + a)
    first = 0.8 / 1.7 + 0.2 / 1.1 + 2 * (1.0 * 0.2 / 1.2)
    second = 1.0 / 1.25 + 2 * (0.4 * 0.5 / 1.5 + 0.6 * 0.25 / 1.25)
    loss = rules.leveraged_loss(LOGITS, weights, CANDIDATES, 2.0)
    assert value(loss) == near((first + second) / 2)

    first = 0.8 * math.log(0.7) + 0.2 * math.log(0.1) + 2 * math.log(1 - 0.2)
    second = math.log(0.25) + 2 * (0.4 * math.log(1 - 0.5) + 0.6 * math.log(1 - 0.25))
    loss = rules.leveraged_loss(LOGITS, weights, CANDIDATES, 2.0, "cross_entropy")
    assert value(loss) == near(-(first + second) / 2)


def test_class_activation_label():
    # values z |1 - z|: 2, 0, 0.25, -2, so that neither z nor |z| decides
    logits = torch.tensor([[2.0, 1.0, 0.5, -1.0]]).repeat(4, 1)
    candidates = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]).bool()
    assert rules.class_activation_label(logits, candidates).tolist() == [0, 2, 1, 3]
    assert rules.class_activation_label(1e4 * logits, candidates).tolist() == [0, 1, 1, 3]


def test_average_based_loss():
    first, second = (2 * 0.3 + 2 * 0.9) / 2, 2 * 0.75
    assert value(rules.average_based_loss(LOGITS, CANDIDATES)) == near((first + second) / 2)
    first = ((1 - 0.7**0.5) + (1 - 0.1**0.5)) / 0.5 / 2
    second = (1 - 0.25**0.5) / 0.5
    loss = rules.average_based_loss(LOGITS, CANDIDATES, "gce", q=0.5)
    assert value(loss) == near((first + second) / 2)


def test_complementary_loss():
    expected = -(math.log(1 - 0.2) + math.log(1 - 0.5) + math.log(1 - 0.25)) / 2
    assert value(rules.complementary_loss(LOGITS, CANDIDATES)) == near(expected)


@pytest.mark.parametrize("gap", [20.0, 200.0, 1e4])
def test_complementary_loss_where_one_minus_p_cancels(gap):
    logits = torch.tensor([[gap, 0.0, 0.0]], requires_grad=True)
    loss = rules.complementary_loss(logits, torch.tensor([[False, True, True]]))
    loss.backward()
    # 1 - p = 2 e^-gap / (1 + 2 e^-gap), whose logarithm is log 2 - gap
    assert value(loss) == near(gap - math.log(2))
    # its logit is pushed down with slope p, and the others share the push up; at 1e4 the spacing of
    # float32 is 1e-3
    torch.testing.assert_close(logits.grad, torch.tensor([[1, -0.5, -0.5]]), rtol=0, atol=1e-3)


def test_consistent_confidence():
    views = torch.tensor([[[0.4, 0.5, 0.1], [0.2, 0.3, 0.5]], [[0.1, 0.5, 0.4], [0.2, 0.6, 0.2]]])
    candidates = torch.tensor([[1, 1, 0], [0, 0, 1]]).bool()
    # sqrt(0.4 * 0.1) = 0.2 and sqrt(0.5 * 0.5) = 0.5
    expected = torch.tensor([[2 / 7, 5 / 7, 0], [0, 0, 1]])
    confidence = rules.consistent_confidence(views.log().requires_grad_(), candidates)
    torch.testing.assert_close(confidence, expected)
    assert not confidence.requires_grad
    far = torch.tensor([[[1e4, -1e4, 0.0]], [[1e4, -1e4, 0.0]]]).log_softmax(2)
    confidence = rules.consistent_confidence(far, torch.tensor([[False, True, False]]))
    assert confidence.tolist() == [[0, 1, 0]]


def test_consistency_loss_sums_views_and_averages_rows():
    confidence = torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
    views = torch.stack([LOGITS, torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]).mul(50)])
    # the second view is right up to the small mass that it leaves to the other classes
    first = 0.5 * math.log(0.5 / 0.7) + 0.5 * math.log(0.5 / 0.1) - math.log(0.25)
    second = math.log(2 + math.exp(-25)) - math.log(2) + math.log(1 + 2 * math.exp(-50))
    loss = rules.consistency_loss(views, confidence, CANDIDATES)
    assert value(loss) == near((first + second) / 2)


def test_fredis_loss():
    confidence = torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
    divergence = 0.5 * math.log(0.5 / 0.7) + 0.5 * math.log(0.5 / 0.1) - math.log(0.25)
    complement = -(math.log(1 - 0.2) + math.log(1 - 0.5) + math.log(1 - 0.25))
    loss = rules.fredis_loss(LOGITS, confidence, CANDIDATES, 0.3, 2.0)
    assert value(loss) == near((0.3 * divergence + 2.0 * complement) / 2)


# ------------------------------------------------------------------ targets and candidate sets


def test_alim_target_onehot():
    proba = torch.tensor([[0.7, 0.2, 0.1]]).repeat(3, 1)
    candidates = torch.tensor([[0, 1, 1], [0, 1, 1], [1, 1, 1]]).bool()
    # the first class is worth 0.7 * 0.2 = 0.14 or 0.7 * 0.3 = 0.21, against 0.2
    assert rules.alim_target(proba, candidates, 0.2).tolist() == [[0, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert rules.alim_target(proba, candidates, 0.3).tolist() == [[1, 0, 0]] * 3
    assert rules.alim_target(proba, candidates, 0.3).dtype == torch.float32


def test_alim_target_scale():
    proba, candidates = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[False, True, True]])
    for weight, temperature, values in [
        (0.4, 1.0, [0.5 * 0.4, 0.3, 0.2]),
        (0.4, 0.5, [0.04, 0.09, 0.04]),
        (0.0, 2.0, [0, 0.3**0.5, 0.2**0.5]),
        (1, 1.0, [0.5, 0.3, 0.2]),
    ]:
        target = rules.alim_target(proba, candidates, weight, "scale", temperature)
        expected = torch.tensor([values]) / sum(values)
        torch.testing.assert_close(target, expected)


@pytest.mark.parametrize("temperature", [0.01, 1.0, 10.0])
def test_alim_target_of_a_prediction_without_mass_on_the_candidates(temperature):
    proba = torch.tensor([[1.0, 0.0, 0.0]])
    candidates = torch.tensor([[False, True, True]])
    target = rules.alim_target(proba, candidates, 0.0, "scale", temperature)
    assert target.tolist() == [[0, 0.5, 0.5]]
    assert rules.alim_target(proba, candidates, 0.0).tolist() == [[0, 1, 0]]


def test_alim_weight():
    # ratios 0.7 / 0.2 = 3.5 and 0.25 / 0.5 = 0.5; the row of all candidates has none
    for eta, expected in [(0.0, 0.5), (0.1, 0.5 + 0.1 * 3), (0.5, 1.0), (1.0, 1.0)]:
        assert rules.alim_weight(PROBA_3, CANDIDATES_3, eta) == near(expected)
    assert rules.alim_weight(PROBA, torch.ones(2, 3, dtype=torch.bool), 0.3) == 1
    certain = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    first = torch.tensor([[True, False]] * 2)
    assert rules.alim_weight(certain, first, 0.0) == 0
    assert rules.alim_weight(certain, first, 1.0) == 1


def test_alim_weight_moves_the_share_eta_of_the_rows():
    proba = torch.rand(1000, 5).softmax(1)
    candidates = torch.rand(1000, 5) < 0.4
    candidates[:, 0], candidates[:, 1] = True, False
    eta = 0.2
    target = rules.alim_target(proba, candidates, rules.alim_weight(proba, candidates, eta))
    moved = (target * ~candidates).any(1).float().mean()
    assert moved.item() == pytest.approx(eta, abs=2e-3)


def test_estimate_noise_rate():
    # 30 of 100 labelled rows put their mass outside the candidates; 50 more carry no label
    proba = torch.full((150, 4), 0.02)
    proba[:, 0] = 0.94
    proba[:100, 1:] += torch.rand(100, 3) * 1e-3
    candidates = torch.zeros(150, 4, dtype=torch.bool)
    candidates[:70, 0] = True
    candidates[70:100, 1] = True
    candidates[100:] = True
    rate = rules.estimate_noise_rate(proba, candidates, 0)
    assert isinstance(rate, float)
    assert rate == pytest.approx(0.3, abs=1e-3)
    assert rules.estimate_noise_rate(proba[100:], candidates[100:], 0) == 0
    assert rules.estimate_noise_rate(proba[:1], candidates[:1], 0) == 0


def test_fredis_refine_adds_the_smallest_gaps_and_removes_twice_as_many():
    proba = torch.tensor([[0.5, 0.45, 0.04, 0.01], [0.6, 0.2, 0.15, 0.05]])
    candidates = torch.tensor([[1, 0, 1, 1], [0, 1, 1, 1]]).bool()

    # gaps outside: 0.05 at (0, 1) and 0 at (1, 0)
    # gaps inside: 0.46, 0.49 of row 0 (0 at its likeliest); 0.4, 0.45, 0.55 of row 1
    def refined(*args):
        return rules.fredis_refine(proba, candidates, *args).int().tolist()

    # nothing is added, and what lies above delta is removed
    assert refined(0.0, 0.47) == [[1, 0, 1, 0], [0, 1, 1, 0]]
    # delta = 1 removes nothing itself, but each class added costs two: 0.55 and 0.49
    assert refined(0.01, 1.0) == [[1, 0, 1, 0], [1, 1, 1, 0]]
    # two added, four removed: 0.55, 0.49, 0.46, 0.45
    assert refined(0.1, 1.0) == [[1, 1, 0, 0], [1, 1, 0, 0]]
    # at most one added, the smallest gap, and at most two removed
    assert refined(0.1, 0.1, 1) == [[1, 0, 1, 0], [1, 1, 1, 0]]
    # delta can remove all but the likeliest
    assert refined(0.1, 0.1) == [[1, 1, 0, 0], [1, 0, 0, 0]]
    assert refined(0.0, 0.1) == [[1, 0, 0, 0], [0, 1, 0, 0]]
    assert refined(0.0, 1.0, 0) == candidates.int().tolist()


def test_fredis_refine_never_empties_a_row():
    proba = (5 * torch.randn(200, 6)).softmax(1)
    candidates = torch.rand(200, 6) < 0.4
    candidates[:, 2] |= ~candidates.any(1)
    candidates[:20] = True
    for theta, delta in [(0.0, 0.0), (1e-6, 1.0), (0.2, 0.3), (2.0, -1.0)]:
        refined = rules.fredis_refine(proba, candidates, theta, delta)
        assert refined.any(1).all()
        assert refined[:20].all()
        assert (refined & ~candidates).sum() <= 500


def test_purify_candidates():
    confidence = torch.tensor(
        [[0.6, 0.3, 0.1, 0.0], [0.0, 0.0, 0.0, 1.0], [0.97, 0.01, 0.01, 0.01]]
    )
    candidates = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]).bool()
    # 0.4 * 0.6 = 0.24 leaves 0.3 and drops 0.1; a row without confidence and one without a
    # label keep all
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    assert rules.purify_candidates(confidence, candidates, 0.4).int().tolist() == expected
    assert rules.purify_candidates(confidence, candidates, 1.0)[0].tolist() == [True] + [False] * 3
    assert rules.purify_candidates(confidence, candidates, 0.0)[0].tolist() == [True] * 3 + [False]


# ------------------------------------------------------------------ neighbours and prototypes


def test_knn_label_votes():
    similarity = torch.tensor([[0.6, 0.2], [0.5, -0.5], [-0.1, -0.2]])
    neighbours = torch.tensor([[0, 1], [1, 2], [0, 2]])
    labels = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    # weights 3/4 and 1/4; 1 and 0, as a negative similarity is none; 1/2 and 1/2
    expected = torch.tensor([[0.375, 0.375, 0.25], [0, 0, 1], [0.75, 0.25, 0]])
    torch.testing.assert_close(rules.knn_label_votes(similarity, neighbours, labels), expected)


def test_knn_label_votes_against_a_loop():
    n, m, k = 7, 20, 5
    similarity, neighbours = torch.rand(n, k), torch.randint(m, (n, k))
    labels = rules.uniform_confidence(torch.rand(m, 4) < 0.9)
    votes = rules.knn_label_votes(similarity, neighbours, labels)
    for i in range(n):
        mass = sum(similarity[i, a] * labels[neighbours[i, a]] for a in range(k))
        torch.testing.assert_close(votes[i], mass / similarity[i].sum())


def test_nearest_share():
    label = torch.tensor([0, 2, 0, 0, 2, 0, 3])
    similarity = torch.tensor([0.1, -0.5, 0.9, 0.4, -0.2, 0.3, 0.0])
    # half of four, half of two and, as a class keeps one, the only row of class 3
    expected = [0, 0, 1, 1, 1, 0, 1]
    assert rules.nearest_share(similarity, label, 0.5).int().tolist() == expected
    assert rules.nearest_share(similarity, label, 0.8).int().tolist() == [0, 0, 1, 1, 1, 1, 1]
    assert rules.nearest_share(similarity, label, 1.0).all()
    assert rules.nearest_share(similarity, label, 0.0).int().tolist() == [0, 0, 1, 0, 1, 0, 1]
    assert rules.nearest_share(similarity[:0], label[:0], 0.5).shape == (0,)


def test_nearest_share_against_a_loop():
    label, similarity = torch.randint(5, (300,)), torch.randint(20, (300,)) / 20  # with ties
    kept = rules.nearest_share(similarity, label, 0.29)
    for c in range(5):
        of_class = label == c
        n_kept = int(0.29 * of_class.sum().item())
        assert kept[of_class].sum() == n_kept
        assert similarity[of_class & kept].min() >= similarity[of_class & ~kept].max()


def test_a_share_is_not_lost_to_rounding():
    # 0.29 * 100 is 28.999999999999996
    kept = rules.nearest_share(torch.rand(100), torch.zeros(100, dtype=torch.long), 0.29)
    assert kept.sum() == 29


def test_reliable_rows():
    votes = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.7, 0.3], [0.45, 0.55], [0.9, 0.1]])
    # class 0: rows 0, 1, 3, 5 with votes 0.8, 0.6, 0.7, 0.9; class 1: rows 2, 4
    assert rules.reliable_rows(votes, 0.5).tolist() == [True, False, True, False, False, True]


@pytest.mark.parametrize("n_neighbors", [1, 2, 9])
def test_neighbour_contrast(n_neighbors):
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    entries = torch.tensor([[0.8, 0.6], [0.6, -0.8], [1.0, 0.0], [0.0, -1.0]])
    own = torch.tensor([0, 1])  # the nearest are 2, 0, 1 and 0, 2, 3
    # similarities / 0.5, those that attract first: the own key and the nearest, each once
    attracting = {
        1: ([1.6, 2.0], [-1.6, 1.2]),
        2: ([1.6, 2.0], [-1.6, 1.2, 0.0]),
        9: ([1.6, 1.2, 2.0, 0.0], [1.2, -1.6, 0.0, -2.0]),
    }
    expected = 0.0
    for attracts, counted in zip(attracting[n_neighbors], attracting[9]):
        normaliser = math.log(sum(math.exp(s) for s in counted))
        expected += (normaliser - sum(attracts) / len(attracts)) / 2
    loss = rules.neighbour_contrast(query, entries, own, n_neighbors, 0.5)
    assert value(loss) == near(expected)


# ------------------------------------------------------------------ single noisy labels

LABEL = torch.tensor([0, 2])
NOISY_LOSSES = {
    "gce": rules.generalised_cross_entropy,
    "sce": rules.symmetric_cross_entropy,
    "elr": lambda z, y: rules.elr_loss(z, z.detach().softmax(1), y, 3.0),
}


@pytest.mark.parametrize("name", NOISY_LOSSES)
@pytest.mark.parametrize("size", [30.0, 200.0, 1e4])
def test_noisy_label_losses_are_finite_at_extreme_logits(name, size):
    rows = [[size, -size, 0], [-size, size, size], [size, size, size], [-size, -size, size]]
    logits = torch.tensor(rows).repeat(3, 1).requires_grad_()
    label = torch.arange(3).repeat_interleave(4)
    result = NOISY_LOSSES[name](logits, label)
    result.backward()
    assert result.dtype == torch.float32
    assert result.isfinite()
    assert logits.grad.isfinite().all()


def test_generalised_cross_entropy():
    expected = ((1 - 0.7**0.5) / 0.5 + (1 - 0.25**0.5) / 0.5) / 2
    assert value(rules.generalised_cross_entropy(LOGITS, LABEL, 0.5)) == near(expected)
    # the limits of q: 1 - p and -log p
    assert value(rules.generalised_cross_entropy(LOGITS, LABEL, 1)) == near((0.3 + 0.75) / 2)
    expected = -(math.log(0.7) + math.log(0.25)) / 2
    loss = rules.generalised_cross_entropy(LOGITS, LABEL, 1e-5)
    assert value(loss) == pytest.approx(expected, rel=1e-3)


def test_symmetric_cross_entropy():
    cross_entropy = -(math.log(0.7) + math.log(0.25)) / 2
    # log 0 := -4 log 10 on the mass of the other classes, 0.3 and 0.75
    reverse = 4 * math.log(10) * (0.3 + 0.75) / 2
    loss = rules.symmetric_cross_entropy(LOGITS, LABEL, alpha=0.1, beta=2.0)
    assert value(loss) == near(0.1 * cross_entropy + 2.0 * reverse)
    loss = rules.symmetric_cross_entropy(LOGITS, LABEL, log_zero=-4.0)
    assert value(loss) == near(cross_entropy + 4.0 * (0.3 + 0.75) / 2)


def test_elr_loss():
    target = torch.tensor([[0.5, 0.2, 0.1], [0.0, 0.0, 0.0]])
    cross_entropy = -(math.log(0.7) + math.log(0.25)) / 2
    # <t, p> = 0.35 + 0.04 + 0.01 and 0, whose logarithm log(1 - 0) is 0
    expected = cross_entropy + 3.0 * math.log(1 - 0.4) / 2
    assert value(rules.elr_loss(LOGITS, target, LABEL, 3.0)) == near(expected)


def test_elr_loss_pulls_towards_the_target():
    logits = torch.zeros(1, 3, requires_grad=True)
    target, label = torch.tensor([[0.0, 0.9, 0.0]]), torch.tensor([0])
    rules.elr_loss(logits, target, label, 10.0).backward()
    # with p = 1/3: CE gives p - onehot; the rest -weight p (t - <t, p>) / (1 - <t, p>)
    expected = [-2 / 3 + 10 * 0.3 / 3 / 0.7, 1 / 3 - 10 * 0.6 / 3 / 0.7, 1 / 3 + 10 * 0.3 / 3 / 0.7]
    torch.testing.assert_close(logits.grad, torch.tensor([expected]))


def test_elr_target():
    target = rules.elr_target(torch.tensor([[0.5, 0.3]]), torch.tensor([[0.1, 0.9]]), 0.7)
    torch.testing.assert_close(target, torch.tensor([[0.35 + 0.03, 0.21 + 0.27]]))
    live = torch.tensor([[0.1, 0.9]], requires_grad=True)
    assert not rules.elr_target(torch.zeros(1, 2), live, 0.7).requires_grad


def test_small_loss_rows():
    loss = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0])
    # 0.6 * 5 = 3 rows kept; 0.5 * 5 = 2.5 is rounded down; one is always kept
    for rate, expected in [
        (0.0, [1, 1, 1, 1, 1]),
        (0.4, [1, 1, 1, 0, 0]),
        (0.5, [0, 1, 1, 0, 0]),
        (1.0, [0, 1, 0, 0, 0]),
    ]:
        assert rules.small_loss_rows(loss, rate).int().tolist() == expected
    # 1 - 0.9 is a little less than 0.1
    assert rules.small_loss_rows(torch.rand(30), 0.9).sum() == 3


def test_forget_rate():
    rates = [rules.forget_rate(epoch, 0.4, 10) for epoch in (0, 5, 10, 50)]
    assert rates == pytest.approx([0, 0.2, 0.4, 0.4])


def test_label_smoothing():
    smoothed = rules.label_smoothing(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), 0.2)
    torch.testing.assert_close(smoothed, torch.tensor([[0.85, 0.05, 0.05, 0.05]]))
