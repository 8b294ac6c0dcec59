"""Files of others: what is damaged, or means to do harm."""

import io
import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch
from fakes import write_tiny_clip
from numpy.testing import assert_array_equal
from scipy import sparse as sp
from torch import nn

from sklearn_npll import CoRegClassifier, PartialLabels, VLMPartialAnnotator
from sklearn_npll._files import atomic_write
from sklearn_npll._neural import _checkpoint
from sklearn_npll._neural._checkpoint import load_checkpoint, save_checkpoint
from sklearn_npll._neural._networks import load_weights
from sklearn_npll.annotators import _open_clip
from sklearn_npll.annotators._cache import AnswerCache, EmbeddingCache

X = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
Y = np.eye(3, dtype=bool)[np.arange(20) % 3]


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def payload(tmp_path):
    """A payload that is seen to work, but must not."""
    path = tmp_path / "harm"
    pickle.loads(pickle.dumps(Payload(path))).close()
    path.unlink()
    yield Payload(path)
    assert not path.exists()


def torch_file(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def flipped(content, n, rng):
    """The content with one bit changed, at n places one after another."""
    for place in rng.choice(8 * len(content), size=n, replace=False):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        yield bytes(changed)


# Harm


@pytest.mark.parametrize("member", ["classes", "columns", "sizes", "data", "scores", "known"])
def test_pickle_in_saved_labels(member, payload, tmp_path):
    path = tmp_path / "labels.npz"
    PartialLabels.from_candidates(Y, data=X).save(path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, member: np.array([payload] * 20, dtype=object)})
    with pytest.raises(ValueError, match=r"labels.npz is no file .*allow_pickle=False"):
        PartialLabels.load(path)


def test_pickle_in_place_of_saved_labels(payload, tmp_path):
    path = tmp_path / "labels.npz"
    path.write_bytes(pickle.dumps(payload))
    with pytest.raises(ValueError, match=r"labels.npz is no file"):
        PartialLabels.load(path)
    np.save(tmp_path / "array.npy", X)
    shutil.copy(tmp_path / "array.npy", path)
    with pytest.raises(ValueError, match=r"labels.npz is no file"):
        PartialLabels.load(path)
    with pytest.raises(FileNotFoundError):
        PartialLabels.load(tmp_path / "missing")


@pytest.mark.parametrize(
    "change",
    [
        {"columns": np.arange(20) + 10**6},  # would write outside of the matrix
        {"columns": np.arange(20) - 7},
        {"columns": np.zeros((4, 5), int)},
        {"columns": np.zeros(20)},
        {"sizes": np.full(20, 2)},
        {"sizes": np.r_[-1, 3, np.ones(18, int)]},
        {"sizes": np.r_[np.uint64(2**64 - 1), np.ones(19, np.uint64)]},
        {"classes": np.array(5)},
        {"scores": np.ones((3, 3))},
    ],
    ids=lambda change: "".join(change),
)
def test_saved_labels_that_contradict_themselves(change, tmp_path):
    path = tmp_path / "labels.npz"
    PartialLabels.from_candidates(Y).save(path)
    with np.load(path) as file:
        arrays = {**file, **change}
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"labels.npz is no file .* damaged"):
        PartialLabels.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"score_columns": np.arange(40) + 10**6},  # would be read and written out of bounds
        {"score_columns": np.arange(40) - 7},
        {"score_columns": np.zeros(40)},
        {"score_columns": np.zeros(39, int)},
        {"score_values": np.ones((40, 1))},
        {"score_starts": np.arange(21)},
        {"score_starts": np.r_[0, 10**9, 2 * np.arange(2, 21)]},
        {"score_starts": np.r_[0, 40, 2 * np.arange(2, 21)]},
        {"score_starts": np.r_[-2, 2 * np.arange(1, 21)]},
        {"score_starts": np.r_[2, 2 * np.arange(1, 21)]},
        {"score_starts": 2 * np.arange(22)},
        {"score_starts": 2.0 * np.arange(21)},
    ],
    ids=lambda change: "".join(change),
)
def test_saved_sparse_scores_that_contradict_themselves(change, tmp_path):
    path = tmp_path / "labels.npz"
    scores = sp.csr_array(Y * 0.75 + np.roll(Y, 1, axis=1) * 0.25)
    PartialLabels.from_scores(scores, value=2).save(path)
    assert_array_equal(PartialLabels.load(path).scores.toarray(), scores.toarray())
    with np.load(path) as file:
        arrays = {**file, **change}
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"labels.npz is no file .* sparse matrix"):
        PartialLabels.load(path)


def test_paths_in_saved_labels_write_nothing(tmp_path):
    PartialLabels.from_candidates(Y).save(tmp_path / "labels")
    with zipfile.ZipFile(tmp_path / "labels.npz", "a") as archive:
        archive.writestr("../escaped.npy", (tmp_path / "labels.npz").read_bytes())
        archive.writestr("/escaped.npy", b"")
    before = sorted(tmp_path.rglob("*"))
    PartialLabels.load(tmp_path / "labels")
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path.parent / "escaped.npy").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("raw", [False, True])
def test_code_in_a_checkpoint(raw, payload, tmp_path):
    clf = CoRegClassifier(max_epochs=2, random_state=0, checkpoint_dir=tmp_path / "kept")
    expected = clf.fit(X, Y).predict_proba(X)
    (path,) = (tmp_path / "kept").iterdir()
    content = pickle.dumps(payload) if raw else torch_file({"module": payload})
    path.write_bytes(content + _checkpoint._digest(content))
    with pytest.warns(UserWarning, match="cannot be read.*from the beginning.*may be code"):
        clf.fit(X, Y)
    assert_array_equal(clf.predict_proba(X), expected)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("raw", [False, True])
