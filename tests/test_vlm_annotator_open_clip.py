"""VLMPartialAnnotator with models of open_clip: the same numbers, precision, speed."""

import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import vlm_colours
from fakes import ColourVLM, write_tiny_clip
from PIL import Image
from vlm_colours import CLASSES, RGB, TEMPLATES, X

from sklearn_npll import VLMPartialAnnotator
from sklearn_npll.annotators import _open_clip
from sklearn_npll.annotators._open_clip import load_open_clip

# Fixtures, which pytest finds by their names here.
vlm = vlm_colours.vlm
annotator = vlm_colours.annotator
tiny = vlm_colours.tiny
photos = vlm_colours.photos


# open_clip


def test_shipped_model_works_offline():
    try:
        annotator = VLMPartialAnnotator({0: "sneaker", 1: "dress"}).fit(X)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    labels = annotator.fit_transform(X)
    assert labels.votes.shape == (5, 27)
    np.testing.assert_allclose(labels.scores.sum(axis=1), 1, atol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(tiny):
    with pytest.raises(ValueError, match="torch finds no working 'cuda'"):
        VLMPartialAnnotator(CLASSES, model=tiny, device="cuda").fit(X)
    assert load_open_clip(tiny, device="auto").device == "cpu"


def test_weights_from_a_file(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"logit_scale": torch.ones(())}, path)
    with pytest.raises(RuntimeError, match="weights.pt.* cannot be loaded"):
        load_open_clip("ViT-S-32-alt", path)


def test_progress_bar(annotator, capsys):
    annotator.fit_transform(X)
    assert capsys.readouterr().err == ""
    annotator.set_params(verbose=True).fit_transform(X)
    assert "5/5" in capsys.readouterr().err


def reference_proba(encoder, images, templates, names):
    """Probabilities as open_clip's own documentation computes them."""
    model = encoder.model
    with torch.inference_mode():
        pixels = torch.stack([encoder.preprocess(Image.fromarray(image)) for image in images])
        image = torch.nn.functional.normalize(model.encode_image(pixels), dim=-1)
        per_template = []
        for template in templates:
            tokens = encoder.tokenizer([template.format(name) for name in names])
            text = torch.nn.functional.normalize(model.encode_text(tokens), dim=-1)
            per_template.append((model.logit_scale.exp() * image @ text.T).softmax(dim=-1))
    return torch.stack(per_template, dim=1).numpy()


@pytest.mark.parametrize("custom_text", [False, True])
@pytest.mark.parametrize("as_pil", [False, True])
def test_agrees_with_open_clip(tmp_path, photos, custom_text, as_pil):
    name = write_tiny_clip(tmp_path, custom_text=custom_text)
    annotator = VLMPartialAnnotator(CLASSES, templates=TEMPLATES, model=name, batch_size=3)
    samples = [Image.fromarray(photo) for photo in photos] if as_pil else photos
    proba = annotator.fit(samples).predict_proba_per_template(samples)
    expected = reference_proba(load_open_clip(name), photos, TEMPLATES, sorted(CLASSES))
    # Arrays are resized by torch, which rounds a few pixels the other way.
    np.testing.assert_allclose(proba, expected, atol=1e-6 if as_pil else 1e-3)
    assert np.ptp(expected, axis=0).max() > 0.01  # the images differ by more than that


@pytest.mark.parametrize("custom_text", [False, True])
def test_short_prompts_are_encoded_exactly(tmp_path, custom_text):
    encoder = load_open_clip(write_tiny_clip(tmp_path, custom_text=custom_text))
    texts = ("a cat!", "the photo of a dog that is not quite so short, for once.")
    tokens = encoder.tokenizer(list(texts))
    assert tokens.shape[1] == 24
    seen = []
    tower = encoder.model.text if custom_text else encoder.model
    tower.ln_final.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    short = encoder.encode_text(texts)
    with torch.inference_mode():
        full = encoder.model.encode_text(tokens).numpy()
    assert seen[0][1] == 17 < seen[1][1] == 24
    np.testing.assert_allclose(short, full, atol=1e-6)
    _open_clip._load.cache_clear()


