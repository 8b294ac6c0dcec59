"""Tests of sklearn_npll.datasets."""

import gzip
import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest

from sklearn_npll.datasets import load_fashion_mnist, load_image_folder, make_candidates
from sklearn_npll.datasets._fashion_mnist import SYSTEM_FOLDER
from sklearn_npll.datasets._image_folder import find_images

needs_full = pytest.mark.skipif(
    not SYSTEM_FOLDER.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
)


# Fashion-MNIST


@pytest.mark.parametrize("subset, per_class", [("train", 1000), ("test", 500), ("all", 1500)])
def test_fashion_mnist_is_stratified(subset, per_class):
    data = load_fashion_mnist(subset)
    assert data.images.shape == (10 * per_class, 28, 28)
    assert data.images.dtype == np.uint8
    assert np.bincount(data.target).tolist() == [per_class] * 10
    assert data.target_names.tolist() == list(data.class_prompts)
    assert "MIT" in data.DESCR


def test_fashion_mnist_all_is_train_then_test():
    images, target = load_fashion_mnist("all", return_X_y=True)
    test = load_fashion_mnist("test")
    np.testing.assert_array_equal(images[10_000:], test.images)
    np.testing.assert_array_equal(target[10_000:], test.target)


def test_fashion_mnist_bunches_share_nothing():
    load_fashion_mnist("test").class_prompts["Bag"].append("handbag")
    assert load_fashion_mnist("test").class_prompts["Bag"] == ["bag"]


@needs_full
def test_shipped_subset_is_what_the_script_makes():
    path = Path(__file__).parents[1] / "tools" / "make_fashion_mnist_subset.py"
    spec = importlib.util.spec_from_file_location("make_fashion_mnist_subset", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    made = tool.make_subset()
    for split in ("train", "test"):
        images, target = load_fashion_mnist(split, return_X_y=True)
        np.testing.assert_array_equal(images, made[f"{split}_images"])
        np.testing.assert_array_equal(target, made[f"{split}_labels"])


@needs_full
def test_full_fashion_mnist():
    data = load_fashion_mnist("all", full=True)
    assert data.images.shape == (70_000, 28, 28)
    assert np.bincount(data.target).tolist() == [7000] * 10
    assert data.target_names[data.target[0]] == "Ankle boot"


def write_idx(path, array, opener=open):
    with opener(path, "wb") as file:
        file.write(bytes([0, 0, 8, array.ndim]))
        file.write(np.array(array.shape, ">i4").tobytes() + array.tobytes())


@pytest.fixture
def idx_folder(tmp_path):
    """A test split of three images: the images plain, the labels compressed."""
    images = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28)
    write_idx(tmp_path / "t10k-images-idx3-ubyte", images)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.array([9, 0, 4], np.uint8), gzip.open)
    return tmp_path


def test_full_reads_plain_and_compressed_idx_files(idx_folder):
    images, target = load_fashion_mnist("test", full=True, data_home=idx_folder, return_X_y=True)
    assert images[1, 0, :3].tolist() == [16, 17, 18]  # 28 * 28 = 784 = 16 modulo 256
    assert target.tolist() == [9, 0, 4]
    assert target.dtype == np.int64
    images[0] = 0  # the caller may write to his arrays


def test_full_errors(idx_folder):
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte.*data_home"):
        load_fashion_mnist("train", full=True, data_home=idx_folder)
    path = idx_folder / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"\(3, 28, 28\) but holds 2351 bytes"):
        load_fashion_mnist("test", full=True, data_home=idx_folder)
    write_idx(path, np.zeros((2, 28, 28), np.uint8))
    with pytest.raises(ValueError, match="2 test images but 3 labels"):
        load_fashion_mnist("test", full=True, data_home=idx_folder)
    write_idx(path.with_suffix(".gz"), np.zeros((3, 28, 28), np.uint8), gzip.open)
    whole = path.with_suffix(".gz").read_bytes()
    for damaged in (whole[:-9], whole[:1], whole[:12] + b"\0" * 8 + whole[20:]):
        path.with_suffix(".gz").write_bytes(damaged)
        with pytest.raises(ValueError, match="t10k-images-idx3-ubyte.gz is truncated or damaged"):
            load_fashion_mnist("test", full=True, data_home=idx_folder)
    path.with_suffix(".gz").unlink()
    for content in (b"", b"\0\0\x08", b"\0\0\x08\x03\0\0"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="t10k-images-idx3-ubyte is not an idx file"):
            load_fashion_mnist("test", full=True, data_home=idx_folder)
    path.write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match="not an idx file"):
        load_fashion_mnist("test", full=True, data_home=idx_folder)


