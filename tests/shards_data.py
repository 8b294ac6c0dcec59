"""Images to annotate in shards, of all kinds, and a model that depends on the batch."""

import numpy as np
import pandas as pd
import pytest
from fakes import ColourVLM
from PIL import Image

from sklearn_npll import VLMPartialAnnotator

CLASSES = ["red", "green", "blue"]
N = 21
X = np.random.default_rng(0).integers(1, 255, size=(N, 2, 2, 3), dtype=np.uint8)
ROWS = np.random.default_rng(1).normal(size=(N, 5))
LABELS = np.array(CLASSES)[np.arange(N) % 3]


class BatchVLM(ColourVLM):
    """What it sees depends on the batch a little, like the last bits of a real model."""

    def encode_image(self, images):
        return super().encode_image(images) * (1 + np.arange(3) * len(images) / 1000)


class Photos:
    """A dataset as torch has them: a length and items."""

    def __len__(self):
        return N

    def __getitem__(self, row):
        return Image.fromarray(X[row]), "label"


def make_annotator(vlm=None, **params):
    params = {"templates": ["{}", "pale {}"], "batch_size": 4, **params}
    return VLMPartialAnnotator(CLASSES, vlm=vlm or BatchVLM(), **params)


@pytest.fixture
def annotator():
    return make_annotator().fit(X)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "labels"


def kinds_of_samples(folder):
    np.save(folder / "X.npy", X)
    paths = [folder / f"{i}.png" for i in range(N)]
    images = [Image.fromarray(image) for image in X]
    for path, image in zip(paths, images):
        image.save(path)
    return {
        "array": X,
        "memory map": np.load(folder / "X.npy", mmap_mode="r"),
        "paths": paths,
        "array of paths": np.array([str(path) for path in paths]),
        "series of paths": pd.Series(paths),
        "images": images,
        "bytes": [path.read_bytes() for path in paths],
        "dictionaries": [{"image": image} for image in images],
        "dataset": Photos(),
    }


def brightest(images, prompt):
    return [CLASSES[np.asarray(image).mean(axis=(0, 1)).argmax()] for image in images]
