"""VLMPartialAnnotator: caches of embeddings and models, pickles, clones and searches."""

import io
import pickle
import shutil
from dataclasses import replace

import joblib
import numpy as np
import open_clip
import pytest
import sklearn
import torch
import vlm_colours
from fakes import ColourVLM, write_tiny_clip
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from vlm_colours import CLASSES, TEMPLATES, Learner, X, Y

from sklearn_npll import PartialLabels, VLMPartialAnnotator
from sklearn_npll.annotators import _open_clip
from sklearn_npll.annotators._cache import EmbeddingCache
from sklearn_npll.annotators._open_clip import load_open_clip

# Fixtures, which pytest finds by their names here.
vlm = vlm_colours.vlm
annotator = vlm_colours.annotator
tiny = vlm_colours.tiny
photos = vlm_colours.photos


# Caches


def search_grid(annotator, cv=3, **kwargs):
    grid = {"vlmpartialannotator__templates": [TEMPLATES, "simple", "imagenet-80"]}
    pipe = make_pipeline(annotator, Learner())
    return GridSearchCV(pipe, grid, cv=cv, error_score="raise", **kwargs)


def many_images(n=30):
    images = np.random.default_rng(0).integers(0, 256, size=(n, 4, 4, 3), dtype=np.uint8)
    return images, np.array(CLASSES)[images.mean(axis=(1, 2)).argmax(axis=1)]


def test_a_search_with_a_cache_encodes_each_image_once(annotator, vlm, tmp_path):
    images, y = many_images()
    search_grid(annotator).fit(images, y)
    without, vlm.n_images = vlm.n_images, 0
    search = search_grid(clone(annotator).set_params(cache_dir=tmp_path / "new" / "cache"))
    search.fit(images, y)
    assert (without, vlm.n_images) == (7 * 30, 30)  # 3 folds * 3 candidates * 2/3, and the refit
    texts = vlm.n_texts
    np.testing.assert_array_equal(search.predict(images), y)
    search.fit(images[::-1], y[::-1])
    assert (vlm.n_images, vlm.n_texts) == (30, texts)


@pytest.mark.parametrize("kind", ["array", "PIL", "paths", "bytes", "dataset"])
def test_second_annotation_runs_no_encoder(vlm, annotator, tmp_path, kind):
    paths = []
    for i, image in enumerate(X):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    samples = {
        "array": X,
        "PIL": [Image.fromarray(image) for image in X],
        "paths": paths,
        "bytes": [path.read_bytes() for path in paths],
        "dataset": torch.utils.data.TensorDataset(torch.from_numpy(X).permute(0, 3, 1, 2)),
    }[kind]
    annotator.set_params(cache_dir=tmp_path / "cache", batch_size=2)
    first = annotator.fit_transform(samples)
    counts = vlm.n_images, vlm.n_texts
    assert counts == (5, 6)
    second = clone(annotator).set_params(rule="topk", rule_value=1).fit_transform(samples)
    np.testing.assert_array_equal(second.scores, first.scores)
    assert (vlm.n_images, vlm.n_texts) == counts
    np.testing.assert_allclose(
        first.scores, clone(annotator).set_params(cache_dir=None).fit(X).predict_proba(X), atol=1e-6
    )


def test_only_what_changed_is_encoded_again(vlm, annotator, tmp_path):
    annotator.set_params(cache_dir=tmp_path, batch_size=2)
    annotator.fit_transform(X)
    changed = X.copy()
    changed[[1, 2]] = X[[2, 1]]  # the cache goes by content, not by row
    changed[4] = 7
    labels = annotator.fit_transform(changed)
    assert vlm.n_images == 6
    expected = clone(annotator).set_params(cache_dir=None).fit_transform(changed)
    np.testing.assert_allclose(labels.scores, expected.scores, atol=1e-6)


def test_other_weights_have_another_cache(vlm, annotator, tmp_path):
    annotator.set_params(cache_dir=tmp_path).fit_transform(X)
    vlm.cache_key = "colour, trained longer"
    annotator.fit_transform(X)
    assert vlm.n_images == 10
    del ColourVLM.cache_key
    try:
        with pytest.raises(ValueError, match="needs vlm.cache_key"):
            clone(annotator).set_params(vlm=ColourVLM()).fit(X)
    finally:
        ColourVLM.cache_key = "colour"