def test_fashion_mnist_parameters():
    with pytest.raises(ValueError, match="'train', 'test' or 'all', got 'valid'"):
        load_fashion_mnist("valid")
    with pytest.raises(ValueError, match="full=True"):
        load_fashion_mnist(data_home="somewhere")


# Image folders


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_class_folders(tmp_path):
    touch(tmp_path, "dog/b.JPG", "dog/a.png", "cat/deep/1.webp", "cat/notes.txt", ".git/x.png")
    images = load_image_folder(tmp_path)
    assert images.data == [str(tmp_path / n) for n in ("cat/deep/1.webp", "dog/a.png", "dog/b.JPG")]
    assert images.target.tolist() == [0, 1, 1]
    assert images.target_names.tolist() == ["cat", "dog"]


def test_flat_folder_is_unlabelled(tmp_path):
    touch(tmp_path, "2.png", "1.png", "readme.md", "1.tga")
    data, target = load_image_folder(tmp_path, return_X_y=True)
    assert data == [str(tmp_path / "1.png"), str(tmp_path / "2.png")]
    assert target is None
    assert load_image_folder(tmp_path).target_names is None
    assert load_image_folder(tmp_path, extensions=["TGA"]).data == [str(tmp_path / "1.tga")]


def test_empty_class_folder_stays_a_class(tmp_path):
    touch(tmp_path, "cat/1.png", "dog/notes.txt")
    with pytest.warns(UserWarning, match="dog"):
        images = load_image_folder(tmp_path)
    assert images.target_names.tolist() == ["cat", "dog"]
    assert images.target.tolist() == [0]


def test_one_extension_is_no_collection_of_letters(tmp_path):
    touch(tmp_path, "cat/1.png", "cat/2.jpg", "cat/3.g")
    assert [Path(p).name for p in load_image_folder(tmp_path, extensions=".png").data] == ["1.png"]
    assert [Path(p).name for p in load_image_folder(tmp_path, extensions="JPG").data] == ["2.jpg"]


def test_image_folder_errors(tmp_path):
    with pytest.raises(ValueError, match="no file ending in .*png"):
        load_image_folder(tmp_path)
    touch(tmp_path, "cat/1.png", "2.png")
    with pytest.raises(ValueError, match="beside its class folders, for example .*2.png"):
        load_image_folder(tmp_path)
    with pytest.raises(NotADirectoryError, match="2.png"):
        load_image_folder(tmp_path / "2.png")


# Candidates

N, C = 40_000, 10
Y = np.arange(N) % C
TRUTH = np.arange(C) == Y[:, None]
ALL_PROTOCOLS = ["uniform", "pico", "fredis", "instance"]


def proba():
    """Probability 0.6 (even rows) or 0.8 (odd) for the truth; class c + 1 gets most of the rest."""
    rest = np.array([0.0, 0.5] + [0.0625] * 8)
    top = np.where(np.arange(N) % 2, 0.8, 0.6)[:, None]
    rest_by_row = np.take_along_axis(
        np.broadcast_to(rest, (N, C)), (np.arange(C) - Y[:, None]) % C, axis=1
    )
    return np.where(TRUTH, top, (1 - top) * rest_by_row)


def make(protocol, q, eta, seed=0):
    extra = {"proba": proba()} if protocol == "instance" else {}
    return make_candidates(Y, protocol=protocol, q=q, eta=eta, random_state=seed, **extra)


def missing(candidates):
    """Share of the sets without the truth."""
    return 1 - candidates[TRUTH].mean()


