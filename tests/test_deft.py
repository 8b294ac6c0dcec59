"""DeFTDetector as an estimator: on real images, on features, and beside a shared model."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from detection_data import CLASSES, random_photos
from fakes import FeatureVLM, write_tiny_clip
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_npll import PartialLabels, VLMPartialAnnotator
from sklearn_npll._images import ImageReadError
from sklearn_npll.annotators._open_clip import load_open_clip
from sklearn_npll.datasets import load_fashion_mnist
from sklearn_npll.detection import DeFTDetector, _deft_training
from sklearn_npll.detection._deft_losses import dual_prompt_loss

TUNERS = ["vpt_deep", "lora", "bias", "none"]


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return write_tiny_clip(tmp_path_factory.mktemp("models") / "vit")


@pytest.fixture(scope="module")
def photos():
    return random_photos()[0]


@pytest.fixture(scope="module")
def labels():
    return random_photos()[1]


# Of 300 rows the shipped model agrees with 63 to 67 % of the clean labels, so that agreement, the
# zero-shot detector, finds that share of them. Fewer steps than the defaults have to do here.
@pytest.mark.parametrize(
    ("n_samples", "options"),
    [
        (300, {"backend": "feature", "max_epochs": 60, "batch_size": 64}),
        (500, {"backend": "text", "max_epochs": 5, "batch_size": 20}),
        (300, {"backend": "full", "image_tuner": "bias", "max_epochs": 4, "batch_size": 12}),
    ],
    ids=lambda value: value["backend"] if isinstance(value, dict) else "",
)
def test_finds_wrong_labels_of_real_images(n_samples, options):
    data = load_fashion_mnist()
    rng = np.random.default_rng(1)
    rows = rng.permutation(len(data.target))[:n_samples]
    X, y = data.images[rows], data.target[rows]
    wrong = rng.random(n_samples) < 0.4
    noisy = np.where(wrong, (y + rng.integers(1, 10, n_samples)) % 10, y)
    annotator = VLMPartialAnnotator(dict(enumerate(data.class_prompts.values()))).fit(X)
    zero_shot = annotator.predict(X)
    detector = DeFTDetector(annotator, random_state=1, **options).fit(X, noisy)
    found = detector.clean_mask_
    assert f1_score(~wrong, found) > f1_score(~wrong, zero_shot == noisy)
    assert recall_score(~wrong, found) > recall_score(~wrong, zero_shot == noisy)
    assert precision_score(~wrong, found) > np.mean(~wrong) + 0.15  # of all rows, or at random
    assert roc_auc_score(wrong, detector.noise_score_) > 0.8
    # scores of new rows, here the same, are those of the last pass
    assert_allclose(detector.score_noise(X, noisy), detector.noise_score_, atol=1e-6)
    guess = detector.classes_[detector.predict_proba(X).argmax(1)]
    assert np.mean(guess == y) > 0.6  # by labels of which 0.6 are right


@parametrize_with_checks(
    [
        DeFTDetector(max_epochs=10, random_state=0),
        DeFTDetector(max_epochs=3, rule="threshold", complement="random", random_state=0),
    ]
)
def test_common_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X, y = X[:900], y[:900]
    rng = np.random.default_rng(0)
    wrong = rng.random(len(y)) < 0.4
    return X, y, np.where(wrong, (y + rng.integers(1, 10, len(y))) % 10, y)


def test_features_without_an_annotator(digits):
    X, y, noisy = digits
    detector = DeFTDetector(random_state=0).fit(X, noisy)
    assert f1_score(y == noisy, detector.clean_mask_) > 0.85  # all rows: 0.75
    assert detector.prompt_features_.shape == (2, 10, 65)
    assert detector.n_iter_ == 150  # of 4 steps each
    phases = [row["phase"] for row in detector.history_]
    assert phases == ["warm_up"] * 38 + ["detection"] * 112
    shares = [row["selected_share"] for row in detector.history_]
    assert shares[:38] == [1.0] * 38
    assert max(shares[38:]) < 1
    rates = [row["lr"] for row in detector.history_]
    assert_allclose(rates, 0.01 * (1 + np.cos(np.pi * np.arange(150) / 150)) / 2)
    assert (detector.rule_, detector.complement_) == ("threshold_argmax", "all")
    assert_array_equal(detector.clean_mask_ & (detector.clean_score_ <= 0.5), False)


def test_candidate_sets(digits):
    X, y, noisy = digits
    rng = np.random.default_rng(1)
    candidates = (np.eye(10, dtype=bool)[noisy]) | (rng.random((len(y), 10)) < 0.1)
    hit = candidates[np.arange(len(y)), y]
    detector = DeFTDetector(max_epochs=60, random_state=0).fit(X, candidates)
    assert f1_score(hit, detector.clean_mask_) > 0.85
    largest = np.where(candidates, detector.proba_yes_, 0).max(1)
    assert_allclose(detector.clean_score_, largest, rtol=1e-6)


def test_unlabelled_and_known_rows(digits):
    X, y, noisy = digits
    candidates = np.eye(10, dtype=bool)[noisy]
    candidates[::3] = True
    known = np.zeros(len(y), dtype=bool)
    known[1::3] = True
    candidates[known] = np.eye(10, dtype=bool)[y[known]]
    labels = PartialLabels(X, np.arange(10), candidates, known=known)
    detector = DeFTDetector(max_epochs=50, random_state=0).fit(labels)
    assert not detector.clean_mask_[::3].any()
    assert detector.clean_mask_[known].all()
    assert_array_equal(detector.noise_score_[::3], 1)
    assert_array_equal(detector.noise_score_[known], 0)
    # a known row counts as clean at all times: half of those that are trained on
    assert min(row["selected_share"] for row in detector.history_) >= 0.5
    accuracy = np.mean(detector.predict_proba(X).argmax(1)[::3] == y[::3])
    assert accuracy > 0.85


@pytest.mark.parametrize("tuner", [None, *TUNERS])
def test_same_seed_same_result_and_no_trace(vit, photos, labels, tuner):
    encoder = load_open_clip(vit)
    model = encoder.model
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    flags = {name: (id(p), p.requires_grad) for name, p in model.named_parameters()}
    text, image = encoder.encode_text(("red",)), encoder.encode_image(encoder.prepare(photos))
    detector = DeFTDetector(
        VLMPartialAnnotator(CLASSES, model=vit),
        backend="full" if tuner else "text",
        image_tuner=tuner or "none",
        n_ctx=4,
        max_epochs=3,
        batch_size=8,
        random_state=0,
    )
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = clone(detector).fit(photos, labels)
    assert_array_equal(torch.get_rng_state(), states[0])
    assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    second = clone(detector).fit(photos, labels)
    assert_array_equal(first.proba_yes_, second.proba_yes_)
    other = clone(detector).set_params(random_state=1).fit(photos, labels)
    assert (first.proba_yes_ != other.proba_yes_).any()

    def interrupt(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return dual_prompt_loss(*args)

    calls = []
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_deft_training, "dual_prompt_loss", interrupt)
        second.fit(photos, labels)
    assert len(calls) == 4
    with pytest.raises(NotFittedError):
        second.predict_proba(photos)

    # what the process shares is as it was, after fits that ended and one that did not
    assert load_open_clip(vit) is encoder
    for name, value in model.state_dict().items():
        assert_array_equal(value, weights[name])
    assert {n: (id(p), p.requires_grad) for n, p in model.named_parameters()} == flags
    assert all(p.grad is None for p in model.parameters())
    modules = list(model.modules())
    assert not any(m.training or m._forward_hooks or m._forward_pre_hooks for m in modules)
    assert_array_equal(encoder.encode_image(encoder.prepare(photos)), image)
    encoder.encode_text.cache_clear()
    assert_array_equal(encoder.encode_text(("red",)), text)


def test_full_without_a_tuner_is_text_only(vit, photos, labels):
    annotator = VLMPartialAnnotator(CLASSES, model=vit)
    options = {"n_ctx": 4, "max_epochs": 3, "batch_size": 8, "random_state": 0}
    text = DeFTDetector(annotator, backend="text", **options).fit(photos, labels)
    assert text.contexts_.shape == (2, 4, 32)
    assert text.prompt_features_.shape == (2, 3, 16)
    full = DeFTDetector(annotator, backend="full", image_tuner="none", **options)
    full.fit(photos, labels)
    assert_allclose(full.proba_yes_, text.proba_yes_, atol=1e-4)
    tuned = clone(full).set_params(image_tuner="bias").fit(photos, labels)
    assert np.abs(tuned.proba_yes_ - text.proba_yes_).max() > 1e-3


NEW_PROCESS = """
import pickle, sys
import numpy as np
with open(sys.argv[1], "rb") as file:
    detector, X, y = pickle.load(file)