def test_cache_of_a_real_model(tiny, photos, tmp_path, monkeypatch):
    annotator = VLMPartialAnnotator(CLASSES, model=tiny, cache_dir=tmp_path, batch_size=4)
    first = annotator.fit_transform(photos)
    _open_clip._load.cache_clear()

    def fail(self, prepared):
        raise AssertionError("the image encoder ran")

    monkeypatch.setattr(_open_clip.OpenClipEncoder, "encode_image", fail)
    again = VLMPartialAnnotator(
        {"a": "red", "b": ["green", "blue"]}, model=tiny, cache_dir=tmp_path, templates="simple"
    )
    assert again.fit_transform(photos).shape == (7, 2)
    np.testing.assert_array_equal(clone(annotator).fit_transform(photos), first)
    with pytest.raises(AssertionError, match="the image encoder ran"):
        annotator.fit_transform(photos ^ 1)


def test_cache_key_follows_weights_preprocessing_and_precision(tmp_path):
    def key(name, **kwargs):
        precision = kwargs.pop("precision", "fp32")
        model = write_tiny_clip(tmp_path / name, **kwargs)
        return load_open_clip(model, precision=precision).cache_key

    assert key("a") == key("b")
    assert len({key("a"), key("c", seed=1), key("d", mean=[0.1] * 3)}) == 3
    assert key("a") != key("a", precision="bf16")


def test_cache_survives_several_writers(tmp_path):
    keys = [str(i) for i in range(50)]

    def write():
        cache = EmbeddingCache(tmp_path, "one")
        for key in keys:
            cache.put([key], np.full((1, 3), int(key)))
        return len(cache.get(keys))

    both = joblib.Parallel(n_jobs=2, prefer="threads")([joblib.delayed(write)()] * 2)
    assert both == [50, 50]
    found = EmbeddingCache(tmp_path, "one").get([*keys, "x"])
    assert {key: vector.tolist() for key, vector in found.items()} == {
        key: [int(key)] * 3 for key in keys
    }
    assert EmbeddingCache(tmp_path, "two").get(keys) == {}


def test_more_keys_than_a_query_takes(tmp_path):
    cache = EmbeddingCache(tmp_path, "one")
    keys = [str(i) for i in range(1203)]
    cache.put(keys, np.arange(1203).reshape(-1, 1))
    found = cache.get(keys)
    assert [found[key][0] for key in keys] == list(range(1203))


def test_damaged_cache_is_named(annotator, tmp_path):
    annotator.set_params(cache_dir=tmp_path).fit(X)
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(OSError, match=rf"{path.name} cannot be used .* delete it"):
        annotator.fit_transform(X)


def test_a_model_is_loaded_once_a_process(tiny, photos, monkeypatch):
    _open_clip._load.cache_clear()
    loaded = []
    create = open_clip.create_model_from_pretrained
    monkeypatch.setattr(
        open_clip,
        "create_model_from_pretrained",
        lambda *args, **kwargs: loaded.append(args) or create(*args, **kwargs),
    )
    annotator = VLMPartialAnnotator(CLASSES, model=tiny, templates="simple")
    first = annotator.fit_transform(photos)
    second = pickle.loads(pickle.dumps(clone(annotator).fit(photos))).transform(photos)
    np.testing.assert_array_equal(first.scores, second.scores)
    assert len(loaded) == 1
    VLMPartialAnnotator(CLASSES, model=tiny, templates="simple", precision="bf16").fit(photos)
    assert len(loaded) == 2


def test_a_rewritten_checkpoint_is_loaded_again(tmp_path, photos):
    name = write_tiny_clip(tmp_path / "model", seed=0)
    annotator = VLMPartialAnnotator(CLASSES, model=name)
    before = annotator.fit(photos).embed(photos)
    write_tiny_clip(tmp_path / "model", seed=1)
    assert np.abs(annotator.fit(photos).embed(photos) - before).max() > 0.1


# Pickling, cloning, scikit-learn