def test_code_in_weights(name, raw, payload, tmp_path):
    content = {"0.weight": torch.zeros(3, 2), "0.bias": payload}
    path = tmp_path / name
    path.write_bytes(pickle.dumps(content) if raw else torch_file(content))
    clf = CoRegClassifier(nn.Sequential(nn.Linear(2, 3)), init=path, max_epochs=1)
    with pytest.raises(ValueError, match=f"{name}' cannot be read as weights") as error:
        clf.fit(X, Y)
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "model.pth", "ViT.pt"])
def test_code_in_the_weights_of_a_model(name, payload, tmp_path):
    options = {"model": write_tiny_clip(tmp_path / "model")}
    (tmp_path / "model" / "open_clip_model.safetensors").unlink()
    (tmp_path / "model" / name).write_bytes(torch_file({"state_dict": {"logit_scale": payload}}))
    if name == "ViT.pt":
        options = {"model": "ViT-B-32", "pretrained": tmp_path / "model" / name}
    _open_clip._load.cache_clear()
    with pytest.raises(RuntimeError, match="may be code and is not run"):
        VLMPartialAnnotator(["cat", "dog"], **options).fit(np.zeros((2, 8, 8), np.uint8))


# Damage


@pytest.mark.filterwarnings("ignore:The embedding cache")
def test_no_bit_of_a_cache_is_believed(tmp_path):
    """Whatever bit has changed, what is found is right, or the file is named as damaged."""
    vectors = np.random.default_rng(0).normal(size=(30, 16)).astype(np.float32)
    keys = [f"image {i}" for i in range(30)]
    EmbeddingCache(tmp_path, "one").put(keys, vectors)
    (path,) = tmp_path.iterdir()
    content, outcomes = path.read_bytes(), {"found": 0, "missing": 0, "named": 0}
    for damaged in flipped(content, 300, np.random.default_rng(0)):
        path.write_bytes(damaged)
        try:
            cache = EmbeddingCache(tmp_path, "one")
            found = cache.get(keys)
        except OSError as error:
            assert f"{path.name} cannot be used" in str(error) and "delete it" in str(error)
            outcomes["named"] += 1
            continue
        for key, vector in found.items():
            assert_array_equal(vector, vectors[keys.index(key)])
        outcomes["missing" if len(found) < 30 else "found"] += 1
    assert outcomes["missing"] > 20 and outcomes["found"] > 20 and outcomes["named"] > 0


def test_a_damaged_entry_is_replaced(tmp_path):
    cache = AnswerCache(tmp_path, "one")
    cache.put({"a": "scarlet", "b": "crimson"})
    content = cache.path.read_bytes()
    assert content.count(b"scarlet") == 1
    cache.path.write_bytes(content.replace(b"scarlet", b"scarles"))
    assert cache.get("ab") == {"b": "crimson"}
    cache.put({"a": "scarlet"})
    assert cache.get("ab") == {"a": "scarlet", "b": "crimson"}


def test_half_an_emoji_is_cached(tmp_path):
    cache = AnswerCache(tmp_path, "one")
    cache.put({"a": "shoe \ud83d"})
    assert cache.get("a") == {"a": "shoe \ud83d"}


def test_no_bit_of_a_checkpoint_is_believed(tmp_path):
    path, state = (
        tmp_path / "state.pt",
        {"module": {"w": torch.arange(12.0)}, "history": [{"a": 1}]},
    )
    assert save_checkpoint(state, path) is None
    loaded = load_checkpoint(path)
    assert loaded["history"] == state["history"]
    assert torch.equal(loaded["module"]["w"], state["module"]["w"])
    content = path.read_bytes()
    for damaged in flipped(content, 40, np.random.default_rng(0)):
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match="state.pt cannot be read.*damaged"):
            assert load_checkpoint(path) is None


def test_no_bit_of_saved_labels_is_believed(tmp_path):
    labels = PartialLabels.from_scores(np.random.default_rng(0).dirichlet(np.ones(3), 20), data=X)
    labels.save(tmp_path / "labels")
    path, n_errors = tmp_path / "labels.npz", 0
    content = path.read_bytes()
    changed = [*flipped(content, 200, np.random.default_rng(0)), content[:-1], content[:100], b""]
    for damaged in changed:
        path.write_bytes(damaged)
        try:
            loaded = PartialLabels.load(path)
        except ValueError as error:
            assert "labels.npz is no file" in str(error)
            n_errors += 1
            continue
        assert_array_equal(loaded, labels)
        if loaded.scores is not None:  # the name of a part may be damaged
            assert_array_equal(loaded.scores, labels.scores)
    assert n_errors > 100


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_cut_short(suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    for content in (b"", b"not weights", torch_file({"a": torch.zeros(9)})[:200]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as weights"):
            load_weights(path)
    with pytest.raises(FileNotFoundError):
        load_weights(tmp_path / f"missing{suffix}")


# Atomic files


def test_atomic_write(tmp_path):
    path = tmp_path / "a file [0-9]*.txt"
    path.write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"half of it")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    abandoned, busy, other = (
        tmp_path / name
        for name in (f"{path.name}.0123abcd.tmp", f"{path.name}.89abcdef.tmp", "a.0123abcd.tmp")
    )
    for partial in (abandoned, busy, other):
        partial.write_bytes(b"")
    for partial in (abandoned, other):
        os.utime(partial, (1, 1))
    with atomic_write(link) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and link.is_symlink()
    assert sorted(tmp_path.iterdir()) == sorted([path, link, busy, other])
