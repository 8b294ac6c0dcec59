"""Options of VLMPartialAnnotator between embeddings and candidates."""

import pickle

import numpy as np
import pytest
from fakes import ColourVLM, FeatureVLM
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_npll import PartialLabels, VLMPartialAnnotator
from sklearn_npll._evidence import majority_vote
from sklearn_npll._rules import candidates_from_scores, union_candidates
from sklearn_npll.annotators._encoding import vote_and_average
from sklearn_npll.annotators._refinement import zlap
from sklearn_npll.baselines import DawidSkeneClassifier, LabelModelClassifier, PseudoLabelClassifier
from sklearn_npll.datasets import load_fashion_mnist

COLOURS = ["red", "green", "blue"]
TEMPLATES = ["a {} thing.", "a pale {} thing.", "{}", "the pale {} one"]
OPTIONS = {
    "zlap": {"refine": "zlap"},
    "transclip": {"refine": "transclip", "refine_params": {"n_neighbors": 2}},
    "inmap": {"refine": "inmap", "refine_params": {"max_iter": 20}},
    "vote": {"aggregation": "vote"},
    "dawid_skene": {"aggregation": "dawid_skene"},
    "label_model": {"aggregation": "label_model"},
    "agreement": {"template_weights": "agreement"},
    "weighted vote": {"aggregation": "vote", "template_weights": [3, 1, 1, 2]},
    "cpl": {"rule": "cpl", "rule_value": (0.9, 0.5)},
    "all": {
        "refine": "zlap",
        "aggregation": "vote",
        "template_weights": "agreement",
        "rule": "cumulative",
    },
}
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)

CHECKED = [
    VLMPartialAnnotator(
        {0: "cat", 1: "dog", 2: "fox"},
        templates=["{}", "a {}", "the {}"],
        vlm=FeatureVLM(),
        **given,
    )
    for given in (
        {"refine": "zlap", "aggregation": "dawid_skene"},
        {"refine": "transclip", "template_weights": "agreement"},
        {"refine": "inmap", "refine_params": {"max_iter": 50}, "aggregation": "vote"},
    )
]


@parametrize_with_checks(CHECKED)
def test_common_checks(estimator, check):
    if check.func.__name__ == "check_methods_subset_invariance":
        pytest.skip("transductive: what a sample gets depends on the others")
    check(estimator)


