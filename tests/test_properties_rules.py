"""Properties of the equations: the order of rows and classes, and what a gradient step does."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import candidate_matrices, logits, probabilities, sizes, untied_probabilities

from sklearn_npll._distributions import project_simplex, restrict
from sklearn_npll._evidence import count_votes, majority_vote
from sklearn_npll._vote_models import dawid_skene, dawid_skene_posterior
from sklearn_npll.annotators import _agreement, _refinement
from sklearn_npll.baselines import _ipal, _sure
from sklearn_npll.baselines import _rules as rivals
from sklearn_npll.coreg import _division, _losses, _options
from sklearn_npll.detection import _deft_losses as deft
from sklearn_npll.detection import _rules as detection


@st.composite
def batches(draw):
    """Logits, other distributions and candidates of one shape, as tensors, and an order of each."""
    candidates = draw(candidate_matrices(sizes(6), sizes(6, 2)))
    shape = n, n_classes = candidates.shape
    batch = {
        "z": torch.from_numpy(draw(logits(shape, huge=1e4))).double(),
        # no ties, whose order is that of the classes
        "p": torch.from_numpy(draw(untied_probabilities(*shape))),
        "t": torch.from_numpy(draw(probabilities(shape))),
        "s": torch.from_numpy(candidates),
    }
    return batch, draw(st.permutations(range(n))), draw(st.permutations(range(n_classes)))


def label(p):
    return p.argmax(1)


# Scalars: the order of rows and classes changes nothing.
SCALARS = {
    "candidate_nll": lambda z, p, t, s: _losses.candidate_nll(z, s),
    "negative_entropy": lambda z, p, t, s: _losses.negative_entropy(z),
    "score_cross_entropy": lambda z, p, t, s: _losses.score_cross_entropy(z, t),
    "soft_cross_entropy": lambda z, p, t, s: _losses.soft_cross_entropy(z, t),
    "squared_error": lambda z, p, t, s: _losses.squared_error(z, t, "mean"),
    "kl_divergence": lambda z, p, t, s: _losses.kl_divergence(z, t),
    "elr_regulariser": lambda z, p, t, s: _options.elr_regulariser(z, t),
    "weighted_cross_entropy": lambda z, p, t, s: rivals.weighted_cross_entropy(z, t, s),
    "leveraged_loss": lambda z, p, t, s: rivals.leveraged_loss(
        z, rivals.leveraged_weights(z, s), s, 2.0
    ),
    "average_based_loss": lambda z, p, t, s: rivals.average_based_loss(z, s, "gce"),
    "complementary_loss": lambda z, p, t, s: rivals.complementary_loss(z, s),
    "consistency_loss": lambda z, p, t, s: rivals.consistency_loss(z[None], t, s),
    "alim_weight": lambda z, p, t, s: torch.tensor(rivals.alim_weight(p, s, 0.4)),
    "generalised_cross_entropy": lambda z, p, t, s: rivals.generalised_cross_entropy(z, label(p)),
    "symmetric_cross_entropy": lambda z, p, t, s: rivals.symmetric_cross_entropy(z, label(p)),
    "dual_prompt_loss": lambda z, p, t, s: deft.dual_prompt_loss(z, t, p),
}
# One number a row: it moves with its row.
ROWS = {
    "division_loss": lambda z, p, t, s: _division.division_loss(p, s),
    "candidate_mass": lambda z, p, t, s: detection.candidate_mass(p.numpy(), s.numpy()),
    "candidate_loss": lambda z, p, t, s: detection.candidate_loss(p.numpy(), s.numpy()),
    "consistency": lambda z, p, t, s: detection.consistency(p.numpy(), s.numpy()),
    "label_match": lambda z, p, t, s: detection.label_match(p.numpy(), s.numpy()),
    "best_margin": lambda z, p, t, s: deft.best_margin(z, s),
    "select_clean": lambda z, p, t, s: deft.select_clean(z, s, "threshold_argmax"),
    "reliable_rows": lambda z, p, t, s: rivals.reliable_rows(p, 1.0),
    "pseudo_label_weights": lambda z, p, t, s: _options.pseudo_label_weights(
        p, p.mean(0), s[:, 0] & False, 0.7
    ),
}
# One number a row and class: it moves with both.
CELLS = {
    "align_distribution": lambda z, p, t, s: _division.align_distribution(p, t.mean(0), p.mean(0)),
    "rescale_candidates": lambda z, p, t, s: _division.rescale_candidates(t, s),
    "sharpen": lambda z, p, t, s: _division.sharpen(t, 0.5),
    "partial_target": lambda z, p, t, s: _division.partial_target(p.amax(1), t, p),
    "update_candidates": lambda z, p, t, s: _options.update_candidates(
        s, p, p, torch.zeros(p.shape[1]), 0.5, 0.1
    ),
    "blend_by_popularity": lambda z, p, t, s: _options.blend_by_popularity(p, t, p.mean(0), 0.5),
    "confident_target": lambda z, p, t, s: _options.confident_target(t, label(p), 0.3),
    "leveraged_weights": lambda z, p, t, s: rivals.leveraged_weights(z, s).nan_to_num(),
    "consistent_confidence": lambda z, p, t, s: rivals.consistent_confidence(
        torch.stack([z.log_softmax(1), p.clamp(min=1e-30).log()]), s
    ),
    "alim_target": lambda z, p, t, s: rivals.alim_target(p, s, 0.3),
    "alim_target, scale": lambda z, p, t, s: rivals.alim_target(p, s, 0.3, "scale", 0.5),
    "purify_candidates": lambda z, p, t, s: rivals.purify_candidates(p, s, 0.3),
    "fredis_refine": lambda z, p, t, s: rivals.fredis_refine(p, s, 0.1, 0.6),
    "target_weights": lambda z, p, t, s: deft.target_weights(p, s, s.all(1)),
    "restrict": lambda z, p, t, s: restrict(t.numpy(), s.numpy()),
    "project_simplex": lambda z, p, t, s: project_simplex(z.numpy(), s.numpy()),
    "sure_assign": lambda z, p, t, s: _sure.sure_assign(p.numpy(), s.numpy(), 0.3),
    "correct_class_mass": lambda z, p, t, s: _ipal.correct_class_mass(
        restrict(t.numpy(), s.numpy()), s.numpy()
    ),
}


def assert_close(found, expected):
    torch.testing.assert_close(
        torch.as_tensor(found), torch.as_tensor(expected), atol=1e-6, rtol=1e-6, check_dtype=False
    )


@pytest.mark.parametrize("rule", SCALARS.values(), ids=SCALARS)
@given(batch=batches())
def test_losses_do_not_depend_on_the_order(rule, batch):
    batch, rows, classes = batch
    permuted = {name: part[rows][:, classes] for name, part in batch.items()}
    assert_close(rule(**permuted), rule(**batch))


@pytest.mark.parametrize("rule", ROWS.values(), ids=ROWS)
@given(batch=batches())
def test_values_of_rows_move_with_them(rule, batch):
    batch, rows, classes = batch
    permuted = {name: part[rows][:, classes] for name, part in batch.items()}
    assert_close(rule(**permuted), torch.as_tensor(rule(**batch))[rows])


@pytest.mark.parametrize("rule", CELLS.values(), ids=CELLS)
@given(batch=batches())
def test_values_of_classes_move_with_them(rule, batch):
    batch, rows, classes = batch
    permuted = {name: part[rows][:, classes] for name, part in batch.items()}
    assert_close(rule(**permuted), torch.as_tensor(rule(**batch))[rows][:, classes])


# What the candidates, or the target, are to become more probable by.
ATTRACTIONS = {
    "candidate_nll": lambda z, s: _losses.candidate_nll(z, s),
    "leveraged_loss": lambda z, s: rivals.leveraged_loss(z, rivals.leveraged_weights(z, s), s, 1.0),
    "average_based_loss": lambda z, s: rivals.average_based_loss(z, s),
    "complementary_loss": lambda z, s: rivals.complementary_loss(z, s),
    "similarity_loss": lambda z, s: deft.similarity_loss(z, s, s.any(1)),
}


@pytest.mark.parametrize("loss", ATTRACTIONS.values(), ids=ATTRACTIONS)
@given(batch=batches())
def test_a_small_step_against_the_gradient_does_not_lose_mass_of_candidates(loss, batch):
    s = batch[0]["s"]
    z = batch[0]["p"].log().clamp(min=-20).requires_grad_()
    loss(z, s).backward()
    assert z.grad.isfinite().all()
    # of a row of all candidates there is nothing to learn
    assert not z.grad[s.all(1)].any()
    before = (z.detach().softmax(1) * s).sum(1)
    after = ((z - 1e-3 * z.grad).detach().softmax(1) * s).sum(1)
    assert (after >= before - 1e-12).all()


@given(batch=batches(), share=st.floats(0, 1))
def test_selections_keep_at_least_one_row_of_each_label(batch, share):
    p = batch[0]["p"]
    kept = rivals.reliable_rows(p, share)
    counts, selected = label(p).bincount(), label(p)[kept].bincount(minlength=p.shape[1])
    for count, number in zip(counts.tolist(), selected.tolist()):
        assert number == (max(1, int(share * count + 1e-6)) if count else 0)
    assert rivals.small_loss_rows(p[:, 0], share).sum() >= 1


@given(batch=batches())
def test_changed_candidates_keep_the_favourite_and_unlabelled_rows(batch):
    p, s = batch[0]["p"], batch[0]["s"]
    rows = torch.arange(len(p))
    for changed in (rivals.fredis_refine(p, s, 0.2, 0.5), rivals.purify_candidates(p, s, 0.5)):
        assert changed.any(1).all()
        assert torch.equal(changed[s.all(1)], s[s.all(1)])
    purified = rivals.purify_candidates(p, s, 0.5)
    assert not (purified & ~s).any()
    assert purified[rows, p.masked_fill(~s, -1).argmax(1)].all()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # of five steps
@given(
    votes=hnp.arrays(np.int64, st.tuples(sizes(12, 2), sizes(4)), elements=st.integers(-1, 3)),
    data=st.data(),
)
def test_models_of_votes_follow_the_order_of_rows_classes_and_prompts(votes, data):
    rows = data.draw(st.permutations(range(len(votes))))
    classes = np.array(data.draw(st.permutations(range(4))))
    prompts = data.draw(st.permutations(range(votes.shape[1])))
    renamed = np.append(classes, -1)[votes[rows][:, prompts]]
    counts = count_votes(votes, 4)
    assert counts.sum() == (votes >= 0).sum()
    np.testing.assert_array_equal(count_votes(renamed, 4)[:, classes], counts[rows])
    share = majority_vote(votes, 4)
    np.testing.assert_allclose(share.sum(axis=1), 1)
    accuracies = _agreement.one_coin_accuracies(votes, 4)
    assert ((accuracies > 0) & (accuracies < 1)).all()
    renamed_accuracies = _agreement.one_coin_accuracies(renamed, 4)
    np.testing.assert_allclose(renamed_accuracies, accuracies[prompts], atol=1e-8)
    weights = _agreement.agreement_weights(votes, 4)
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    if (votes >= 0).any():
        confusion, prior, _ = dawid_skene(votes, 4, max_iter=5)
        posterior = dawid_skene_posterior(votes, confusion, prior)
        renamed_confusion, renamed_prior, _ = dawid_skene(renamed, 4, max_iter=5)
        np.testing.assert_allclose(renamed_prior[classes], prior, atol=1e-8)
        np.testing.assert_allclose(
            dawid_skene_posterior(renamed, renamed_confusion, renamed_prior)[:, classes],
            posterior[rows],
            atol=1e-8,
        )


@given(seed=st.integers(0, 999), n=sizes(12), n_classes=sizes(4))
def test_refinements_are_distributions_and_do_not_depend_on_the_order(seed, n, n_classes):
    rng = np.random.default_rng(seed)

    def unit(*shape):
        vectors = rng.normal(size=shape).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    images, text = unit(n, 5), unit(1, n_classes, 5)
    rows, classes = rng.permutation(n), rng.permutation(n_classes)
    for method in _refinement.REFINEMENTS:
        (proba,) = _refinement.refined_probabilities(images, text, 20.0, method)
        assert (proba >= 0).all()
        np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-5)
        (permuted,) = _refinement.refined_probabilities(
            images[rows], text[:, classes], 20.0, method
        )
        np.testing.assert_allclose(permuted, proba[rows][:, classes], atol=1e-3, err_msg=method)
