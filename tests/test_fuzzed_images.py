"""Images of which bytes are changed: each is read, or is an ImageReadError, in time and memory."""

import io
import json
import os
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from sklearn_npll._images import ImageReadError, read_images

# Of one image, of which Pillow's limit is 89 million pixels, 4 bytes each.
SECONDS, MEGABYTES = 20, 1500


def seeds():
    """Valid images of all common formats, by name."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, size=(24, 20, 3), dtype=np.uint8)).resize((48, 40))
    grey, alpha = rgb.convert("L"), rgb.copy()
    alpha.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "described"
    frames = {"save_all": True, "append_images": [rgb.rotate(90)], "duration": 50}
    images = {
        "png": (rgb, "PNG", {"exif": exif}),
        "png alpha": (alpha, "PNG", {}),
        "png deep": (deep, "PNG", {}),
        "png palette": (rgb.quantize(16), "PNG", {"transparency": 3}),
        "jpeg": (rgb, "JPEG", {"exif": exif}),
        "jpeg progressive": (grey, "JPEG", {"progressive": True}),
        "jpeg cmyk": (rgb.convert("CMYK"), "JPEG", {}),
        "gif": (rgb, "GIF", frames),
        "bmp": (rgb, "BMP", {}),
        "bmp palette": (rgb.quantize(200), "BMP", {}),
        "tiff": (rgb, "TIFF", {"exif": exif}),
        "tiff deep": (deep, "TIFF", {}),
    }
    if features.check("libtiff"):
        images["tiff lzw"] = rgb, "TIFF", {"compression": "tiff_lzw"}
    if features.check("webp"):
        images["webp"] = rgb, "WEBP", {"exif": exif}
        images["webp lossless"] = alpha, "WEBP", {"lossless": True}
        images["webp animated"] = rgb, "WEBP", frames
    contents = {}
    for name, (image, kind, options) in images.items():
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        contents[name] = buffer.getvalue()
    return contents


def mutate(content, others, rng):
    """Change an image's bytes in one to four ways."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        # the head is where sizes and types are
        end = len(content) if rng.random() < 0.5 else min(len(content), 100)
        i, n = int(rng.integers(end)), int(rng.integers(1, 9))
        way = rng.integers(7)
        if way == 0:
            content[i] ^= 1 << rng.integers(8)
        elif way == 1:
            content[i : i + n] = rng.bytes(len(content[i : i + n]))
        elif way == 2:  # extreme numbers
            content[i : i + 4] = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"][n % 3]
        elif way == 3:
            del content[i : None if rng.random() < 0.5 else i + n]
        elif way == 4:
            content[i:i] = content[i : i + 10 * n]
        elif way == 5:
            content[i:i] = rng.bytes(n)
        else:
            other = others[rng.integers(len(others))]
            content[i : i + 10 * n] = other[i : i + 10 * n]
        if not content:
            return b""
    return bytes(content)


def fuzz(n, seed):
    """Read n changed images; returns what came of them, by name of the outcome."""
    rng, contents = np.random.default_rng(seed), seeds()
    names, originals = list(contents), list(contents.values())
    outcomes, slowest, before = Counter(), 0.0, peak_memory()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for i in range(n):
            content = mutate(originals[i % len(names)], originals, rng)
            start = time.process_time()
            (image,) = read_images([content], mode=None, on_error="return")
            slowest = max(slowest, time.process_time() - start)
            if isinstance(image, ImageReadError):
                str(image).encode()
                outcomes["error"] += 1
                continue
            pixels = np.asarray(image)
            assert pixels.dtype == np.uint8 and pixels.shape[2:] in ((), (3,)), image
            assert 0 < image.width * image.height <= Image.MAX_IMAGE_PIXELS
            outcomes["read"] += 1
    messages = Counter(str(w.message)[:60] for w in caught)
    return {
        **outcomes,
        "slowest": slowest,
        "megabytes": peak_memory() - before,
        "warnings": len(caught),
        "frequent": messages.most_common(5),
    }


def peak_memory():
    """Most MB this process had in memory; getrusage would begin with those of its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(peak) / 1e3


def test_seeds_are_read():
    for name, content in seeds().items():
        (image,) = read_images([content], mode=None)
        assert sorted(image.size) == [40, 48], name


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux does")
@pytest.mark.parametrize(
    "n, seed", [(300, 0), pytest.param(10_000, 1, marks=pytest.mark.slow)], ids=["300", "10000"]
)
def test_changed_images(n, seed):
    here = Path(__file__).parent
    code = f"import json, test_fuzzed_images as t; print(json.dumps(t.fuzz({n}, {seed})))"
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(  # a crash or a hang is that of the child
        [sys.executable, "-X", "faulthandler", "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60 + n / 5,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    print(result)
    assert result["read"] + result["error"] == n
    assert min(result["read"], result["error"]) > n / 10
    assert result["slowest"] < SECONDS
    assert result["megabytes"] < MEGABYTES
    assert result["warnings"] < n / 10