def test_a_tower_that_looks_ahead_is_not_cut_short(tmp_path):
    name = write_tiny_clip(tmp_path, custom_text=True)
    encoder = load_open_clip(name)
    encoder.model.text.attn_mask = None
    full = encoder.model.encode_text(encoder.tokenizer(["a cat"])).detach().numpy()
    np.testing.assert_allclose(encoder.encode_text(("a cat",)), full, atol=1e-6)
    _open_clip._load.cache_clear()


@pytest.mark.parametrize("shape", [(28, 28, 1), (20, 31, 3), (100, 70, 3), (32, 32, 3)])
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_batch_preprocessing_is_that_of_open_clip(tmp_path, shape, mode, interpolation):
    name = write_tiny_clip(tmp_path, resize_mode=mode, interpolation=interpolation)
    encoder = load_open_clip(name)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(4, *shape), dtype=np.uint8)
    prepared = encoder.prepare(images)
    expected = torch.stack([encoder.preprocess(Image.fromarray(i.squeeze())) for i in images])
    if prepared.dtype == torch.uint8:
        scale, shift = encoder._normalisation
        grey_level = scale.max()
        difference = (prepared.float() * scale + shift - expected).abs() / grey_level
        assert difference.max() < 2.01
        assert difference.mean() < 0.02
    else:
        assert mode == "longest"
        torch.testing.assert_close(prepared, expected)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(tiny, photos, precision):
    full = VLMPartialAnnotator(CLASSES, model=tiny).fit(photos)
    half = VLMPartialAnnotator(CLASSES, model=tiny, precision=precision).fit(photos)
    np.testing.assert_allclose(half.embed(photos), full.embed(photos), atol=0.05)
    assert half.embed(photos).dtype == np.float32


def test_prompts_are_kept_by_the_loaded_model(tiny, photos, monkeypatch):
    _open_clip._load.cache_clear()
    calls = []
    encode = _open_clip.OpenClipEncoder._encode_text
    monkeypatch.setattr(
        _open_clip.OpenClipEncoder,
        "_encode_text",
        lambda self, texts: calls.append(len(texts)) or encode(self, texts),
    )
    for rule in ("union", "topk", "ratio"):
        VLMPartialAnnotator(CLASSES, model=tiny, rule=rule).fit(photos)
    assert calls == [27 * 3]


def test_decoding_and_encoding_overlap(vlm):
    # Batch 1 is read before the encoder gets batch 0: otherwise this waits in vain.
    import threading

    read = threading.Event()

    class Photos(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            if index >= 2:
                read.set()
            return Image.fromarray(X[index])

    class Waiting(ColourVLM):
        def encode_image(self, images):
            assert read.wait(timeout=20)
            return super().encode_image(images)

    VLMPartialAnnotator(CLASSES, vlm=Waiting(), batch_size=2).fit_transform(Photos())


def test_reading_is_only_a_few_batches_ahead():
    ahead = []

    class Photos(torch.utils.data.Dataset):
        n_read = 0

        def __len__(self):
            return 40

        def __getitem__(self, index):
            self.n_read += 1
            return X[0]

    class Slow(ColourVLM):
        def encode_image(self, images):
            time.sleep(0.01)
            ahead.append(photos.n_read - self.n_images)
            return super().encode_image(images)

    photos = Photos()
    VLMPartialAnnotator(CLASSES, vlm=Slow(), batch_size=2).fit_transform(photos)
    assert len(ahead) == 20
    assert 2 < max(ahead) <= 4


def test_annotating_imports_open_clip_only_if_needed():
    code = (
        "import sys, sklearn_npll\n"
        "assert 'open_clip' not in sys.modules and 'torchvision' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.weights
def test_real_clip():
    shades = np.repeat(RGB[:3, None, :], 64 * 64, axis=1).reshape(3, 64, 64, 3)
    annotator = VLMPartialAnnotator(
        CLASSES, templates=["a {} square."], model="ViT-B-32-quickgelu", pretrained="openai"
    )
    assert annotator.fit(shades).predict(shades).tolist() == CLASSES
    assert annotator.logit_scale_ == pytest.approx(100, abs=0.1)
