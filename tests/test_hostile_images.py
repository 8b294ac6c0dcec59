"""Images that are large, odd, mislabelled or no images at all."""

import io
import os
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from fakes import ColourVLM, write_tiny_clip
from numpy.testing import assert_array_equal
from PIL import Image

from sklearn_npll import VLMPartialAnnotator
from sklearn_npll._images import ImageReadError, read_images
from sklearn_npll.annotators._open_clip import load_open_clip
from sklearn_npll.datasets import load_image_folder

PIXELS = np.random.default_rng(0).integers(0, 256, size=(6, 9, 3), dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width, height, data=b""):
    """A PNG of one bit a pixel, which may be less than it says."""

    def chunk(name, content):
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def both_ways(content, path):
    """The same image as bytes and as a file."""
    path.write_bytes(content)
    return content, path


def reason(sample):
    """Why a sample cannot be read, in time and without much memory."""
    tracemalloc.start()
    (error,) = read_images([sample], on_error="return")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(error, ImageReadError)
    assert peak < 50e6
    return error.reason


# Size


@pytest.mark.parametrize(
    "content, message",
    [
        (png(50_000, 50_000), "could be decompression bomb"),
        # 12,000 x 12,000 pixels in 18 kB, which Pillow by itself would read, with a warning
        (png(12_000, 12_000, bytes(1501 * 12_000)), r"144000000|12000 x 12000 .*MAX_IMAGE_PIXELS"),
        (png(0, 5), "."),
        (png(5, 0), "."),
    ],
    ids=["announced", "inflated", "no width", "no height"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs(content, message, tmp_path):
    assert len(content) < 100_000
    for sample in both_ways(content, tmp_path / "bomb.png"):
        with pytest.raises(ImageReadError, match=message):
            raise ImageReadError(0, None, reason(sample))


def test_the_limit_is_pillows(monkeypatch):
    image = Image.new("RGB", (40, 30))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1199)
    for sample in (image, image.copy()):
        assert reason(sample).endswith("raise PIL.Image.MAX_IMAGE_PIXELS, which is 1199")
    for limit in (1200, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert read_images([image])[0].size == (40, 30)


def test_images_without_pixels(tmp_path):
    for sample in (Image.new("RGB", (0, 5)), Image.new("L", (5, 0)), np.zeros((0, 5, 3))):
        with pytest.raises(ImageReadError, match="Image 1 .*(no pixels|has shape)"):
            read_images([PIXELS, sample])


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("shape", [(30_000, 1), (1, 30_000)])
def test_long_images(resize_mode, shape, tmp_path):
    """Resized until they are 32 pixels wide they would take 92 MB each, and with "longest" none."""
    encoder = load_open_clip(write_tiny_clip(tmp_path, resize_mode=resize_mode))
    rows = np.zeros((1, *shape, 3), np.uint8)
    rows[:, 14_000:16_000], rows[:, :, 14_000:16_000] = 255, 255  # the middle is white
    of_pil = encoder.prepare([Image.fromarray(rows[0])])
    assert of_pil.shape == (1, 3, 32, 32)
    if resize_mode != "longest":
        of_array = encoder.prepare(rows)
        assert of_array.shape == (1, 3, 32, 32)
        if resize_mode == "shortest":
            assert (of_array == 255).all()
            assert of_pil.min() == pytest.approx((1 - 0.5) / 0.3)  # the mean and std of the first


def test_shapes_up_to_32_to_1_are_resized_as_by_open_clip(tmp_path):
    encoder = load_open_clip(write_tiny_clip(tmp_path))
    image = Image.fromarray(np.tile(PIXELS, (2, 40, 1))[:12])  # 12 x 360 pixels
    assert_array_equal(encoder.prepare([image])[0], encoder.preprocess(image))


ONE_AT_A_TIME = """
import sys
from sklearn_npll import VLMPartialAnnotator
from sklearn_npll._images import _reading
from sklearn_npll.annotators import _encoding
from test_fuzzed_images import peak_memory

_reading.n_reading_threads = _encoding.n_reading_threads = lambda samples: 1  # each has a photo
annotator = VLMPartialAnnotator(["cat", "dog"], templates="simple")
peaks = []
for n in (1, 16):
    annotator.fit_transform(sys.argv[1:] * n)
    _reading.as_image_array(sys.argv[1:] * n, image_size=(8, 8))
    peaks.append(peak_memory())
print(peaks[1] - peaks[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux does")
def test_one_photo_at_a_time(tmp_path):
    """16 photos of 16 MB each, or 12 without padding, are not in memory together."""
    (tmp_path / "photo.png").write_bytes(png(2000, 2000, bytes(251 * 2000)))
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    code = [sys.executable, "-c", ONE_AT_A_TIME, tmp_path / "photo.png"]
    env = {**os.environ, "PYTHONPATH": path}
    run = subprocess.run(code, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 8 * 12


# Kind


def test_content_counts_not_the_name(tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")
    assert "cannot identify" in reason(tmp_path / "text.jpg")
    image = Image.fromarray(PIXELS)
    image.save(tmp_path / "png.jpg", "PNG")
    image.save(tmp_path / "no suffix", "PNG")
    for path in (tmp_path / "png.jpg", tmp_path / "no suffix"):
        assert_array_equal(read_images([path])[0], PIXELS)


def test_formats(tmp_path):
    image = Image.fromarray(PIXELS)
    frames = [Image.new("RGB", (3, 2), colour) for colour in ("red", "blue")]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    cmyk = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    deep = Image.fromarray(np.array([[0, 257, 65535]], np.uint16))
    samples = {
        "animation": (
            encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
            frames[0],
        ),
        "webp": (encoded(image, "WEBP", lossless=True), image),
        "tiff": (encoded(image, "TIFF"), image),
        "bmp": (encoded(image, "BMP"), image),
        "palette": (encoded(palette, transparency=0), [[[255, 255, 255], [40, 50, 60]]]),
        "cmyk": (encoded(cmyk, "TIFF"), np.full((2, 2, 3), [255, 0, 0])),
        "turned": (encoded(image.rotate(180), "TIFF", exif=exif), image),
        "deep": (encoded(deep), np.repeat([[0, 1, 255]], 3, 0).T[None]),
    }
    for name, (content, expected) in samples.items():
        for sample in both_ways(content, tmp_path / name):
            (read,) = read_images([sample])
            assert read.mode == "RGB"
            assert_array_equal(read, np.asarray(expected), err_msg=name)


def test_programs_are_not_run(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    def run(*args, **kwargs):
        raise AssertionError("Ghostscript was called")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    content = encoded(Image.fromarray(PIXELS), "EPS")
    for sample in both_ways(content, tmp_path / "cat.jpg"):
        assert "another program would have to draw EPS" in reason(sample)


def test_integers_of_an_unknown_depth():
    def read(values, kind=None):
        image = Image.fromarray(np.array([values], np.int32))
        assert image.mode == "I"
        image.format = kind
        return np.asarray(read_images([image], mode=None)[0])[0].tolist()

    assert read([0, 7, 255]) == [0, 7, 255]
    assert read([0, 257, 65535]) == [0, 1, 255]
    assert read([0, 128, 256]) == [0, 0, 1]
    for kind in ("PNG", "PPM"):  # whose 16 bits older Pillow reads as "I"
        assert read([0, 128, 255], kind) == [0, 0, 1]
    assert read([0, 7, 255], "TIFF") == [0, 7, 255]
    for values in ([-1, 0], [0, 65536]):
        with pytest.raises(ImageReadError, match="neither 8-bit nor 16-bit"):
            read(values)


# Files


def test_what_is_no_file(tmp_path):
    folder, loop, missing = (tmp_path / name for name in ("folder.jpg", "loop.jpg", "missing.jpg"))
    folder.mkdir()
    loop.symlink_to(loop)
    assert "no file, but a folder" in reason(folder)
    assert "OSError" in reason(loop)
    assert "FileNotFoundError" in reason(missing)
    assert "null" in reason("cat\0.jpg")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.jpg")
        done = []
        thread = threading.Thread(
            target=lambda: done.append(reason(tmp_path / "pipe.jpg")), daemon=True
        )
        thread.start()
        thread.join(10)
        assert done and "a pipe or a device" in done[0]
    if os.path.exists("/dev/zero"):
        assert "a pipe or a device" in reason("/dev/zero")


def test_unreadable_files(tmp_path, monkeypatch):
    path = tmp_path / "cat.png"
    path.write_bytes(encoded(Image.fromarray(PIXELS)))
    opened = Image.open

    def refuse(file):
        if file == path:
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file)

    monkeypatch.setattr(Image, "open", refuse)
    assert "PermissionError" in reason(path)


NAMES = ["line\nbreak.png", "Überraschung 猫 🐈.png", os.fsdecode(b"\xff\xfe.png"), "a'\"b.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="names that other systems do not allow")
def test_names_of_all_kinds(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in NAMES:
        Image.new("RGB", (2, 2), "red").save(os.fsencode(folder / name), "PNG")
    data = load_image_folder(folder).data
    assert sorted(os.path.basename(path) for path in data) == sorted(NAMES)
    vlm = ColourVLM()
    annotator = VLMPartialAnnotator(["red", "blue"], vlm=vlm, cache_dir=tmp_path / "cache")
    for _ in range(2):
        labels = annotator.fit_transform(data)
        assert (labels.classes[labels.votes] == "red").all()
    assert vlm.n_images == 4
    labels.save(tmp_path / "labels")
    assert labels.load(tmp_path / "labels").data == data
    for path in data:
        os.truncate(path, 20)
        with pytest.raises(ImageReadError) as error:
            read_images([path])
        assert str(error.value).isprintable() and error.value.path == path
        str(error.value).encode()


def test_links_in_circles(tmp_path):
    for name in ("cat/a/1.png", "cat/b/2.png", "dog/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for i in range(8):
        (tmp_path / f"cat/a/up{i}").symlink_to(tmp_path / "cat")
        (tmp_path / f"cat/b/over{i}").symlink_to(tmp_path / "cat/a")
        (tmp_path / f"dog/loop{i}.png").symlink_to(tmp_path / f"dog/loop{i}.png")
    (tmp_path / "dog/folder.png").mkdir()
    (tmp_path / "dog/of cats").symlink_to(tmp_path / "cat/b")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "dog/pipe.png")
    images = load_image_folder(tmp_path)
    names = [os.path.basename(path) for path in images.data]
    assert images.target.tolist() == [0, 0, 1, 1, 1]
    assert sorted(names[:2]) == ["1.png", "2.png"]
    assert sorted(names[2:]) == ["1.png", "2.png", "3.png"]  # a link to another class is followed
