"""ChatPartialAnnotator: what it asks, when, what it makes of answers; as an estimator."""

import os
import pickle
import re
import sys
import threading
import warnings

import chat_painter
import numpy as np
import pytest
import sklearn
import torch
from chat_painter import KEY, N, X, Y, hosted, tell_sign
from chat_server import NAMES
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_npll import PartialLabels
from sklearn_npll._images import ImageReadError
from sklearn_npll.annotators import ChatError, ChatPartialAnnotator, OpenAIChat
from sklearn_npll.annotators._questions import option_order, resolve_questions, write_prompt
from sklearn_npll.baselines import AnnotatorClassifier, PseudoLabelClassifier

# Fixtures, which pytest finds by their names here.
painter = chat_painter.painter
annotator = chat_painter.annotator
server = chat_painter.server


# What it computes


def test_votes_scores_and_candidates_by_hand(annotator):
    labels = annotator.fit_transform(X[[0, 3]] + np.arange(3, dtype=np.uint8) * 2)
    # (255, 2, 4) is red, or blue; (200, 192, 4) red, or green
    assert labels.classes.tolist() == ["blue", "green", "red"]
    assert_array_equal(labels.votes, [[2, 2, -1], [2, 2, -1]])
    assert_array_equal(labels.candidates, [[True, False, True], [False, True, True]])
    assert_allclose(labels.scores, [[1 / 6, 0, 5 / 6], [0, 1 / 6, 5 / 6]], rtol=1e-6)
    assert labels.scores.dtype == np.float32
    assert_array_equal(annotator.predict(X), Y)
    assert_allclose(annotator.predict_proba(X).sum(axis=1), 1, rtol=1e-6)


def test_score_asks_about_labelled_samples_only(annotator, painter):
    annotator.set_params(questions="simple").fit(X)
    assert annotator.score(X, ["red", -1, "red", -1, -1]) == 0.5
    assert painter.n_answers == 2


def test_where_all_abstain_all_classes_are_candidates(annotator):
    annotator.set_params(questions=["blind: {classes}", "also blind: {options}"])
    with pytest.warns(UserWarning, match="10 of 10 answers name no class .* 'I cannot see"):
        labels = annotator.fit_transform(X)
    assert_array_equal(labels.votes, np.full((N, 2), -1))
    assert labels.toarray().all()
    assert_allclose(labels.scores, 1 / 3, rtol=1e-6)


def test_synonyms_are_recognised_and_the_first_name_is_shown(painter):
    annotator = ChatPartialAnnotator(
        {7: "red", 3: ["lime", "green"], 5: "blue"}, backend=painter, questions="simple"
    )
    assert_array_equal(annotator.fit(X).predict(X), [7, 3, 5, 7, 5])
    assert "lime" in annotator.prompts_[0] and "green" not in annotator.prompts_[0]
    assert annotator.score(X, [7, 3, 5, 7, 3]) == 0.8


def test_letters_are_read_by_the_order_that_was_shown():
    def first(images, prompt):
        return ["(A)"] * len(images)

    annotator = ChatPartialAnnotator(NAMES, backend=first, questions=["Which?\n{options}"])
    labels = annotator.set_params(random_state=3).fit_transform(X)
    shown = annotator.prompts_[0].split("\n")[1]
    assert shown == f"(A) {labels.classes[labels.votes[0, 0]]}"


def test_embeddings_of_answers(painter):
    def rosy(images, prompt):
        return ["a rosy hue"] * len(images)

    def embed(texts):
        return np.array([[t.count("r"), t.count("g") + t.count("b")] for t in texts]) + 0.1

    annotator = ChatPartialAnnotator(NAMES, backend=rosy, questions="simple", embed=embed)
    assert_array_equal(annotator.fit_transform(X).votes, np.full((N, 1), 2))
    with pytest.warns(UserWarning, match="name no class"):
        annotator.set_params(embed=None).fit_transform(X)


def test_many_classes_are_stored_sparsely():
    names = [f"kind {i}" for i in range(70)]
    annotator = ChatPartialAnnotator(
        names, backend=lambda images, _: ["kind 69"] * len(images), questions="simple"
    )
    labels = annotator.fit_transform(X)
    assert sklearn.utils.validation.sp.issparse(labels.candidates)
    assert labels.classes[labels.toarray().all(axis=0)].tolist() == ["kind 69"]


def test_answers_are_kept_as_they_were(annotator):
    answers = annotator.fit(X).answers(X)
    assert answers.shape == (N, 3)
    assert answers[0].tolist()[::2] == ["red", "I cannot see colours, neither red nor blue."]


# Questions


