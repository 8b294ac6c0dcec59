"""The how-to of deployment runs, and every form says what the classifier says."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from fakes import OLD_TORCH
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_npll import CoRegClassifier

TEXT = (Path(__file__).parents[1] / "docs" / "deployment.rst").read_text()
BLOCKS = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", TEXT, flags=re.M)


@pytest.fixture
def run_block(tmp_path, monkeypatch):
    """Return a function that runs a block of the page, the names it has, and what is expected."""
    assert len(BLOCKS) == TEXT.count("code-block:: python") == 3
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    images = rng.integers(0, 90, (120, 12, 10), dtype=np.uint8)
    images[np.arange(120), 4 * y] += 150  # a bright row tells the class
    schedule = {"max_epochs": 10, "warm_up": 10, "lr": 0.1, "batch_size": 16}
    clf = CoRegClassifier(deploy="single", random_state=0, **schedule)
    expected = clf.fit(images, y).predict_proba(images)
    assert clf.score(images, y) > 0.9
    monkeypatch.chdir(tmp_path)
    names = {"clf": clf.set_params(deploy="ensemble"), "images": images}
    return lambda i: exec(textwrap.dedent(BLOCKS[i]), names), names, expected


@pytest.mark.skipif(OLD_TORCH, reason="exports of PyTorch before 2.5 are not what the page shows")
def test_export(run_block):
    run, names, expected = run_block
    run(0)
    assert_allclose(names["proba"], expected, atol=1e-5)


def test_onnx_and_int8(run_block, tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    run, names, expected = run_block
    run(1)
    assert_allclose(names["proba"], expected, atol=1e-5)
    assert_array_equal(names["predicted"], names["clf"].classes_[expected.argmax(1)])
    run(2)
    session = names["onnxruntime"].InferenceSession("clf-int8.onnx")
    proba = session.run(None, {"input": names["x"]})[0]
    assert 1e-4 < np.abs(proba - expected).max() < 0.5  # it is rounded,
    assert np.mean(proba.argmax(1) == expected.argmax(1)) > 0.9  # but not much
    sizes = [(tmp_path / name).stat().st_size for name in ("clf-int8.onnx", "clf.onnx")]
    assert sizes[0] < sizes[1] / 2
