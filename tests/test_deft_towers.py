"""The towers of DeFT against open_clip's own, and which of their parameters learn."""

import copy

import numpy as np
import pytest
import torch
from detection_data import CLASSES, random_photos
from fakes import ColourVLM, write_tiny_clip
from numpy.testing import assert_allclose
from PIL import Image

from sklearn_npll import VLMPartialAnnotator
from sklearn_npll.annotators._open_clip import load_open_clip
from sklearn_npll.detection import DeFTDetector, _deft_towers
from sklearn_npll.detection._deft_losses import (
    complement_weights,
    dual_prompt_loss,
    prompt_margin,
    similarity_loss,
    target_weights,
)
from sklearn_npll.detection._deft_towers import ImageTower, PromptTower, trainable
from sklearn_npll.detection._deft_training import DualPromptModel

RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}
RESNET["patch_size"] = None


def sets(rows):
    return torch.tensor(rows, dtype=torch.bool)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normalize(x):
    return torch.nn.functional.normalize(torch.as_tensor(x), dim=-1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def vit(folder):
    return write_tiny_clip(folder / "vit")


@pytest.fixture(scope="module")
def resnet(folder):
    return write_tiny_clip(folder / "resnet", vision=RESNET)


@pytest.fixture(scope="module")
def photos():
    return random_photos()[0]


@pytest.fixture(scope="module")
def labels():
    return random_photos()[1]


@pytest.mark.parametrize("custom_text", [False, True])
def test_prompts_of_known_words_are_those_of_open_clip(folder, custom_text):
    encoder = load_open_clip(write_tiny_clip(folder / f"{custom_text}", custom_text=custom_text))
    tower = PromptTower(encoder, [[name] for name in CLASSES], 4, generator())
    learnt = trainable(tower)
    assert [p.shape for p in learnt.values()] == [(4, 32)] * 2
    text = getattr(encoder.model, "text", encoder.model)
    context = ["a photo of a", "no photo of a"]
    with torch.no_grad():
        for parameter, words in zip(learnt.values(), context):
            parameter.copy_(text.token_embedding(encoder.tokenizer([words])[0, 1:5]))
    for features, words in zip(tower(), context):
        expected = encoder.encode_text(tuple(f"{words} {name}." for name in CLASSES))
        assert_allclose(features.detach(), normalize(expected), atol=2e-6)


def test_contexts_start_small_and_apart(vit):
    tower = PromptTower(load_open_clip(vit), [["red"]], 16, generator())
    positive, negative = trainable(tower).values()
    for context in (positive, negative):
        assert context.std().item() == pytest.approx(0.02, rel=0.1)
    assert (positive != negative).all()


def test_several_names_are_averaged(vit):
    encoder = load_open_clip(vit)
    apart = PromptTower(encoder, [["red"], ["scarlet"], ["blue"]], 3, generator())
    joint = PromptTower(encoder, [["red", "scarlet"], ["blue"]], 3, generator())
    for one, both in zip(apart(), joint()):
        expected = normalize(torch.stack([one[0] + one[1], one[2]]))
        assert_allclose(both.detach(), expected.detach(), atol=1e-6)


def test_many_prompts_are_encoded_in_parts(vit, monkeypatch):
    towers = [PromptTower(load_open_clip(vit), [[c] for c in CLASSES], 4, generator())] * 2
    gradients = []
    for tower, at_once in zip(towers, (256, 4)):
        monkeypatch.setattr(_deft_towers, "_PROMPTS_AT_ONCE", at_once)
        tower.zero_grad()
        positive, negative = tower()
        (positive * torch.arange(16) - negative[1]).sum().backward()
        gradients.append([p.grad.clone() for p in trainable(tower).values()])
    for whole, parts in zip(*gradients):
        assert whole.abs().max() > 0
        assert_allclose(parts, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tuner", ["lora", "bias", "none"])
def test_image_tower_starts_as_the_model(vit, photos, tuner):
    encoder = load_open_clip(vit)
    tower = ImageTower(encoder, tuner, 5, 2, generator())
    grey = photos[..., :1]
    for images in (photos, grey, [Image.fromarray(image) for image in photos]):
        prepared = encoder.prepare(images)
        expected = normalize(encoder.encode_image(prepared))
        assert_allclose(tower(prepared).detach(), expected, atol=2e-6)


def test_deep_visual_prompts_by_hand(vit, photos):
    encoder = load_open_clip(vit)
    visual = encoder.model.visual
    tower = ImageTower(encoder, "vpt_deep", 5, 2, generator())
    (prompts,) = trainable(tower).values()
    assert prompts.shape == (2, 5, 32)
    bound = np.sqrt(6 / (3 * 8 * 8 + 32))
    assert 0.9 * bound < prompts.abs().max() < bound
    prepared = encoder.prepare(photos[:3])
    scale, shift = encoder._normalisation
    with torch.no_grad():
        x = visual._embeds(torch.addcmul(shift, prepared.float(), scale))
        token, patches = x[:, :1], x[:, 1:]
        for prompt, block in zip(prompts, visual.transformer.resblocks):
            x = block(torch.cat([token, prompt.expand(3, -1, -1), patches], 1))
            token, patches = x[:, :1], x[:, 6:]
        expected = normalize(visual.ln_post(token[:, 0]) @ visual.proj)
        assert_allclose(tower(prepared), expected, atol=2e-6)


def test_low_rank_updates_by_hand(vit, photos):
    encoder = load_open_clip(vit)
    tower = ImageTower(encoder, "lora", 5, 2, generator())
    learnt = list(trainable(tower).values())
    assert [tuple(p.shape) for p in learnt] == [(2, 2, 32), (2, 32, 2)] * 2
    visual = copy.deepcopy(encoder.model.visual)
    with torch.no_grad():
        for (down, up), block in zip(zip(*[iter(learnt)] * 2), visual.transformer.resblocks):
            up.normal_(generator=generator(1))
            block.attn.in_proj_weight[:32] += up[0] @ down[0]  # queries
            block.attn.in_proj_weight[64:] += up[1] @ down[1]  # values
        prepared = encoder.prepare(photos[:3])
        scale, shift = encoder._normalisation
        expected = normalize(visual(torch.addcmul(shift, prepared.float(), scale)))
        assert_allclose(tower(prepared), expected, atol=2e-6)
    assert (expected - normalize(encoder.encode_image(prepared))).abs().max() > 0.01


@pytest.mark.parametrize("tuner", ["vpt_deep", "lora", "bias", "none"])
def test_which_parameters_learn_from_which_loss(vit, photos, tuner):
    encoder = load_open_clip(vit)
    prompts = PromptTower(encoder, [[c] for c in CLASSES], 4, generator())
    images = ImageTower(encoder, tuner, 5, 2, generator())
    model = DualPromptModel(prompts, images, 10.0)
    assert all("bias" in name or tuner != "bias" for name in trainable(images))
    assert bool(trainable(images)) == (tuner != "none")
    candidates = sets(np.eye(3)[np.arange(6) % 3])
    selected = sets([1, 1, 0, 1, 0, 1])

    def learning(loss):
        model.zero_grad()
        positive, negative = model(encoder.prepare(photos[:6]))
        loss(positive, negative).backward()
        return {n for n, p in trainable(model).items() if p.grad is not None and p.grad.any()}

    def dual(positive, negative):
        target = target_weights(positive, candidates, selected)
        margin = prompt_margin(positive, negative)
        return dual_prompt_loss(margin, target, complement_weights(candidates, "all"))

    def similarity(positive, negative):
        return similarity_loss(positive, candidates, selected)

    assert learning(dual) == {"prompts.tower.token_embedding.negative"}
    expected = {f"images.{name}" for name in trainable(images)}
    # the first factor of an update learns once the second has left 0
    expected = {name for name in expected if not name.endswith("down")}
    assert learning(similarity) == expected | {"prompts.tower.token_embedding.positive"}


def test_unsupported_models_are_refused(folder, vit, resnet, photos, labels):
    annotator = VLMPartialAnnotator(CLASSES, model=resnet)
    for tuner in ("vpt_deep", "lora"):
        with pytest.raises(ValueError, match=f'image_tuner="{tuner}" needs.*ModifiedResNet'):
            DeFTDetector(annotator, backend="full", image_tuner=tuner).fit(photos, labels)
    long = VLMPartialAnnotator([*CLASSES[:2], "a shoe of some unusual blue"], model=vit)
    message = r"n_ctx=16 vectors and the 9 tokens of the class name 'a shoe.*24 tokens.*n_ctx <= 15"
    y = np.array(long.classes)[np.arange(len(photos)) % 3]
    with pytest.raises(ValueError, match=message):
        DeFTDetector(long, backend="text").fit(photos, y)
    own = VLMPartialAnnotator(CLASSES, vlm=ColourVLM())
    with pytest.raises(ValueError, match="vlm of its own"):
        DeFTDetector(own, backend="text").fit(photos, labels)
    encoder = copy.copy(load_open_clip(vit))
    encoder.model = copy.copy(encoder.model)
    encoder.model.text_pool_type = "last"  # as SigLIP
    with pytest.raises(ValueError, match="causal text tower.*SigLIP"):
        _deft_towers.check_encoder(encoder, "full")
