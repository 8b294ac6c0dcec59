"""Images that are read from where they are, batch by batch: files, archives, data sets, maps."""

import gzip
import io
import pickle
import tarfile

import numpy as np
import pytest
import torch
from fakes import ColourVLM
from numpy.testing import assert_array_equal
from PIL import Image
from torch import nn

from sklearn_npll import CoRegClassifier, PartialLabels, VLMPartialAnnotator, _streamed_images
from sklearn_npll._images import (
    ImageReadError,
    as_image_array,
    image_keys,
    read_image_array,
    read_images,
)
from sklearn_npll._neural._checkpoint import fingerprint
from sklearn_npll._streamed_images import StreamedImages, open_images
from sklearn_npll.datasets import TarImages

N = 24
RNG = np.random.default_rng(0)
T = RNG.integers(3, size=N)
# of one colour each, with some noise
PIXELS = np.uint8(
    RNG.integers(0, 60, size=(N, 6, 5, 3)) + 180 * np.eye(3, dtype=int)[T][:, None, None]
)
NAMES = ["red", "green", "blue"]


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for row, pixels in enumerate(PIXELS):
        (folder / f"{row:03d}.png").write_bytes(png(pixels))
    return sorted(map(str, folder.iterdir()))


def write_tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("shards"), []
    for start in range(0, N, 10):
        files = {}
        for row in range(start, min(start + 10, N)):
            files[f"{row:03d}.png"] = png(PIXELS[row])
            files[f"{row:03d}.cls"] = str(T[row]).encode()
            files[f"{row:03d}.json"] = b"{}"
        found.append(write_tar(folder / f"shard-{start}.tar", files))
    return found


@pytest.fixture
def streamed(monkeypatch):
    """Let any images be too many to be kept in memory."""
    monkeypatch.setattr(_streamed_images, "STREAM_FROM", 0)


class Items(torch.utils.data.Dataset):
    """A data set that counts how often it is read."""

    def __init__(self):
        self.n_read = 0

    def __len__(self):
        return N

    def __getitem__(self, row):
        self.n_read += 1
        return Image.fromarray(PIXELS[row]), int(T[row])


def tiny_network(n_classes, in_channels):
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * in_channels, n_classes)
    )


def classifier(**params):
    params = {"module": tiny_network, "max_epochs": 4, "warm_up": 2, "lr": 0.5, **params}
    return CoRegClassifier(strong_operations=False, flip=False, random_state=0, **params)


def candidates():
    return np.eye(3, dtype=int)[T] | np.eye(3, dtype=int)[np.arange(N) % 3]


# -- an array that is read on demand -----------------------------------------------------------


def test_streamed_images_are_the_array_of_the_images(streamed, paths):
    images = open_images(paths)
    assert isinstance(images, StreamedImages)
    assert (len(images), images.shape, images.ndim, images.dtype) == (N, (N, 6, 5, 3), 4, np.uint8)
    for rows in (slice(None), slice(3, 20, 5), [7, 2, 7], np.array([], dtype=int)):
        assert_array_equal(images[rows], PIXELS[rows])
    small = open_images(paths, image_size=(4, 4), channels=1)
    assert_array_equal(small[:], as_image_array(paths, image_size=(4, 4), channels=1))


def test_what_is_streamed(monkeypatch, paths):
    size = PIXELS.nbytes
    for limit, kind in ((size + 1, np.ndarray), (size, StreamedImages)):
        monkeypatch.setattr(_streamed_images, "STREAM_FROM", limit)
        assert isinstance(open_images(paths), kind)
        # an array is there already
        assert np.shares_memory(open_images(PIXELS), PIXELS)
        # but not one of its images in another form
        assert isinstance(open_images(PIXELS / 255), kind)


def test_rows_are_read_once_a_step(streamed):
    items = Items()
    images = open_images(items)
    items.n_read = 0
    images[[5, 3, 5]], images[[3, 5]], images[[5, 3, 3]]
    assert items.n_read == 2
    assert images[[3]].shape == (1, 6, 5, 3)
    assert items.n_read == 3
    images[[3]][:] = 0  # what is returned is a copy
    assert_array_equal(images[[3]], PIXELS[[3]])


def test_streamed_images_that_cannot_be_read(streamed, tmp_path):
    files = [tmp_path / f"{row}.png" for row in range(3)]
    files[0].write_bytes(png(PIXELS[0]))
    files[1].write_bytes(b"no image")
    files[2].write_bytes(png(PIXELS[0][:3]))
    images = open_images(files)
    with pytest.raises(ImageReadError, match=r"Image 1 \('.*1.png'\) cannot be read"):
        images[[0, 1]]
    with pytest.raises(ValueError, match=r"Image 2 has height and width \(3, 5\).*image_size"):
        images[[2]]
    resized = open_images(files, image_size=(6, 5))
    assert resized[[2, 0]].shape == (2, 6, 5, 3)


