"""The script that trains the shipped model, end to end on a few pairs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sklearn_npll import VLMPartialAnnotator

SCRIPT = Path(__file__).parents[1] / "tools" / "train_fashion_clip.py"


@pytest.mark.slow
def test_training_writes_a_model_that_the_annotator_loads(shared_data, tmp_path):
    data = shared_data / "fashion_products"
    common = [sys.executable, SCRIPT, "--data", data, "--limit", "512", "--epochs", "1"]
    subprocess.run([*common, "--out", tmp_path / "first"], check=True)
    tuning = ["--init", tmp_path / "first" / "epoch-01", "--package-templates"]
    tuning += ["--average-init", "0.5", "--out", tmp_path / "second"]
    subprocess.run([*common, *tuning], check=True)

    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    proba = []
    for folder in ("first", "second"):
        annotator = VLMPartialAnnotator(
            ["shirt", "bag", "shoe"], model=f"local-dir:{tmp_path / folder / 'epoch-01'}"
        )
        proba.append(annotator.fit(images).predict_proba(images))
        np.testing.assert_allclose(proba[-1].sum(axis=1), 1, rtol=1e-5)
    assert not np.allclose(*proba)