proba, noise = detector.predict_proba(X), detector.score_noise(X, y)
np.savez(sys.argv[2], proba=proba, noise=noise)
"""


def test_pickles_hold_no_model_and_work_elsewhere(vit, photos, labels, tmp_path):
    fitted = []
    for tuner in TUNERS[:3]:
        detector = DeFTDetector(
            VLMPartialAnnotator(CLASSES, model=vit),
            backend="full",
            image_tuner=tuner,
            n_ctx=4,
            n_prompt_tokens=3,
            max_epochs=2,
            random_state=0,
        ).fit(photos, labels)
        assert len(pickle.dumps(detector)) < 100_000  # the token embedding alone takes 6 MB
        restored = pickle.loads(pickle.dumps(detector))
        assert_array_equal(restored.predict_proba(photos), detector.predict_proba(photos))
        # parameters of the next fit have no effect on what was learnt
        restored.set_params(backend="feature", image_tuner="none", n_prompt_tokens=7, batch_size=2)
        assert_allclose(restored.score_noise(photos, labels), detector.noise_score_, atol=1e-6)
        fitted.append(detector)
    pickled, result = tmp_path / "detector.pickle", tmp_path / "result.npz"
    pickled.write_bytes(pickle.dumps((fitted[0], photos, labels)))
    subprocess.run([sys.executable, "-c", NEW_PROCESS, pickled, result], check=True)
    with np.load(result) as arrays:
        assert_allclose(arrays["proba"], fitted[0].predict_proba(photos), atol=1e-6)
        assert_allclose(arrays["noise"], fitted[0].noise_score_, atol=1e-6)


def test_samples_of_all_kinds(vit, photos, labels, tmp_path):
    options = {"n_ctx": 4, "n_prompt_tokens": 3, "max_epochs": 1, "random_state": 0}
    annotator = VLMPartialAnnotator(CLASSES, model=vit).fit(photos)
    detector = DeFTDetector(annotator, backend="full", **options)
    paths = [tmp_path / f"{i}.png" for i in range(len(photos))]
    for path, photo in zip(paths, photos):
        Image.fromarray(photo).save(path)
    expected = detector.fit([Image.fromarray(photo) for photo in photos], labels).proba_yes_
    assert_array_equal(detector.fit(paths, labels).proba_yes_, expected)
    close = detector.fit(photos, labels).proba_yes_  # an array is resized as a whole
    assert_allclose(close, expected, atol=0.05)
    resampled, y = detector.set_params(threshold=0.01).fit_resample(paths, labels)
    assert len(resampled) == len(y) == detector.clean_mask_.sum() > 0
    paths[5].write_bytes(b"no image")
    with pytest.raises(ImageReadError, match="Image 5 .*5.png"):
        detector.fit(paths, labels)

    embeddings = pd.DataFrame(annotator.embed(photos)).add_prefix("e")
    text = DeFTDetector(annotator, backend="text", **options).fit(photos, labels)
    assert not hasattr(text, "n_features_in_")
    of_images = text.proba_yes_
    assert_allclose(text.fit(embeddings, labels).proba_yes_, of_images, atol=1e-5)
    assert text.n_features_in_ == 16
    text.set_params(backend="full")  # of the next fit
    assert_allclose(text.score_noise(embeddings, labels), text.noise_score_, atol=1e-6)
    with pytest.raises(ValueError, match="feature names should match"):
        text.predict_proba(embeddings.iloc[:, :15])
    with pytest.raises(ValueError, match='backend="full" tunes the image tower'):
        detector.fit(embeddings, labels)


def test_half_precision(vit, photos, labels):
    annotator = VLMPartialAnnotator(CLASSES, model=vit, precision="bf16")
    for tuner in TUNERS:
        detector = DeFTDetector(annotator, backend="full", image_tuner=tuner, n_ctx=4)
        detector.set_params(max_epochs=2, random_state=0).fit(photos, labels)
        assert np.isfinite(detector.proba_yes_).all()
        assert detector.proba_yes_.dtype == np.float32


def test_learning_that_diverges_is_an_error(vit, photos, labels):
    annotator = VLMPartialAnnotator(CLASSES, model=vit)
    detector = DeFTDetector(annotator, backend="text", n_ctx=4, lr=1e38, random_state=0)
    with pytest.raises(ValueError, match="not finite in epoch .* of 10; take an lr below 1e\\+38"):
        detector.fit(photos, labels)
    with pytest.raises(NotFittedError):
        detector.predict_proba(photos)


def test_classes_are_those_of_the_annotator():
    X = np.random.default_rng(0).normal(size=(40, 5))
    annotator = VLMPartialAnnotator({3: "cat", 1: "dog", 2: "fox"}, vlm=FeatureVLM())
    detector = DeFTDetector(annotator, max_epochs=3, random_state=0)
    y = np.where(np.arange(40) % 2, 3, 2)
    detector.fit(X, y)
    assert detector.classes_.tolist() == [1, 2, 3]
    assert detector.annotator_ is not annotator
    assert not hasattr(annotator, "classes_")
    by_labels = detector.proba_yes_
    named = PartialLabels.from_sets([[label] for label in y], classes=[1, 2, 3], data=X)
    assert_array_equal(detector.fit(named).proba_yes_, by_labels)
    with pytest.raises(ValueError, match="0 to 2, but the annotator has the classes 1, 2, 3: name"):
        detector.fit(X, np.eye(3)[y - 1])
    with pytest.raises(ValueError, match="y has 2 columns, but the annotator has 3 classes"):
        detector.fit(X, np.eye(2)[y - 2])
    with pytest.raises(ValueError, match="row 1 has the unknown class 4"):
        detector.fit(X, y + 1)
    # a fitted annotator is taken as it is, and fitting it again has no effect
    annotator.fit(X)
    detector.fit(X, y)
    proba = detector.predict_proba(X)
    annotator.set_params(classes=["ape", "bat"]).fit(X)
    assert_array_equal(detector.predict_proba(X), proba)


@pytest.mark.parametrize("weights", [None, [1, 0, 3], "agreement"])
def test_prompts_start_from_the_weighted_templates(weights):
    X = np.random.default_rng(0).normal(size=(40, 5))
    templates = ["a {}", "no {}", "the {}"]
    annotator = VLMPartialAnnotator(
        ["cat", "dog", "fox"], templates=templates, vlm=FeatureVLM(), template_weights=weights
    ).fit(X)
    y = annotator.predict(X)
    detector = DeFTDetector(annotator, max_epochs=1, warm_up=1, lr=1e-12, random_state=0).fit(X, y)
    shares = annotator.weigh_templates(X)
    if weights == [1, 0, 3]:
        assert_allclose(shares, [0.25, 0, 0.75])
    text = [FeatureVLM().encode_text([t.format(c) for t in templates]) for c in annotator.classes_]
    text = [shares @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)) for rows in text]
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    assert_allclose(detector.prompt_features_[0], text, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "text"}, 'backend="text" learns prompts.*pass an annotator'),
        ({"backend": "features"}, "'backend' parameter"),
        ({"annotator": object()}, "'annotator' parameter"),
        ({"threshold": 1.0}, "'threshold' parameter"),
        ({"image_tuner": None}, "'image_tuner' parameter"),
        ({"batch_size": 0}, "'batch_size' parameter"),
        ({"rule": "argmax"}, "'rule' parameter"),
        ({"device": "gpu"}, "device 'gpu'"),
    ],
)
def test_bad_parameters(options, message):
    with pytest.raises(ValueError, match=message):
        DeFTDetector(**options).fit(np.eye(4), [0, 1, 0, 1])


def test_bad_samples(vit, photos, labels):
    without = PartialLabels.from_sets([[label] for label in labels])
    annotator = VLMPartialAnnotator(CLASSES, model=vit)
    for detector in (DeFTDetector(), DeFTDetector(annotator)):
        with pytest.raises(ValueError, match="carry no samples"):
            detector.fit(without)
    with pytest.raises(ValueError, match="X holds images"):
        DeFTDetector().fit(photos, labels)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        DeFTDetector(annotator).fit(photos, labels[:-1])
    with pytest.raises(ValueError, match="dimensions"):
        DeFTDetector(annotator).fit(np.eye(24), labels)