def test_hash_of_streamed_images(streamed, paths):
    one, same = (fingerprint(open_images(paths)) for _ in range(2))
    assert one == same
    assert fingerprint(open_images(paths[::-1])) != one
    assert fingerprint(open_images(paths, image_size=(4, 4))) != one


# -- learning from them ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["paths", "dataset", "tar", "floats"])
def test_a_fit_does_not_depend_on_where_images_are(kind, streamed, paths, shards, monkeypatch):
    X = {
        "paths": lambda: paths,
        "dataset": Items,
        "tar": lambda: TarImages(shards),
        "floats": lambda: PIXELS / 255,
    }[kind]()
    found = classifier().fit(X, candidates())
    monkeypatch.setattr(_streamed_images, "STREAM_FROM", 2**30)
    expected = classifier().fit(PIXELS, candidates())
    proba = expected.predict_proba(PIXELS)
    assert_array_equal(found.predict_proba(X), proba)
    assert_array_equal(found.predict_proba(PIXELS), proba)
    assert_array_equal(found.label_distributions_, expected.label_distributions_)
    assert pickle.loads(pickle.dumps(found)).score(X, T) == expected.score(PIXELS, T) > 0.8


def test_a_streamed_fit_resumes_from_its_checkpoint(streamed, paths, tmp_path):
    expected = classifier(checkpoint_dir=tmp_path).fit(paths, candidates()).predict_proba(paths)
    again = classifier(checkpoint_dir=tmp_path).fit(paths, candidates())
    assert_array_equal(again.predict_proba(paths), expected)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_fit_on_files_of_different_sizes_says_what_to_do(streamed, paths, tmp_path):
    odd = tmp_path / "odd.png"
    odd.write_bytes(png(PIXELS[0][:3]))
    files = [*paths[:-1], odd]
    with pytest.raises(ValueError, match=f"Image {N - 1} has height and width .* give an image_si"):
        classifier().fit(files, candidates())
    clf = classifier(image_size=(6, 5)).fit(files, candidates())
    assert clf.image_shape_ == (6, 5, 3)