def test_prompts():
    assert len(resolve_questions("general-4")) == 4
    assert resolve_questions("Which of {classes}?") == ["Which of {classes}?"]
    prompt = write_prompt("Which of {classes}?", NAMES, [2, 0, 1], False)
    assert prompt.text.startswith("Which of blue, red, green? Answer with one name only")
    prompt = write_prompt("Pick: {options}", ["{classes}", "{options}"], [1, 0], True)
    assert prompt.text.startswith("Pick: (A) {options}\n(B) {classes}\nAnswer with the name only")
    many = write_prompt("{options}", [f"kind {i}" for i in range(30)], range(29, -1, -1), None)
    assert many.options["1"] == 29 and many.options["30"] == 0


def test_options_are_not_labelled_by_names_of_classes():
    letters = list("ABCDEFGHIJ")

    def ask(images, prompt):  # the truth is C
        return [re.search(r"^\((\w+)\) C$", prompt, re.M)[0][:3]] * len(images)

    annotator = ChatPartialAnnotator(letters, backend=ask, questions="Which?\n{options}").fit(X)
    assert re.findall(r"^\((\w+)\)", annotator.prompts_[0], re.M) == [str(i) for i in range(1, 11)]
    assert_array_equal(annotator.transform(X[:1]), [np.array(letters) == "C"])
    # neither letters nor numbers
    annotator.set_params(classes=["C", "1", "2", "x", "y"]).fit(X)
    assert re.findall(r"^\((\w)\)", annotator.prompts_[0], re.M) == list("ABDEF")
    assert_array_equal(annotator.predict(X[:1]), ["C"])
    annotator.set_params(classes=[*letters, *map(str, range(30))])
    with pytest.raises(ValueError, match="Ask with {classes} instead, or give .* longer names"):
        annotator.fit(X)
    annotator.set_params(questions="Which of {classes}?").fit(X)


def test_options_are_shuffled_by_question_and_seed():
    orders = {tuple(option_order(q, 10, seed)) for q in ("a", "b") for seed in (0, 1)}
    assert len(orders) == 4
    assert sorted(orders.pop()) == list(range(10))


def test_a_question_does_not_depend_on_the_others(annotator, tmp_path, painter):
    annotator.set_params(cache_dir=tmp_path).fit_transform(X)
    n, painter.n_answers = painter.n_answers, 0
    annotator.set_params(questions=annotator.questions[:0:-1]).fit_transform(X)
    assert (n, painter.n_answers) == (3 * N, 0)


def test_random_state(annotator):
    annotator.set_params(questions="general-4")
    prompts = annotator.fit(X).prompts_
    assert clone(annotator).fit(X).prompts_ == prompts
    assert clone(annotator).set_params(random_state=1).fit(X).prompts_ != prompts
    plain = clone(annotator).set_params(shuffle_options=False, allow_several=None).fit(X)
    assert plain.prompts_[0] == "What does this image show? Choose from: blue, green, red."
    state = np.random.RandomState(0)
    assert annotator.set_params(random_state=state).fit(X).prompts_ == prompts
    assert annotator.fit(X).prompts_ != prompts


def test_global_generators_are_untouched(annotator):
    np_state = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    annotator.fit_transform(X)
    assert_array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


# When it asks


def test_transform_is_lazy_and_equals_fit_transform(annotator, painter):
    now = annotator.fit_transform(X)
    assert now.is_materialized and painter.n_answers == 3 * N
    later = annotator.transform(X)
    assert later.data is X
    assert (later.shape, painter.n_answers) == ((N, 3), 3 * N)
    annotator.set_params(classes=["green", "blue"], questions="simple")
    annotator.fit(X)
    assert_array_equal(later, now)  # settled when it was made
    assert_array_equal(later.votes, now.votes)
    assert_array_equal(later.scores, now.scores)
    assert painter.n_answers == 6 * N


def test_a_lazy_slice_asks_about_its_rows_only(annotator, painter):
    labels = annotator.fit(X).transform(X)[[3, 1]]
    assert_array_equal(labels.votes[:, 0], [2, 1])
    assert painter.n_answers == 2 * 3


def test_a_lazy_slice_may_be_empty(annotator, painter):
    labels = annotator.fit(X).transform(X)[[]]
    assert labels.votes.shape == (0, 3)
    assert labels.scores.shape == labels.candidates.shape == (0, len(labels.classes))
    assert painter.n_answers == 0


def test_equal_questions_are_put_in_one_call(annotator, painter):
    annotator.set_params(batch_size=3).fit_transform(X)
    assert painter.prompts == [p for _ in range(2) for p in annotator.prompts_]


def test_equal_images_are_asked_about_once_a_batch(annotator, painter):
    labels = annotator.fit_transform(np.repeat(X, 3, axis=0))
    assert painter.n_answers == 3 * N
    assert_array_equal(labels.votes[::3], labels.votes[2::3])
    assert annotator.usage_["cached"] == 2 * 3 * N