@pytest.mark.parametrize("protocol", ALL_PROTOCOLS)
def test_candidates_are_reproducible_and_never_empty(protocol):
    first = make(protocol, q=0.1, eta=0.5)
    assert first.shape == (N, C) and first.dtype == bool
    assert first.any(axis=1).all()
    np.testing.assert_array_equal(first, make(protocol, q=0.1, eta=0.5))
    assert (first != make(protocol, q=0.1, eta=0.5, seed=1)).any()


@pytest.mark.parametrize("protocol", ["uniform", "pico", "instance"])
def test_without_noise_the_truth_is_alone(protocol):
    np.testing.assert_array_equal(make(protocol, q=0, eta=0), TRUTH)


def test_uniform_rates():
    candidates = make("uniform", q=0.2, eta=0.3)
    assert missing(candidates) == pytest.approx(0.3, abs=0.01)
    # A swap keeps the size, so that it is 1 + 0.2 * 9.
    assert candidates.sum(1).mean() == pytest.approx(2.8, abs=0.02)
    # The label swapped in is any wrong one: each is in the set at the same rate.
    rates = [candidates[np.arange(N), (Y + k) % C].mean() for k in range(1, C)]
    assert np.ptp(rates) < 0.02


def test_uniform_leaves_full_sets():
    assert make("uniform", q=1, eta=1).all()


def test_pico_rates():
    q, eta = 0.2, 0.3
    candidates = make("pico", q=q, eta=eta)
    kept = 1 - eta * (1 - q) ** 9  # an empty set is drawn again
    assert missing(candidates) == pytest.approx(1 - (1 - eta) / kept, abs=0.01)
    assert candidates.sum(1).mean() == pytest.approx((1 - eta + 9 * q) / kept, abs=0.02)


def test_pico_refuses_rates_that_never_fill_a_set():
    with pytest.raises(ValueError, match="raise q or lower eta"):
        make("pico", q=0, eta=1)


def test_fredis_rates():
    q, eta = 0.2, 0.3
    candidates = make("fredis", q=q, eta=eta)
    assert candidates.sum(1).min() == 2
    # Of the noisy sets, the truth returns with q, or as the second label of a lone one.
    back = q + (1 - q) ** 9 / 9
    assert missing(candidates) == pytest.approx(eta * (1 - back), abs=0.01)
    assert candidates.sum(1).mean() == pytest.approx(1 + 9 * q + (1 - q) ** 9, abs=0.02)


def test_instance_rates_follow_proba():
    q, eta = 0.1, 0.2
    candidates = make("instance", q=q, eta=0)
    near, far = ([candidates[np.arange(N), (Y + k) % C].mean()] for k in (1, 2))
    # Weights 0.5 and 8 times 0.0625, scaled to a mean of q over 9 labels.
    assert near == pytest.approx([9 * q * 0.5], abs=0.01)
    assert far == pytest.approx([9 * q * 0.0625], abs=0.01)
    gone = ~make("instance", q=q, eta=eta)[TRUTH]
    assert gone.mean() == pytest.approx(eta, abs=0.01)
    # The doubts are 0.4 and 0.2.
    assert gone[::2].mean() / gone[1::2].mean() == pytest.approx(2, abs=0.15)


def test_instance_swaps_towards_likely_labels():
    candidates = make("instance", q=0, eta=0.5)
    rows, entered = np.nonzero(candidates & ~TRUTH)
    assert (entered == (Y[rows] + 1) % C).mean() == pytest.approx(0.5, abs=0.02)


def test_instance_takes_saturated_proba():
    candidates = make_candidates(
        Y, protocol="instance", q=0.1, eta=0.3, proba=TRUTH.astype(float), random_state=0
    )
    assert missing(candidates) == pytest.approx(0.3, abs=0.01)
    assert candidates.sum(1).mean() == pytest.approx(1.9, abs=0.02)


def test_class_names_and_order():
    candidates = make_candidates(["b", "a"], q=0, classes=["b", "c", "a"])
    assert candidates.tolist() == [[True, False, False], [False, False, True]]
    assert make_candidates(["b", "a"], q=0).tolist() == [[False, True], [True, False]]


