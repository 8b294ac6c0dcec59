"""VLMPartialAnnotator: images, parameters and models that it refuses or skips."""

import io

import numpy as np
import pandas as pd
import pytest
import vlm_colours
from fakes import ColourVLM, write_tiny_clip
from PIL import Image
from vlm_colours import CLASSES, X

from sklearn_npll import VLMPartialAnnotator
from sklearn_npll._images import ImageReadError
from sklearn_npll.annotators import _open_clip
from sklearn_npll.annotators._open_clip import load_open_clip

# Fixtures, which pytest finds by their names here.
vlm = vlm_colours.vlm
annotator = vlm_colours.annotator
tiny = vlm_colours.tiny


# Bad input


@pytest.fixture
def damaged(tmp_path):
    paths = []
    for i, image in enumerate(X):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(image).save(paths[-1])
    content = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "1.png").unlink()
    return paths


def test_damaged_images_raise(annotator, damaged):
    with pytest.raises(ImageReadError, match="Image 1 .*1.png") as error:
        annotator.fit_transform(damaged)
    assert (error.value.index, error.value.path) == (1, damaged[1])
    with pytest.raises(ImageReadError, match="Image 2 .*3.png"):
        annotator.fit(X).predict([damaged[0], damaged[2], damaged[3]])


@pytest.mark.parametrize("rule", ["union", "topk"])
@pytest.mark.parametrize("cached", [False, True])
def test_damaged_images_are_skipped(annotator, damaged, vlm, rule, cached, tmp_path):
    annotator.set_params(on_error="skip", rule=rule, rule_value=1 if rule == "topk" else None)
    annotator.set_params(batch_size=2, cache_dir=tmp_path / "cache" if cached else None)
    whole = annotator.fit_transform(X)
    vlm.n_images = 0
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"2 of 5 images cannot be read .*Image 1 .*1\.png"):
            labels = annotator.fit_transform(damaged)
        good = [0, 2, 4]
        np.testing.assert_array_equal(labels.candidates[[1, 3]], np.ones((2, 3), bool))
        np.testing.assert_array_equal(labels.votes[[1, 3]], -1)
        np.testing.assert_allclose(labels.scores[[1, 3]], 1 / 3, atol=1e-6)
        np.testing.assert_array_equal(labels[good], whole[good])
    assert vlm.n_images == (3 if cached else 6)
    with pytest.warns(UserWarning, match="cannot be read"):
        assert not annotator.embed(damaged)[[1, 3]].any()


def test_a_batch_of_nothing_but_damaged_images(annotator, tmp_path):
    annotator.set_params(on_error="skip", batch_size=1)
    with pytest.warns(UserWarning, match="2 of 2"):
        labels = annotator.fit_transform([tmp_path / "a.png", tmp_path / "b.png"])
    assert labels.mean_set_size == 3


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"classes": ["red"]}, ValueError, "classes has 1 element"),
        ({"classes": ["red", "red"]}, ValueError, "'red' is used twice"),
        ({"classes": ["red", ""]}, ValueError, "empty name"),
        ({"templates": ["a thing."]}, ValueError, r"templates\[0\]"),
        ({"templates": "coreg"}, ValueError, "Did you mean 'coreg-27'"),
        ({"rule": "unoin"}, ValueError, "Did you mean 'union'"),
        ({"rule_value": 2}, ValueError, "'union' has no argument"),
        ({"rule": "topk", "rule_value": 4}, ValueError, "k is 4"),
        ({"rule": "ratio", "rule_value": 1.5}, ValueError, "ratio is 1.5"),
        ({"rule": "topk", "rule_value": "3"}, ValueError, "'rule_value' parameter"),
        ({"batch_size": 0}, ValueError, "'batch_size' parameter"),
        ({"output": "pixels"}, ValueError, "'output' parameter"),
        ({"on_error": "ignore"}, ValueError, "'on_error' parameter"),
        ({"use_y": "yes"}, ValueError, "'use_y' parameter"),
        ({"vlm": object()}, TypeError, "has no method encode_image"),
        ({"vlm": type("V", (ColourVLM,), {"logit_scale": 0})()}, ValueError, "logit_scale is 0"),
        ({"vlm": type("V", (ColourVLM,), {"logit_scale": None})()}, ValueError, "logit_scale"),
    ],
)
def test_bad_parameters(annotator, vlm, params, error, message):
    with pytest.raises(error, match=message):
        annotator.set_params(**params).fit_transform(X)
    assert vlm.n_images == 0


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ("photo.png", "single path"),
        (Image.new("L", (4, 4)), "single path or image"),
        ([], "Found array with 0 sample"),
        (None, "X is None; pass the samples"),
        (io.BytesIO(b""), "single path or image"),
        (pd.Series([bytearray(b"")]), "type bytearray; encoded images must be bytes"),
        ([(io.BytesIO(b""), 0)], "type BytesIO; encoded images must be bytes"),
        ([io.BytesIO(b"")], "type BytesIO; encoded images must be bytes"),
        ([bytearray(b"")], "type bytearray; encoded images must be bytes"),
        (np.zeros((0, 4, 4)), "Found array with 0 sample"),
        (np.zeros((2, 3, 8, 8)), "channels seem to come first"),
        (np.zeros((2, 0, 8)), r"an image has shape .* got \(0, 8, 1\)"),
        (np.full((2, 4, 4), 300), "Image 0 cannot be read: it has values from 300 to 300"),
    ],
)
def test_bad_samples(annotator, samples, message):
    with pytest.raises(ValueError, match=message):
        annotator.fit_transform(samples)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_the_column_of_paths_is_named(annotator, library):
    frame = pytest.importorskip(library).DataFrame({"n": [1.0], "file": ["photo.png"]})
    with pytest.raises(ValueError, match=r"column 'file' .* pass the column alone: df\['file'\]"):
        annotator.fit_transform(frame)