def test_a_fit_reads_no_more_than_batches(streamed, monkeypatch):
    n, sizes = 1500, []

    def read(samples, rows, *args, **kwargs):
        sizes.append(len(rows))
        return read_image_array(samples, rows, *args, **kwargs)

    monkeypatch.setattr(_streamed_images, "read_image_array", read)
    X = [PIXELS[row % N] for row in range(n)]
    clf = classifier(max_epochs=2, warm_up=1).fit(X, np.tile(candidates(), (n // N + 1, 1))[:n])
    assert max(sizes) <= 256
    sizes.clear()
    clf.predict(X)
    assert max(sizes) <= 256
    assert sum(sizes) == n


def test_a_fit_gives_back_the_pages_of_a_memory_map(tmp_path, monkeypatch):
    np.save(tmp_path / "images.npy", PIXELS)
    X = np.load(tmp_path / "images.npy", mmap_mode="r")
    released = []
    monkeypatch.setattr("sklearn_npll._neural._views.release_pages", released.append)
    clf = classifier(max_epochs=1).fit(X, candidates())
    assert released
    assert all(isinstance(images, np.memmap) for images in released)
    monkeypatch.undo()
    assert_array_equal(clf.fit(X, candidates()).predict(X), clf.predict(PIXELS))


# -- tar archives ------------------------------------------------------------------------------


def test_tar_images(shards):
    images = TarImages(shards)
    assert len(images) == N
    assert repr(images) == "TarImages(n_samples=24, n_archives=3)"
    assert images.paths == list(map(str, shards))
    assert images.names[[0, -1]].tolist() == ["000.png", "023.png"]
    assert_array_equal(images.target, T)
    assert images.target.dtype == np.int64
    for row in (0, 9, 10, N - 1, -1, np.int64(3)):
        assert_array_equal(np.asarray(Image.open(io.BytesIO(images[row]))), PIXELS[row])
    for row in (N, -N - 1):
        with pytest.raises(IndexError):
            images[row]
    with pytest.raises(TypeError):
        images["0"]
    assert_array_equal(as_image_array(images), PIXELS)
    assert_array_equal(as_image_array(pickle.loads(pickle.dumps(images))), PIXELS)


def test_rows_of_tar_images(shards):
    images = TarImages(shards)
    part = images.select(np.array([12, 3]))
    assert part.names.tolist() == ["012.png", "003.png"]
    assert_array_equal(part.target, T[[12, 3]])
    assert_array_equal(as_image_array(part), PIXELS[[12, 3]])
    labels = PartialLabels.from_candidates(candidates(), data=images)
    assert_array_equal(as_image_array(labels[5:7].data), PIXELS[5:7])
    assert image_keys(images, [3]) == image_keys(part, [1])


def test_what_counts_in_an_archive(tmp_path):
    files = {
        "a/1.seg.png": b"mask",
        "a/1.JPG": b"one",
        "a/.2.png": b"hidden",
        "a/3.txt": b"text",
        "b/1.webp": b"two",
        "b/1.cls": b" 12\n",
    }
    path = write_tar(tmp_path / "x.tar", files)
    images = TarImages(path)
    assert images.names.tolist() == ["a/1.seg.png", "a/1.JPG", "b/1.webp"]
    assert images.target.tolist() == [-1, -1, 12]
    assert [images[row] for row in range(3)] == [b"mask", b"one", b"two"]
    masks = TarImages(path, extensions=["seg.png"])
    assert masks.names.tolist() == ["a/1.seg.png"]
    assert masks.target is None
    assert masks.select([0]).target is None
    assert TarImages(str(path), extensions=".txt")[0] == b"text"
    # twice the same archive is twice its images
    assert len(TarImages([path, str(path)])) == 6


def test_long_names_in_an_archive(tmp_path):
    name = "ü" * 90 + "/" + "x" * 120 + ".png"
    for format_ in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / "x.tar"
        with tarfile.open(path, "w", format=format_) as archive:
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"one"))
        images = TarImages(path)
        assert images.names.tolist() == [name]
        assert images[0] == b"one"


def test_archives_that_are_refused(tmp_path, shards):
    whole = shards[0].read_bytes()
    packed = tmp_path / "packed.tar.gz"
    packed.write_bytes(gzip.compress(whole))
    with pytest.raises(ValueError, match=r"packed.tar.gz cannot be read.*decompress it"):
        TarImages([*shards, packed])
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole[:600])
    with pytest.raises(ValueError, match=r"cut.tar cannot be read.*it ends within 000.png"):
        TarImages(cut)
    sparse = tmp_path / "sparse.tar"
    with tarfile.open(sparse, "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("holes.png")
        # what GNU tar --sparse writes: data from byte 0 on, of which there are none
        member.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": "512"}
        archive.addfile(member)
    with pytest.raises(ValueError, match=r"sparse.tar cannot be read.*holes.png is stored as a sp"):
        TarImages(sparse)
    none = write_tar(tmp_path / "none.tar", {"a.txt": b""})
    with pytest.raises(ValueError, match=r"none.tar holds no file ending in .bmp"):
        TarImages(none)
    with pytest.raises(ValueError, match="paths is empty"):
        TarImages([])
    wrong = write_tar(tmp_path / "wrong.tar", {"a.png": b"", "a.cls": b"cat"})
    with pytest.raises(ValueError, match=r"a.cls in .*wrong.tar holds b'cat', which is no class"):
        TarImages(wrong)
    with pytest.raises(FileNotFoundError, match="missing.tar"):
        TarImages(tmp_path / "missing.tar")


def test_a_damaged_image_in_an_archive_is_named(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"0.png": png(PIXELS[0]), "1.png": b"no image"})
    with pytest.raises(ImageReadError, match="Image 1 cannot be read"):
        read_images(TarImages(path))


# -- annotating them ---------------------------------------------------------------------------


def annotate(X):
    annotator = VLMPartialAnnotator(NAMES, vlm=ColourVLM(), batch_size=7)
    return annotator.fit_transform(X)


def test_archives_are_annotated(shards):
    labels = annotate(TarImages(shards))
    assert_array_equal(labels.toarray(), annotate(PIXELS).toarray())
    assert labels.coverage(np.array(NAMES)[T]) == 1
    clf = classifier().fit(labels)
    assert clf.score(TarImages(shards), np.array(NAMES)[T]) > 0.8


@pytest.mark.parametrize("form", ["arrow", "files"])
def test_hugging_face_datasets(form, streamed, paths, tmp_path):
    datasets = pytest.importorskip("datasets")
    X = datasets.Dataset.from_dict({"image": paths, "label": T.tolist()})
    X = X.cast_column("image", datasets.Image())
    if form == "arrow":  # with the files' content
        folder = str(tmp_path / "set")
        X.save_to_disk(folder, num_proc=1)
        X = datasets.load_from_disk(folder)
    for samples in (X, X["image"], X.select_columns("image")):
        labels = annotate(samples)
        assert_array_equal(labels.toarray(), annotate(PIXELS).toarray())
        assert_array_equal(as_image_array(labels[3:9].data), PIXELS[3:9])
    clf = classifier().fit(annotate(X))
    expected = classifier().fit(annotate(PIXELS))
    assert_array_equal(clf.predict_proba(X), expected.predict_proba(PIXELS))