def test_threads_that_share_an_annotator_count_together(annotator):
    annotator.fit(X[:1])
    before, interval = annotator.usage_["requests"], sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(target=lambda: np.asarray(annotator.transform(X))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert annotator.usage_["requests"] - before == 8 * N * len(annotator.questions_)


def test_in_a_pipeline_and_a_search(annotator, painter, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, size=(30, 4, 4, 3), dtype=np.uint8)
    y = np.array(NAMES)[images.mean(axis=(1, 2)).argmax(axis=1)]
    annotator.set_params(cache_dir=tmp_path)
    # labels and features travel in one container, so the learner is given the annotator's own
    search = GridSearchCV(
        annotator,
        {"questions": [annotator.questions[:1], annotator.questions]},
        cv=3,
        error_score="raise",
    ).fit(images, y)
    assert search.best_score_ == 1
    assert painter.n_answers == 3 * 30
    pipe = make_pipeline(clone(annotator), AnnotatorClassifier()).fit(images)
    assert_array_equal(pipe[-1].transduction_, y)
    assert painter.n_answers == 3 * 30


def test_learning_from_the_answers():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    features = rng.normal(size=(60, 4)) + 4 * np.eye(3, 4)[y]

    def ask(rows, prompt):
        return [NAMES[int(row[:3].argmax())] for row in rows]

    pipe = make_pipeline(ChatPartialAnnotator(NAMES, backend=ask), PseudoLabelClassifier(SVC()))
    assert pipe.fit(features).score(features, np.array(NAMES)[y]) > 0.9


# What y means


@pytest.mark.parametrize("y", [Y, Y[::-1], None, np.arange(5)])
def test_y_is_ignored(annotator, y):
    expected = annotator.fit_transform(X).candidates
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = annotator.fit_transform(X, y)
    assert_array_equal(labels, expected)
    assert labels.known is None


def test_few_labels_are_not_ignored_silently(annotator):
    with pytest.warns(UserWarning, match="y contains -1.*set use_y=True") as caught:
        annotator.fit(X, ["red", -1, -1, -1, -1])
    assert caught[0].filename == __file__


def test_use_y_and_known_labels(annotator):
    free = annotator.fit_transform(X)
    annotator.set_params(use_y=True)
    labels = annotator.fit_transform(X, ["green", -1, "blue", -1, -1])
    assert labels.known.tolist() == [True, False, True, False, False]
    expected = free.toarray().copy()
    expected[[0, 2]] = [[False, True, False], [True, False, False]]
    assert_array_equal(labels, expected)
    assert_array_equal(labels.scores, free.scores)
    assert_array_equal(annotator.transform(X), free)
    labels = annotator.fit_transform(X, Y, known_labels=["green", -1, -1, -1, -1])
    assert labels.known.tolist() == [True, False, False, False, False]
    with pytest.raises(ValueError, match=r"y\[1\] is 'gren', .* Did you mean 'green'\?"):
        annotator.fit(X, ["red", "gren", "red", "red", "red"])


def test_score(annotator):
    annotator.fit(X)
    assert annotator.score(X, ["red", "red", -1, -1, -1]) == 0.5
    with pytest.warns(UndefinedMetricWarning, match="No sample in y is labelled"):
        assert np.isnan(annotator.score(X, [-1] * 5))


# Pickling, cloning, scikit-learn


def test_pickling_and_cloning(server, annotator, painter):
    remote = hosted(server, max_retries=3).fit(X)
    again = pickle.loads(pickle.dumps(remote))
    assert again.backend.max_retries == 3
    assert_array_equal(again.predict(X), Y)
    copied = clone(remote)
    assert copied.backend is not remote.backend and copied.backend.model == "painter"
    assert repr(clone(remote.backend)) == repr(remote.backend)
    assert clone(annotator).backend is painter
    stored = pickle.loads(pickle.dumps(annotator.fit(X)))
    assert_array_equal(stored.transform(X), annotator.transform(X))
    lazy = annotator.transform(X)
    assert_array_equal(pickle.loads(pickle.dumps(lazy)).votes, annotator.fit_transform(X).votes)


def test_a_fitted_backend_does_not_change(server):
    annotator = hosted(server).fit(X)
    lazy = annotator.transform(X)
    annotator.set_params(backend__model="other")
    assert lazy.votes.ravel().tolist() == [2, 1, 0, 2, 0]
    assert server.requests[0]["model"] == "painter"


def test_clone_keeps_metadata_requests(annotator):
    with sklearn.config_context(enable_metadata_routing=True):
        annotator.set_fit_request(known_labels=True)
        assert clone(annotator).get_metadata_routing().fit.requests["known_labels"] is True


def test_set_output(annotator):
    assert annotator.set_output(transform="pandas") is annotator
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(annotator.fit(X).transform(X), PartialLabels)


def test_not_fitted(annotator):
    for method in ("transform", "predict", "predict_proba", "answers"):
        with pytest.raises(NotFittedError):
            getattr(annotator, method)(X)


@parametrize_with_checks([ChatPartialAnnotator(dict(enumerate(NAMES)), backend=tell_sign)])
def test_common_checks(estimator, check):
    check(estimator)


# Bad input


def test_images_that_cannot_be_read(annotator, painter, tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(N)]
    for path, image in zip(paths, X):
        Image.fromarray(image).save(path)
    os.remove(paths[1])
    with pytest.raises(ImageReadError, match=r"Image 1 .*1\.png") as error:
        annotator.fit_transform(paths)
    assert (error.value.index, painter.n_answers) == (1, 0)
    annotator.set_params(on_error="skip", batch_size=2)
    with pytest.warns(UserWarning, match=r"1 of 5 images cannot be read .*Image 1 .*1\.png"):
        labels = annotator.fit_transform(paths)
    assert labels.votes[:, 0].tolist() == [2, -1, 0, 2, 0]
    assert labels.toarray()[1].all()
    damaged = X.astype(float)
    damaged[2] = np.nan
    with pytest.warns(UserWarning, match="Image 2"):
        assert annotator.fit_transform(damaged).votes[:, 0].tolist() == [2, 1, -1, 2, 0]


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"classes": ["red"]}, ValueError, "classes has 1 element"),
        ({"classes": ["red", "Red"]}, ValueError, "'Red' is used twice"),
        ({"classes": ["re-d", "red"]}, ValueError, "'red' has the same letters as .* 're-d'"),
        ({"questions": "genral-4"}, ValueError, "Did you mean 'general-4'"),
        ({"questions": []}, ValueError, "questions is empty"),
        ({"questions": None}, ValueError, "questions is None; give one string or a list"),
        ({"questions": ["Which?"]}, ValueError, r"questions\[0\] is 'Which\?'"),
        ({"questions": ["{classes}", "{classes}"]}, ValueError, r"\[1\] repeats questions\[0\]"),
        ({"allow_several": "yes"}, ValueError, "'allow_several' parameter"),
        ({"max_tokens": 0}, ValueError, "'max_tokens' parameter"),
        ({"temperature": -1}, ValueError, "'temperature' parameter"),
        ({"embed": 3}, ValueError, "'embed' parameter"),
        ({"embed_threshold": 2}, ValueError, "'embed_threshold' parameter"),
        ({"batch_size": 0}, ValueError, "'batch_size' parameter"),
        ({"on_error": "ignore"}, ValueError, "'on_error' parameter"),
        ({"backend": "gpt"}, TypeError, "backend is 'gpt'; give an OpenAIChat"),
        ({"backend": OpenAIChat}, TypeError, "give an OpenAIChat"),
        ({"backend": OpenAIChat(3)}, ValueError, "'model' parameter of OpenAIChat"),
        ({"backend": OpenAIChat("m", timeout=0)}, ValueError, "'timeout' parameter"),
        ({"backend": OpenAIChat("m", base_url="localhost:80")}, ValueError, "give an address"),
        ({"backend": OpenAIChat("m", extra_body={"a": {1}})}, ValueError, "extra_body cannot be"),
        ({"backend": OpenAIChat("m", base_url="http://h:p/v1")}, ValueError, "give an address"),
        ({"backend": OpenAIChat("m", base_url="http://[:")}, ValueError, "give an address"),
        ({"backend": lambda i, p: "red"}, TypeError, "backend returned str; it must return a list"),
        ({"backend": lambda i, p: ["red"]}, ValueError, "returned 1 answers for 5 images"),
        ({"backend": lambda i, p: [1] * 5}, TypeError, "backend returned 1 for one image"),
        ({"backend": lambda i, p: [None] * 5}, ChatError, "image 0 .* returned None"),
    ],
)
def test_bad_parameters(annotator, params, error, message, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(error, match=message):
        annotator.set_params(**params).fit_transform(X)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ("photo.png", "single path"),
        ([], "Found array with 0 sample"),
        (np.zeros((0, 4, 4)), "Found array with 0 sample"),
        (np.zeros((2, 3, 8, 8)), "channels seem to come first"),
        (np.zeros((2, 0, 8)), r"an image has shape .* got \(0, 8, 1\)"),
        (np.full((2, 4, 4), 300), "Image 0 cannot be read: it has values from 300 to 300"),
    ],
    ids=str,
)
def test_bad_samples(annotator, samples, message):
    with pytest.raises(ValueError, match=message):
        annotator.fit_transform(samples)


def test_a_failed_fit_leaves_nothing_fitted(annotator):
    with pytest.raises(ValueError):
        annotator.set_params(questions="none").fit(X)
    with pytest.raises(NotFittedError):
        annotator.transform(X)