def test_a_pickle_holds_no_model(tiny, photos):
    annotator = VLMPartialAnnotator(CLASSES, model=tiny).fit(photos)
    expected = annotator.predict_proba(photos)
    stored = pickle.dumps(annotator)
    assert len(stored) < 5000
    np.testing.assert_array_equal(pickle.loads(stored).predict_proba(photos), expected)
    buffer = io.BytesIO()
    joblib.dump(make_pipeline(annotator, Learner()), buffer)
    assert buffer.tell() < 10_000
    lazy = annotator.transform(photos)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lazy)).scores, expected)


def test_a_reloaded_pipeline_predicts_without_the_model(tmp_path, photos):
    name = write_tiny_clip(tmp_path / "model")
    pipe = make_pipeline(VLMPartialAnnotator(CLASSES, model=name), Learner()).fit(photos)
    scores = pipe[0].transform(photos).scores
    pipe = pickle.loads(pickle.dumps(pipe))
    shutil.move(tmp_path / "model", tmp_path / "elsewhere")
    assert pipe.predict(photos).shape == (7,)
    lazy = pipe[0].transform(photos)
    with pytest.raises(FileNotFoundError, match="model"):
        np.asarray(lazy)
    shutil.move(tmp_path / "elsewhere", tmp_path / "model")
    pipe[0].set_params(rule="topk", rule_value=1, model="missing")
    np.testing.assert_array_equal(lazy.scores, scores)  # settled when it was made
    assert not (lazy.set_sizes == 1).all()
    # and the model is that of the fit, whatever the parameters say now
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pipe))[0].predict_proba(photos), scores)


def test_a_pickle_of_another_machine_runs_on_the_cpu(tiny, photos):
    annotator = VLMPartialAnnotator(CLASSES, model=tiny).fit(photos)
    expected = annotator.predict_proba(photos)
    annotator._prompted = replace(annotator._prompted, device="cuda:99")
    stored = pickle.dumps(annotator)
    with pytest.warns(UserWarning, match="no working 'cuda' here .* The CPU is used instead"):
        loaded = pickle.loads(stored)
    np.testing.assert_array_equal(loaded.predict_proba(photos), expected)


def test_a_failed_first_fit_leaves_nothing_fitted(photos):
    annotator = VLMPartialAnnotator(CLASSES, model="no-such-model")
    with pytest.raises(ValueError, match="Unknown model"):
        annotator.fit(photos)
    with pytest.raises(NotFittedError):
        annotator.transform(photos)


def test_an_own_model_is_shared_by_clones_and_pickled(annotator, vlm):
    assert clone(annotator).vlm is vlm
    copied = pickle.loads(pickle.dumps(annotator.fit(X)))
    assert isinstance(copied.vlm, ColourVLM)
    np.testing.assert_array_equal(copied.transform(X), annotator.transform(X))
    classes = annotator.classes
    assert clone(annotator).classes == classes
    assert clone(annotator).classes is not classes


def test_clone_keeps_metadata_requests(annotator):
    with sklearn.config_context(enable_metadata_routing=True):
        annotator.set_fit_request(known_labels=True)
        assert clone(annotator).get_metadata_routing().fit.requests["known_labels"] is True


def test_searching_in_parallel(tiny, photos):
    y = np.array(CLASSES)[[0, 1, 2, 0, 1, 2, 0]]
    search = search_grid(VLMPartialAnnotator(CLASSES, model=tiny), cv=2, n_jobs=2).fit(photos, y)
    assert len(search.cv_results_["params"]) == 3
    scores = cross_val_score(VLMPartialAnnotator(CLASSES, model=tiny), photos, y, cv=2)
    assert scores.shape == (2,)


def test_set_output(annotator):
    assert annotator.set_output(transform="pandas") is annotator
    assert isinstance(annotator.fit_transform(X), PartialLabels)
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(annotator.fit(X).transform(X), PartialLabels)


def test_not_fitted(annotator):
    for method in ("transform", "predict", "predict_proba", "predict_proba_per_template", "embed"):
        with pytest.raises(NotFittedError):
            getattr(annotator, method)(X)
    with pytest.raises(NotFittedError):
        annotator.score(X, Y)


def test_global_generators_are_untouched(tiny, photos):
    np_state = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    _open_clip._load.cache_clear()
    VLMPartialAnnotator(CLASSES, model=tiny).fit_transform(photos)
    np.testing.assert_array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
