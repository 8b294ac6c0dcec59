import contextlib
import importlib
import io
import os
import pickle
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from sklearn_npll._images import (
    ImageReadError,
    as_image_array,
    fetch_samples,
    image_keys,
    is_image_data,
    n_images,
    read_images,
    sample_key,
    to_uint8,
)


class Images(torch.utils.data.Dataset):
    """Dataset of whatever is in a list."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, size=(3, 5, 7, 3), dtype=np.uint8)


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("X", "expected"),
    [
        (np.zeros((2, 4, 4)), True),
        (np.zeros((2, 4, 4, 3)), True),
        (torch.zeros(2, 3, 4, 4), True),
        (np.zeros((2, 4)), False),
        (torch.zeros(2, 4), False),
        (np.zeros(4), False),
        (np.array(["a.png", "b.png"]), True),
        (np.array(["a.png", "b.png"], dtype=object), True),
        (pd.Series(["a.png"], index=[7]), True),
        (pd.DataFrame({"a": [1.0]}), False),
        ([b"..."], True),
        ([Image.new("L", (2, 2))], True),
        ([np.zeros((4, 4))], True),
        ([torch.zeros(3, 4, 4)], True),
        ([(Image.new("L", (2, 2)), 0)], True),
        ([{"image": "a.png"}], True),
        ([[[1, 2], [3, 4]]], True),
        (Images(["a.png"]), True),
        ([[1, 2], [3, 4]], False),
        ([np.zeros(4)], False),
        ([1, 2], False),
        ([], False),
        ("a.png", False),
        (None, False),
    ],
)
def test_is_image_data(X, expected):
    assert is_image_data(X) is expected


def test_every_kind_of_sample_gives_the_same_image(pixels, tmp_path):
    paths = []
    for i, image in enumerate(pixels):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    images = [Image.fromarray(image) for image in pixels]
    kinds = {
        "uint8": pixels,
        "unit floats": pixels / 255,
        "floats": pixels.astype(np.float32),
        "int64": pixels.astype(np.int64),
        "uint16": pixels.astype(np.uint16) * 257,
        "torch": torch.from_numpy(pixels).permute(0, 3, 1, 2),
        "nested lists": pixels.tolist(),
        "arrays": list(pixels),
        "float arrays": list(pixels / 255),
        "torch list": list(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255),
        "PIL": images,
        "paths": paths,
        "strings": [str(path) for path in paths],
        "string array": np.array([str(path) for path in paths]),
        "series": pd.Series(paths, index=[5, 3, 1]),
        "bytes": [path.read_bytes() for path in paths],
        "tuples": [(image, 1) for image in images],
        "dictionaries": [{"label": 1, "img": image} for image in images],
        "undecoded dictionaries": [{"bytes": None, "path": str(path)} for path in paths],
        "dataset": Images([(image, 1) for image in images]),
        "dataset of dictionaries": Images([{"text": "", "photo": image} for image in images]),
        "undecoded dataset": Images([{"image": {"bytes": p.read_bytes()}} for p in paths]),
    }
    with contextlib.suppress(ImportError):
        kinds["series of polars"] = importlib.import_module("polars").Series(kinds["strings"])
    for name, X in kinds.items():
        assert is_image_data(X), name
        assert n_images(X) == 3, name
        read = read_images(X)
        assert [image.mode for image in read] == ["RGB"] * 3, name
        np.testing.assert_array_equal(np.stack(read), pixels, err_msg=name)
        np.testing.assert_array_equal(np.asarray(read_images(X, [2])[0]), pixels[2], err_msg=name)
        np.testing.assert_array_equal(as_image_array(X), pixels, err_msg=name)


def test_grey_images(pixels):
    grey = pixels[..., 0]
    for X in (grey, grey[..., np.newaxis], list(grey), [Image.fromarray(g) for g in grey]):
        np.testing.assert_array_equal(np.stack(read_images(X, mode=None)), grey)
        np.testing.assert_array_equal(np.stack(read_images(X)), np.repeat(grey[..., None], 3, -1))
        np.testing.assert_array_equal(as_image_array(X, channels=1)[..., 0], grey)
    # ITU-R 601 luma, which PIL uses
    luma = np.asarray(read_images(pixels, [0], mode="L")[0])
    np.testing.assert_allclose(luma, pixels[0] @ [0.299, 0.587, 0.114], atol=1)


def test_transparency_lies_on_white():
    rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], dtype=np.uint8)
    # 51 / 255 = 0.2: 0.2 * (200, 100, 0) + 0.8 * 255
    expected = [[[200, 100, 0], [255, 255, 255], [244, 224, 204]]]
    np.testing.assert_array_equal(to_uint8(rgba[np.newaxis])[0], expected)
    image = Image.fromarray(rgba)
    for X in (rgba[np.newaxis], [image], [png(rgba)], [rgba]):
        np.testing.assert_allclose(np.asarray(read_images(X)[0]), expected, atol=1)
    grey = Image.fromarray(np.array([[[10, 0], [10, 255]]], dtype=np.uint8), mode=None)
    assert grey.mode == "LA"
    np.testing.assert_array_equal(np.asarray(read_images([grey], mode="L")[0]), [[255, 10]])
    palette = Image.new("P", (2, 1))
    palette.putpalette([1, 2, 3, 4, 5, 6])
    palette.putdata([0, 1])
    palette.info["transparency"] = 1
    np.testing.assert_array_equal(
        np.asarray(read_images([palette])[0]), [[[1, 2, 3], [255, 255, 255]]]
    )


def test_deep_and_shallow_images():
    deep = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for X in ([png(deep)], [deep], deep[np.newaxis], [Image.fromarray(deep.astype(np.int32))]):
        assert np.asarray(read_images(X, mode="L")[0]).tolist() == [[0, 1, 128, 255]]
    for X in ([Image.new("1", (2, 1), 1)], np.ones((1, 1, 2), dtype=bool)):
        assert np.asarray(read_images(X, mode=None)[0]).tolist() == [[255, 255]]
    floats = Image.fromarray(np.array([[0, 0.2, 1]], dtype=np.float32))
    assert np.asarray(read_images([floats], mode=None)[0]).tolist() == [[0, 51, 255]]
    assert read_images([Image.new("CMYK", (1, 1))], mode=None)[0].getpixel((0, 0)) == (255,) * 3


def test_float_range_is_decided_for_each_image_alone():
    bright, dark = np.full((2, 2), 200.0), np.full((2, 2), 1.0)
    together = to_uint8(np.stack([bright, dark]))
    assert together[:, 0, 0, 0].tolist() == [200, 255]
    np.testing.assert_array_equal(together[1:], to_uint8(dark[np.newaxis]))


@pytest.mark.parametrize("bad", [-0.5, 256, np.nan, np.inf])
def test_values_out_of_range(bad):
    X = np.zeros((3, 2, 2))
    X[1, 0, 1] = bad
    for samples in (X, list(X)):
        with pytest.raises(ImageReadError, match="Image 1 .*: it has values .* Undo any norm") as e:
            read_images(samples)
        assert e.value.index == 1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 32, 32), r"pass X.transpose\(0, 2, 3, 1\)"),
        ((2, 32, 32, 2), "1, 3 or 4 channels"),
        ((32, 32, 3), r"one colour image; pass X\[np.newaxis\]"),
    ],
)
def test_bad_shapes(shape, message):
    with pytest.raises(ValueError, match=message):
        read_images(np.zeros(shape))


def test_exif_rotation(pixels, tmp_path):
    upright = Image.fromarray(pixels[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned 90 degrees clockwise
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_images([tmp_path / "turned.png"])[0], pixels[0])


def test_unreadable_images_are_named(pixels, tmp_path):
    good, cut, text = (tmp_path / name for name in ("good.jpg", "cut.jpg", "text.jpg"))
    Image.fromarray(np.tile(pixels[0], (20, 20, 1))).save(good)
    cut.write_bytes(good.read_bytes()[:600])
    text.write_text("not an image")
    missing = tmp_path / "missing.jpg"
    X = [good, cut, text, missing, b"", Images, {"text": 1}]
    for row in range(1, len(X)):
        with pytest.raises(ImageReadError, match=f"Image {row}") as error:
            read_images(X, [0, row])
        assert error.value.index == row
        assert error.value.path == (str(X[row]) if row < 4 else None)
        assert str(error.value.path or "") in str(error.value)
    read = read_images(X, on_error="return")
    assert isinstance(read[0], Image.Image)
    assert [image.index for image in read[1:]] == [1, 2, 3, 4, 5, 6]
    assert str(pickle.loads(pickle.dumps(read[1]))) == str(read[1])  # crosses processes


def test_a_failing_dataset_names_the_row(pixels):
    class Failing(Images):
        def __getitem__(self, index):
            if index == 2:
                raise RuntimeError("disk on fire")
            return super().__getitem__(index)

    with pytest.raises(ImageReadError, match="Image 2 cannot be read: RuntimeError: disk on fire"):
        read_images(Failing(list(pixels)))


def test_keys_change_with_the_content(pixels):
    changed = pixels.copy()
    changed[1, 0, 0, 0] ^= 1
    for make in (np.asarray, list, lambda X: [Image.fromarray(x) for x in X]):
        before, after = image_keys(make(pixels)), image_keys(make(changed))
        assert [a == b for a, b in zip(before, after)] == [True, False, True]
        assert len(set(before)) == 3
        assert image_keys(make(pixels), [2, 0]) == [before[2], before[0]]
    # the same bytes of another shape or type are another image
    flat = pixels[:1].reshape(1, 7, 5, 3)
    assert image_keys(flat) != image_keys(pixels[:1])
    assert image_keys(pixels[:1].view(np.int8)) != image_keys(pixels[:1])


def test_keys_of_files_change_with_the_file(pixels, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(pixels[0]))
    (before,) = image_keys([path])
    assert image_keys([str(path)]) == [before]
    os.utime(path, ns=(1, 1))
    assert image_keys([path]) != [before]
    assert image_keys([tmp_path / "missing.png"]) == [None]


def test_ready_arrays_are_not_copied(pixels, tmp_path):
    np.save(tmp_path / "x.npy", pixels)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for X in (pixels, mapped, pixels[..., 0], pixels[..., :1]):
        result = as_image_array(X)
        assert np.shares_memory(result, X)
        assert result.shape == (3, 5, 7, 3 if X.shape[3:] == (3,) else 1)


def test_resizing(pixels):
    X = np.zeros((2, 8, 8), dtype=np.uint8)
    X[:, :, 4:] = 200
    small = as_image_array(X, image_size=(2, 4))
    assert small.shape == (2, 2, 4, 1)
    assert small[0, :, 0, 0].tolist() == [0, 0]
    assert small[0, :, 3, 0].tolist() == [200, 200]
    mixed = [pixels[0], pixels[1][:3]]
    with pytest.raises(ValueError, match=r"Image 1 has height and width \(3, 7\), image 0 has"):
        as_image_array(mixed)
    assert as_image_array(mixed, image_size=(4, 4), channels=1).shape == (2, 4, 4, 1)


def test_many_images_keep_their_order():
    X = [np.full((2, 2), i, dtype=np.uint8) for i in range(200)]
    assert as_image_array(X, n_jobs=4)[:, 0, 0, 0].tolist() == list(range(200))


def test_changes_to_a_copy_on_write_map_survive(pixels, tmp_path):
    np.save(tmp_path / "x.npy", pixels)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="c")
    mapped[0] = 9
    assert (fetch_samples(mapped, range(1)) == 9).all()
    assert (fetch_samples(mapped, range(1)) == 9).all()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pages_of_a_memory_map_are_given_back(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.ones((64, 256, 256), dtype=np.uint8))
    mapped = np.load(path, mmap_mode="r")

    mapped.sum()
    before = rss_of(path)
    assert before > 3000
    fetch_samples(mapped[1:], range(4))
    assert rss_of(path) < 500
    np.testing.assert_array_equal(mapped[:2], 1)


def rss_of(path):
    """Resident kB of the mappings of a file."""
    total, inside = 0, False
    with open("/proc/self/smaps") as file:
        for line in file:
            first = line.split(maxsplit=1)[0]
            if not first.endswith(":"):
                inside = line.rstrip().endswith(str(path))
            elif inside and first == "Rss:":
                total += int(line.split()[1])
    return total


def test_types_that_are_no_pixels():
    with pytest.raises(ValueError, match="dtype complex64 are not understood; use uint8 or float"):
        to_uint8(np.zeros((1, 2, 2, 3), dtype=np.complex64))


def test_a_damaged_pil_image_has_no_key(pixels):
    whole = png(pixels[0])
    images = [Image.open(io.BytesIO(whole)), Image.open(io.BytesIO(whole[:60]))]
    assert [sample_key(image) is None for image in images] == [False, True]
