"""Stand-ins: vision-language models that count their calls, a tiny real one, plans and labels."""

import inspect
import json
import pickle

import numpy as np
import sklearn
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import KFold, cross_validate
from sklearn.pipeline import make_pipeline

from sklearn_npll import PartialLabels

NAMES = np.array(["ant", "bee", "cat"])  # of classes
OLD_TORCH = "dynamic_shapes" not in inspect.signature(torch.onnx.export).parameters  # before 2.5
COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}


def known_in_folds(annotator, X, y, known, routing):
    """Return the known and all rows that a learner sees in `fit` and in two folds."""
    seen = []

    class Recorder(ClassifierMixin, BaseEstimator):
        def fit(self, X, y=None):
            seen.append((X.known.sum(), len(X)))
            self.classes_ = X.classes
            return self

        def predict(self, X):
            return np.full(len(X), "red")

    with sklearn.config_context(enable_metadata_routing=routing):
        name = f"{type(annotator).__name__.lower()}__known_labels"
        if routing:
            name = "known_labels"
            annotator.set_fit_request(known_labels=True)
        pipe = make_pipeline(clone(annotator), Recorder())
        pipe.fit(X, y, **{name: known})
        cross_validate(pipe, X, y, cv=KFold(2), params={name: known}, error_score="raise")
    return seen


class ColourVLM:
    """Knows the mean colour of an image, and counts what it is asked.

    A prompt with "pale" in it sees colours less distinctly, so that templates can disagree.
    """

    logit_scale = 20.0
    cache_key = "colour"

    def __init__(self):
        self.n_images = 0
        self.n_image_calls = 0
        self.n_texts = 0

    def encode_image(self, images):
        self.n_images += len(images)
        self.n_image_calls += 1
        assert all(image.mode == "RGB" for image in images)
        return np.array([np.asarray(image).mean(axis=(0, 1)) + 1 for image in images])

    def encode_text(self, texts):
        self.n_texts += len(texts)
        return np.array([self.embed_text(text) for text in texts])

    @staticmethod
    def embed_text(text):
        vector = sum(np.array(v, float) for name, v in COLOURS.items() if name in text)
        return vector + (0.5 if "pale" in text else 0.0)


class FeatureVLM:
    """Embeds feature rows of any width, by a fixed random projection."""

    logit_scale = 5.0
    n_dimensions = 8

    def encode_image(self, images):
        raise NotImplementedError

    def __repr__(self):  # in the names of tests, which must be the same in every process
        return "FeatureVLM()"

    def encode_features(self, rows):
        weights = np.random.default_rng(0).normal(size=(rows.shape[1], self.n_dimensions))
        return np.tanh(rows @ weights / 10)

    def encode_text(self, texts):
        seeds = [sum(text.encode()) for text in texts]
        return np.stack(
            [np.random.default_rng(seed).normal(size=self.n_dimensions) for seed in seeds]
        )


def write_tiny_clip(folder, *, seed=0, custom_text=False, vision=None, **preprocess):
    """Write a random but real open_clip model of 32x32 pixels; returns its name."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    model_cfg = {
        "embed_dim": 16,
        "custom_text": custom_text,
        "vision_cfg": vision
        or {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16},
        "text_cfg": {
            "context_length": 24,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 2,
        },
    }
    preprocess_cfg = {"mean": [0.5, 0.4, 0.3], "std": [0.3, 0.3, 0.2], **preprocess}
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cls = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
        model = cls(**{k: v for k, v in model_cfg.items() if k != "custom_text"})
        torch.nn.init.normal_(getattr(model, "text", model).positional_embedding, std=0.5)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


class CountingPlan:
    """Annotates sample i with the class i % 3 and counts how often it is asked, for how many."""

    def __init__(self):
        self.seen = []

    def __call__(self, data):
        self.seen.append(len(data))
        codes = np.asarray(data) % 3
        return {
            "candidates": np.eye(3, dtype=bool)[codes],
            "scores": np.eye(3)[codes],
            "votes": np.stack([codes, codes], axis=1),
            "known": codes == 0,
        }

    def __reduce__(self):
        raise pickle.PicklingError("a plan holds a model and must never be pickled")


def make_wide(n=20, n_classes=200, seed=0):
    """Candidates of enough classes to be stored as CSR: two neighbours in each row."""
    first = np.random.default_rng(seed).integers(0, n_classes - 1, n)
    dense = np.zeros((n, n_classes), dtype=bool)
    dense[np.arange(n), first] = dense[np.arange(n), first + 1] = True
    return PartialLabels.from_candidates(dense, data=np.arange(n)), dense, first