def paint(n=60, seed=0):
    """Noisy coloured images, and the colours."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    X = rng.integers(0, 150, size=(n, 2, 2, 3), dtype=np.uint8)
    X[np.arange(n), :, :, y] += 60
    return X, np.array(COLOURS)[y]


X, Y = paint()


def make(**options):
    return VLMPartialAnnotator(COLOURS, templates=TEMPLATES, vlm=ColourVLM(), **options)


def assert_same(first, second):
    assert_array_equal(first.toarray(), second.toarray())
    assert_array_equal(first.votes, second.votes)
    assert_array_equal(first.scores, second.scores)


# -- the default -------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["union", "ratio"])
def test_without_options_every_batch_is_annotated_by_itself(rule):
    data = load_fashion_mnist("test")
    images = data.images[:100]
    annotator = VLMPartialAnnotator(data.class_prompts, rule=rule, batch_size=64).fit(images)
    labels = annotator.transform(images)
    text, scale = annotator._prompted.text, annotator.logit_scale_
    for start in range(0, 100, 64):
        rows = slice(start, start + 64)
        votes, scores = vote_and_average(annotator.embed(images[rows]), text, scale)
        assert_array_equal(labels.votes[rows], votes)
        assert_array_equal(labels.scores[rows], scores)
        if rule == "union":
            expected = union_candidates(votes, 10)
        else:
            expected = candidates_from_scores(scores, rule)
        assert_array_equal(labels.candidates[rows], expected)


# -- what holds for each option ----------------------------------------------------------------


@each_option
def test_one_annotation_whichever_way_it_is_asked_for(options):
    annotator = make(**options, batch_size=16)
    labels = annotator.fit_transform(X)
    lazy = annotator.transform(X)
    assert not lazy.is_materialized
    assert_same(lazy, labels)
    assert_array_equal(annotator.predict_proba(X), labels.scores)
    assert_allclose(labels.scores.sum(axis=1), 1, rtol=1e-5)
    assert (labels.scores >= 0).all() and labels.scores.dtype == np.float32
    proba = annotator.predict_proba_per_template(X)
    assert_array_equal(proba.argmax(axis=2), labels.votes)
    assert annotator.score(X, Y) > 0.6
    # From embeddings kept by the user, too.
    embedded = clone(annotator).fit_transform(annotator.embed(X))
    assert_allclose(embedded.scores, labels.scores, atol=1e-4)


@each_option
def test_cloned_pickled_and_fitted_again(options):
    annotator = make(**options)
    labels = annotator.fit_transform(X)
    for again in (
        clone(annotator).fit(X),
        pickle.loads(pickle.dumps(annotator)),
        annotator.fit(X),
    ):
        assert_same(again.transform(X), labels)


@each_option
def test_unreadable_images_keep_all_classes(options, tmp_path):
    paths = []
    for i, image in enumerate(X[:20]):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    whole = make(**options, on_error="skip").fit_transform(paths)
    paths[0].write_bytes(b"")
    paths[9].write_bytes(b"no image")
    gone, kept = [0, 9], np.delete(np.arange(20), [0, 9])
    with pytest.warns(UserWarning, match="2 of 20 images cannot be read"):
        labels = make(**options, on_error="skip").fit_transform(paths)
    assert labels.toarray()[gone].all()
    assert_array_equal(labels.votes[gone], -1)
    assert_allclose(labels.scores[gone], 1 / 3, rtol=1e-6)
    alone = make(**options).fit_transform(X[kept])
    assert_allclose(labels.scores[kept], alone.scores, atol=1e-5)
    assert_array_equal(labels.toarray()[kept], alone.toarray())
    assert len(whole) == 20


@each_option
def test_trusted_labels_are_the_only_candidates(options):
    known = np.full(len(X), "-1", dtype="U5")
    known[:5] = "blue"
    labels = make(**options).fit_transform(X, known_labels=known)
    assert_array_equal(labels.toarray()[:5], [[True, False, False]] * 5)
    assert_array_equal(labels.toarray()[5:], make(**options).fit_transform(X).toarray()[5:])


@each_option
def test_one_image_and_none(options):
    annotator = make(**options)
    labels = annotator.fit_transform(X[:1])
    assert labels.toarray().any()
    assert_allclose(labels.scores.sum(), 1, rtol=1e-5)
    assert annotator.transform(X)[:0].candidates.shape == (0, 3)


def test_settled_when_transformed():
    weights, params = np.array([1.0, 2, 3, 4]), {"alpha": 0.5}
    annotator = make(refine="zlap", refine_params=params, template_weights=weights).fit(X)
    lazy = annotator.transform(X)
    expected = annotator.predict_proba(X)
    weights[:], params["alpha"] = 1, 0.1
    annotator.set_params(refine=None, template_weights="agreement", aggregation="vote")
    assert_array_equal(lazy.scores, expected)


def test_options_changed_after_fit_are_checked():
    annotator = make().fit(X)
    for options in (
        {"refine": "zlab"},
        {"template_weights": [1]},
        {"template_weights": [1] * 4, "aggregation": "label_model"},
    ):
        with pytest.raises(ValueError, match="zlab.* 'zlap'|shape|weighs the templates itself"):
            clone(annotator).fit(X).set_params(**options).transform(X)


# -- refinement --------------------------------------------------------------------------------


def test_each_template_is_refined_before_the_mean():
    annotator = make(refine="zlap", refine_params={"alpha": 0.6, "n_neighbors": 3}).fit(X)
    labels, images = annotator.transform(X), annotator.embed(X)
    refined = [zlap(images, text, alpha=0.6, n_neighbors=3) for text in annotator._prompted.text]
    assert_allclose(annotator.predict_proba_per_template(X), np.stack(refined, 1), atol=1e-5)
    assert_allclose(labels.scores, np.mean(refined, axis=0), atol=1e-5)
    assert_array_equal(labels.candidates, union_candidates(labels.votes, 3))


def test_refinement_is_transductive():
    annotator = make(refine="zlap").fit(X)
    together = annotator.predict_proba(X)
    assert np.abs(annotator.predict_proba(X[:10]) - together[:10]).max() > 0.01
    assert_allclose(annotator.predict_proba(X[::-1])[::-1], together, atol=1e-5)


def test_refinement_makes_smaller_and_better_sets_of_real_images():
    data = load_fashion_mnist("test")
    images, y = data.images[:400], data.target_names[data.target[:400]]
    plain = VLMPartialAnnotator(data.class_prompts, output="embeddings").fit(images[:1])
    before = plain.transform(images)
    refined = clone(plain).set_params(refine="zlap").fit(before.data)
    after = refined.transform(before.data)
    assert after.mean_set_size < before.mean_set_size - 0.05
    assert after.coverage(y) > before.coverage(y)
    assert refined.score(before.data, y) > plain.score(before.data, y) + 0.01


# -- aggregation and weights -------------------------------------------------------------------


def test_aggregations_are_those_of_the_classifiers():
    plain = make().fit_transform(X)
    votes = plain.votes
    assert_allclose(make(aggregation="vote").fit(X).predict_proba(X), majority_vote(votes, 3))
    for aggregation, model in (
        ("dawid_skene", DawidSkeneClassifier()),
        ("label_model", LabelModelClassifier()),
    ):
        scores = make(aggregation=aggregation).fit(X).predict_proba(X)
        assert_allclose(scores, model.fit(plain).label_distributions_, atol=1e-6)


def test_union_does_not_depend_on_aggregation_and_weights():
    plain = make().fit_transform(X)
    for options in ({"aggregation": "dawid_skene"}, {"template_weights": [0, 0, 0, 1]}):
        labels = make(**options).fit_transform(X)
        assert_array_equal(labels.candidates, plain.candidates)
        assert (labels.scores != plain.scores).any()


def test_weights_of_templates():
    annotator = make(template_weights=[3, 0, 1, 4]).fit(X)
    each = annotator.predict_proba_per_template(X)
    expected = np.tensordot(each, [3 / 8, 0, 1 / 8, 4 / 8], axes=([1], [0]))
    assert_allclose(annotator.predict_proba(X), expected, rtol=1e-5)
    assert_allclose(annotator.weigh_templates(X), [3 / 8, 0, 1 / 8, 4 / 8])
    assert_allclose(make().fit(X).weigh_templates(X), [0.25] * 4)


def test_agreement_finds_the_template_that_disagrees():
    class Confused(ColourVLM):
        """Takes colours for others where it is asked "perhaps"."""

        def encode_text(self, texts):
            vectors = super().encode_text(texts)
            wrong = ["perhaps" in text for text in texts]
            vectors[wrong] = np.roll(vectors[wrong], 1, axis=1)
            return vectors

    annotator = VLMPartialAnnotator(
        COLOURS, templates=[*TEMPLATES[:3], "{}, perhaps"], vlm=Confused()
    ).set_params(template_weights="agreement")
    weights = annotator.fit(X).weigh_templates(X)
    assert_allclose(weights.sum(), 1)
    assert weights[3] < 0.1 < 0.25 < weights[:3].min()
    fixed = clone(annotator).set_params(template_weights=weights).fit(X)
    assert_allclose(fixed.predict_proba(X), annotator.predict_proba(X), atol=1e-6)
    equal = clone(annotator).set_params(template_weights=None).fit(X)
    sure = [np.log(a.predict_proba(X)).mean() for a in (annotator, equal)]
    assert sure[0] < sure[1]


# -- CPL ---------------------------------------------------------------------------------------


def test_cpl_sees_all_batches():
    labels = make(rule="cpl", rule_value=(0.9, 0.5), batch_size=7).fit_transform(X)
    expected = PartialLabels.from_scores(labels.scores, "cpl", (0.9, 0.5), classes=labels.classes)
    assert_array_equal(labels.candidates, expected.candidates)
    assert labels.mean_set_size > 1
    batch = PartialLabels.from_scores(labels.scores[:7], "cpl", (0.9, 0.5))
    assert (batch.candidates != expected.candidates[:7]).any()


# -- searches and errors -----------------------------------------------------------------------


def test_searched_together():
    pipe = make_pipeline(
        make(output="embeddings"), PseudoLabelClassifier(LogisticRegression(), labels="soft")
    )
    grid = {
        "vlmpartialannotator__refine": [None, "zlap", "transclip"],
        "vlmpartialannotator__aggregation": ["mean", "dawid_skene"],
    }
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(X, Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_score_ > 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refine_params": {"alpha": 0.2}}, "needs a method, but refine is None"),
        ({"refine": "zlap", "refine_params": {"alhpa": 0.2}}, "Did you mean 'alpha'"),
        ({"refine": "zlap", "refine_params": {"alpha": 2}}, "'alpha' parameter"),
        ({"template_weights": [1, 2]}, r"shape \(2,\).* each of 4 templates"),
        ({"template_weights": [1, 2, -3, 1]}, r"template_weights\[2\] is -3"),
        ({"template_weights": [0] * 4}, "template_weights are all 0"),
        (
            {"template_weights": "agreement", "aggregation": "dawid_skene"},
            "'dawid_skene' weighs the templates itself",
        ),
        ({"rule": "cpl", "rule_value": 0.5}, "two numbers"),
        ({"rule": "ratio", "rule_value": (0.5, 0.5)}, "ratio is"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options).fit(X)


@pytest.mark.parametrize(
    "options",
    [
        {"refine": "zlab"},
        {"aggregation": "median"},
        {"template_weights": "agree"},
        {"refine": "zlap", "refine_params": "fast"},
    ],
)
def test_options_that_do_not_exist(options):
    with pytest.raises(InvalidParameterError, match=f"'{list(options)[-1]}' parameter of"):
        make(**options).fit(X)
