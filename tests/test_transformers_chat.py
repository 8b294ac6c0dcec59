"""A real but tiny and random LLaVA that runs in this process."""

import pickle
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone

pytest.importorskip("transformers", minversion="4.50")

from sklearn_npll.annotators import ChatPartialAnnotator, TransformersChat
from sklearn_npll.annotators import _transformers_chat as module

pytestmark = pytest.mark.skipif(
    not sys.modules["transformers"].utils.is_torch_available(),
    reason="this transformers needs a newer torch",
)

WORDS = [
    "<pad>",
    "<s>",
    "</s>",
    "<unk>",
    "<image>",
    "USER",
    "ASSISTANT",
    ":",
    "red",
    "green",
    "blue",
]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}USER: {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
NAMES = ["red", "green", "blue"]


def write_tiny_llava(folder, *, seed=0, template=TEMPLATE):
    """Write a random LLaVA of 16x16 pixels and eleven words."""
    import transformers as tf
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
        extra_special_tokens={"image_token": "<image>"},
    )
    processor = tf.LlavaProcessor(
        image_processor=tf.CLIPImageProcessor(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    width = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    vision = tf.CLIPVisionConfig(
        num_hidden_layers=2, image_size=16, patch_size=8, projection_dim=16, **width
    )
    text = tf.LlamaConfig(
        num_hidden_layers=1,
        vocab_size=len(WORDS),
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=1.0,
        **width,
    )
    config = tf.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=4, vision_feature_layer=-1
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = tf.LlavaForConditionalGeneration(config)
        # So that answers depend on the image, and are names.
        torch.nn.init.normal_(model.get_parameter(_projector(model)), std=2.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def _projector(model):
    return next(n for n, _ in model.named_parameters() if n.endswith("linear_2.weight"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_llava(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def photos():
    return np.random.default_rng(0).integers(0, 256, size=(6, 20, 20, 3), dtype=np.uint8)


def annotator(tiny, *, max_tokens=4, temperature=0.0, cache_dir=None, **params):
    return ChatPartialAnnotator(
        NAMES,
        backend=TransformersChat(tiny, **params),
        questions=["Which: {classes} ?", "Which of {classes} is it?"],
        max_tokens=max_tokens,
        temperature=temperature,
        cache_dir=cache_dir,
    )


def test_answers_are_those_of_the_model_alone(tiny, photos):
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(tiny)
    processor = AutoProcessor.from_pretrained(tiny)
    fitted = annotator(tiny, batch_size=5).fit(photos)
    answers = fitted.answers(photos)
    expected = np.empty_like(answers)
    for i, photo in enumerate(photos):
        for j, prompt in enumerate(fitted.prompts_):
            inputs = processor(
                text=f"<s>USER: <image>{prompt} ASSISTANT:",
                images=Image.fromarray(photo),
                return_tensors="pt",
                add_special_tokens=False,
            )
            tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
            new = tokens[0, inputs["input_ids"].shape[1] :]
            expected[i, j] = processor.decode(new, skip_special_tokens=True)
    # one at a time and without padding, yet the same
    np.testing.assert_array_equal(answers, expected)
    assert len(np.unique(answers[:, 0])) > 1
    usage = fitted.usage_
    assert (usage["requests"], usage["failed"], usage["cost"]) == (12, 0, None)
    assert 12 <= usage["completion_tokens"] <= 12 * 4
    # words, and four tokens for the image instead of one
    n = [len(f"<s> USER: <image> {p} ASSISTANT:".split()) + 3 for p in fitted.prompts_]
    assert usage["prompt_tokens"] == len(photos) * sum(n)


def test_votes_of_a_local_model(tiny, photos):
    fitted = annotator(tiny).fit(photos)
    labels = fitted.transform(photos)
    for text, vote in zip(fitted.answers(photos).ravel(), labels.votes.ravel()):
        named = [word for word in text.split() if word in NAMES]
        assert vote == (labels.classes.tolist().index(named[0]) if named else -1)
    assert (labels.votes >= 0).any()


def test_sampling_follows_the_seed_and_leaves_the_global_generator(tiny, photos, tmp_path):
    warm = annotator(tiny, temperature=1.5, cache_dir=tmp_path)
    state = torch.get_rng_state()
    answers = warm.fit(photos).answers(photos)
    assert torch.equal(torch.get_rng_state(), state)
    assert (warm.set_params(cache_dir=None).answers(photos) == answers).all()
    warm.set_params(cache_dir=tmp_path, shuffle_options=False).fit(photos)
    first = warm.answers(photos)
    other = warm.set_params(random_state=1).fit(photos).answers(photos)
    assert (first != other).any()  # also where the questions are the same
    greedy = clone(warm).set_params(temperature=0.0).fit(photos).answers(photos)
    assert (greedy != other).any()


def test_loaded_once_cloned_and_pickled(tiny, photos, tmp_path):
    module._load.cache_clear()
    fitted = annotator(tiny).fit(photos)
    stored = pickle.dumps(fitted)
    assert len(stored) < 5000
    again = pickle.loads(stored)
    np.testing.assert_array_equal(again.answers(photos), fitted.answers(photos))
    clone(fitted).fit(photos)
    assert module._load.cache_info().misses == 1
    fitted.set_params(backend__dtype="bfloat16").fit(photos).answers(photos[:1])
    assert module._load.cache_info().misses == 2
    assert module._load(*_arguments(fitted))[0].dtype == torch.bfloat16


def _arguments(fitted):
    backend = fitted.backend
    return backend.model, None, "cpu", backend.dtype, module._file_stamps(backend.model)


def test_cache(tiny, photos, tmp_path, monkeypatch):
    fitted = annotator(tiny, cache_dir=tmp_path / "cache").fit(photos)
    answers = fitted.answers(photos)
    other = write_tiny_llava(tmp_path / "other", seed=1)
    assert (
        annotator(other, cache_dir=tmp_path / "cache").fit(photos).answers(photos) != answers
    ).any()

    def fail(*args):
        raise AssertionError("the model ran")

    monkeypatch.setattr(TransformersChat, "_generate", fail)
    np.testing.assert_array_equal(clone(fitted).fit(photos).answers(photos), answers)


def test_bad_models(tiny, photos, tmp_path):
    with pytest.raises(ValueError, match="has no chat template"):
        annotator(write_tiny_llava(tmp_path / "mute", template=None)).fit(photos)
    with pytest.raises(FileNotFoundError, match="no folder .*missing"):
        annotator(str(tmp_path / "missing")).fit(photos)
    with pytest.raises(ValueError, match="'dtype' parameter"):
        annotator(tiny, dtype="fp16").fit(photos)
    with pytest.raises(ValueError, match="Unknown device 'gpu'"):
        annotator(tiny, device="gpu").fit(photos)
    with pytest.raises(ValueError, match="TransformersChat sees images only"):
        annotator(tiny).fit(np.zeros((4, 3)))


def test_releases_that_are_missing_or_too_old(tiny, photos, monkeypatch):
    import transformers

    module._load.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(transformers, "__version__", "4.49.0")
        with pytest.raises(ImportError, match="needs transformers 4.50, and 4.49.0 is installed"):
            annotator(tiny).fit(photos).answers(photos)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "transformers", None)
        with pytest.raises(ImportError, match="pip install 'transformers>=4.50'"):
            annotator(tiny).fit(photos).answers(photos)


def test_temperatures():
    assert module._sampling(None) == {}  # the model's own
    assert module._sampling(0.0)["do_sample"] is False
    assert module._sampling(0.5) == {"do_sample": True, "temperature": 0.5}