def test_minus_one_is_a_class_beside_one_other_number():
    assert make_candidates([-1, 1, 1, -1], q=0).tolist() == [
        [True, False],
        [False, True],
        [False, True],
        [True, False],
    ]


def test_candidate_errors():
    y = [0, 1, 2]
    with pytest.raises(ValueError, match="Did you mean 'fredis'"):
        make_candidates(y, protocol="freddis")
    with pytest.raises(ValueError, match=r"q must lie in \[0, 1\], got 1.5"):
        make_candidates(y, q=1.5)
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\], got -1"):
        make_candidates(y, eta=-1)
    with pytest.raises(ValueError, match=r"y holds -1 in rows 1, 2, .* leave out unlabelled"):
        make_candidates([0, -1, -1], classes=[0, 1])
    with pytest.raises(ValueError, match=r"y holds '-1' in row 1, .* leave out unlabelled"):
        make_candidates(["a", "-1", "b"])
    with pytest.raises(ValueError, match="Did you mean 'Sneaker'"):
        make_candidates(["Bag", "Sneker"], classes=["Bag", "Sneaker"])
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        make_candidates([0.5, 1.5, 0.5, 0.7])
    with pytest.raises(ValueError, match="y mixes names and numbers"):
        make_candidates(np.array(["cat", 1], dtype=object))
    with pytest.raises(ValueError, match="Input y contains NaN: row 1"):
        make_candidates([0, np.nan, 1])
    with pytest.raises(ValueError, match="two or more distinct labels"):
        make_candidates([0, 0])
    with pytest.raises(ValueError, match=r"shape \(n_samples,\), got \(1, 3\)"):
        make_candidates([y])


def test_proba_errors():
    y = [0, 1]
    with pytest.raises(ValueError, match="needs proba.*cross_val_predict"):
        make_candidates(y, protocol="instance")
    with pytest.raises(ValueError, match="not used by protocol='uniform'"):
        make_candidates(y, proba=np.eye(2))
    with pytest.raises(ValueError, match=r"shape \(2, 2\), got \(2, 3\)"):
        make_candidates(y, protocol="instance", proba=np.ones((2, 3)) / 3)
    with pytest.raises(ValueError, match=r"but not in row 1: the first holds \[0.9, 0.9\]"):
        make_candidates(y, protocol="instance", proba=[[1, 0], [0.9, 0.9]])


def test_images_at_any_depth(tmp_path):
    for name in ("b.PNG", "a/1.jpg", "a/deeper/2.tif", ".hidden.png", ".cache/3.png", "a.txt"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    expected = [str(tmp_path / name) for name in ("a/1.jpg", "a/deeper/2.tif", "b.PNG")]
    assert find_images(tmp_path) == expected
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no file ending in .bmp, .gif"):
        find_images(tmp_path / "empty")
    with pytest.raises(NotADirectoryError, match="a.txt is not a folder"):
        find_images(tmp_path / "a.txt")


@pytest.mark.parametrize("read", [load_image_folder, find_images])
def test_images_of_types_that_are_not_read_are_told(tmp_path, read):
    for name in ("cat/1.png", "cat/2.HEIC", "cat/3.heic", "dog/4.jpg", "dog/5.avif", "dog/6.txt"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    with pytest.warns(UserWarning, match="Left out 3 files of .*: 1 .avif, 2 .heic. Convert"):
        read(tmp_path)
    if read is load_image_folder:
        with pytest.warns(UserWarning, match="Left out 1 files of .*: 1 .avif."):
            found = load_image_folder(tmp_path, extensions=[".png", "heic"])
        assert [Path(path).name for path in found.data] == ["1.png", "2.HEIC", "3.heic"]


def test_no_other_file_is_told(tmp_path):
    for name in ("1.png", "notes.txt", "labels.csv", "model.skops", ".hidden.heic"):
        (tmp_path / name).touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_image_folder(tmp_path).data) == len(find_images(tmp_path)) == 1