def test_paths_in_a_series_of_polars(tiny, tmp_path):
    polars = pytest.importorskip("polars")
    paths = [str(tmp_path / f"{i}.png") for i in range(len(X))]
    for path, image in zip(paths, X):
        Image.fromarray(image).save(path)
    annotator = VLMPartialAnnotator(CLASSES, model=tiny, templates="simple")
    expected = annotator.fit_transform(paths)
    labels = annotator.fit(polars.Series(paths)).transform(polars.Series(paths))
    np.testing.assert_allclose(labels[[2, 1]].scores, expected.scores[[2, 1]], rtol=1e-5)
    assert labels[[2, 1]].data.to_list() == [paths[2], paths[1]]


@pytest.mark.parametrize("samples", [{"photo.png"}, {"a": "photo.png"}, iter(["photo.png"])])
def test_samples_without_numbers(annotator, samples):
    with pytest.raises(TypeError, match="has no numbered samples; put them in a list"):
        annotator.fit_transform(samples)


def test_on_error_skip_of_an_array(vlm):
    images = np.repeat(np.linspace(0.2, 1, 4), 16).reshape(4, 4, 4)
    images[2, 0, 0] = np.nan
    annotator = VLMPartialAnnotator(["red", "green"], vlm=vlm, on_error="skip")
    with pytest.warns(UserWarning, match="Image 2"):
        labels = annotator.fit_transform(images)
    assert (labels.votes == -1).all(1).tolist() == [False, False, True, False]
    assert labels.toarray()[2].all()
    with pytest.raises(ImageReadError, match="Image 2"):
        annotator.set_params(on_error="raise").fit_transform(images)


def test_bad_encoders(annotator):
    class Bad(ColourVLM):
        def encode_image(self, images):
            return self.result

    vlm = Bad()
    annotator.set_params(vlm=vlm)
    vlm.result = np.ones((5, 2))
    with pytest.raises(ValueError, match=r"encode_image returned shape \(5, 2\) for 5 images"):
        annotator.fit_transform(X)
    vlm.result = np.full((5, 3), np.nan)
    with pytest.raises(ValueError, match="encode_image returned NaN"):
        annotator.fit_transform(X)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"model": "ViT-B32"}, ValueError, r"Unknown model 'ViT-B32'. Did you mean 'ViT-B-32'\?"),
        ({"model": "fashion-clip"}, ValueError, "Did you mean 'fashion-clip-tiny'"),
        ({"model": "ViT-B-32"}, ValueError, "needs weights.*The tags are 'openai'"),
        ({"model": "ViT-B-32", "pretrained": "opena1"}, ValueError, "Did you mean 'openai'"),
        ({"model": "ViT-B-32", "pretrained": "no/file.pt"}, ValueError, "neither a file nor a tag"),
        ({"model": "local-dir:nowhere"}, FileNotFoundError, "no folder 'nowhere'"),
        ({"model": "hf-hub:a/b", "pretrained": "openai"}, ValueError, "has no effect"),
        ({"device": "gpu"}, ValueError, "Unknown device 'gpu'"),
        ({"precision": "fp8"}, ValueError, "'precision' parameter"),
    ],
)
def test_bad_models(tiny, params, error, message):
    with pytest.raises(error, match=message):
        VLMPartialAnnotator(CLASSES, **{"model": tiny, **params}).fit(X)


def test_bad_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    name = write_tiny_clip(folder)
    with pytest.raises(ValueError, match="For a folder write 'local-dir:model'"):
        load_open_clip("model")
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RuntimeError, match="The weights of model='local-dir:.* cannot be loaded"):
        load_open_clip(name)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="has a configuration but no weights"):
        load_open_clip(name)
    config = folder / "open_clip_config.json"
    config.write_text("{}")
    with pytest.raises(ValueError, match="has no 'model_cfg'"):
        load_open_clip(name)
    config.unlink()
    with pytest.raises(FileNotFoundError, match="has no open_clip_config.json"):
        load_open_clip(name)


def test_shipped_model_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(_open_clip.resources, "files", lambda package: tmp_path)
    with pytest.raises(FileNotFoundError, match="'fashion-clip-tiny' that comes with sklearn_npll"):
        VLMPartialAnnotator(CLASSES).fit(X)
