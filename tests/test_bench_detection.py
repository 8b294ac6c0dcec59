"""The benchmark of the detectors: its noise, and a tiny run that is resumed."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import bench_detection as bench


def test_symmetric_noise():
    y = np.arange(20_000) % 5
    noisy = bench.symmetric_noise(y, 5, 0.4, np.random.default_rng(0))
    assert np.mean(noisy != y) == pytest.approx(0.4, abs=0.01)
    wrong = (noisy - y)[noisy != y] % 5
    assert np.bincount(wrong)[1:] / len(wrong) == pytest.approx([0.25] * 4, abs=0.02)


def test_instance_noise_depends_on_the_sample():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(10_000, 5)), np.arange(10_000) % 4
    X[1::2] = X[::2]  # pairs of the same features,
    y[1::2] = y[::2]  # and of the same class
    noisy = bench.instance_noise(X, y, 4, 0.4, rng)
    assert np.mean(noisy != y) == pytest.approx(0.4, abs=0.02)
    both = (noisy != y)[::2] & (noisy != y)[1::2]
    agree = np.mean(noisy[::2][both] == noisy[1::2][both])
    assert agree > 0.6  # where symmetric noise has a third


def load_tiny(seed, n_train, n_test):
    X, y = load_digits(n_class=4, return_X_y=True)
    rows = np.random.default_rng(seed).permutation(len(y))
    train, test = rows[:n_train], rows[-n_test:]
    scores = np.where(np.arange(4) == y[train, None], 0.7, 0.1)
    return bench.Data(X[train], y[train], X[test], y[test], 4, scores=scores)


def test_a_run_is_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [bench.__file__])
    monkeypatch.setitem(bench.DATA, "tiny", (load_tiny, bench.SYNTHETIC, 200, 100))
    monkeypatch.setitem(bench.DETECTORS, "absent", (None, "no_such_package"))
    path, lines = tmp_path / "detection.json", []
    options = ["--output", str(path), "--data", "tiny", "--seeds", "0"]
    options += ["--noise", "symmetric-0.4", "instance-0.2", "--detectors", "absent", "small loss"]
    rows = bench.run_all(bench.parse(options), lines.append)
    names = ["none", "oracle", "small loss"]
    assert [row["detector"] for row in rows] == names * 2
    none, oracle, small = rows[:3]
    assert none["precision"] == pytest.approx(1 - none["noise_rate"]) and none["recall"] == 1
    assert oracle["f1"] == oracle["auc"] == 1
    assert oracle["accuracy"] > 0.9 > none["accuracy"]
    assert small["f1"] > 0.85 and small["auc"] > 0.85 and small["accuracy"] > none["accuracy"]

    again = bench.run_all(bench.parse(options + ["label match"]), lines.append)
    assert [json.loads(line)["detector"] for line in lines[6:]] == ["label match"] * 2
    assert again[:6] == rows
    label_match = json.loads(path.read_text())["summary"][
        "tiny | symmetric-0.4 | logistic regression | label match"
    ]
    assert label_match["f1"]["mean"] == 1

    monkeypatch.setitem(bench.COREG, "max_epochs", 10)
    options = [*options[:6], "--noise", "symmetric-0.4", "--detectors", "label match", "--coreg"]
    mixture, divided = bench.run_all(bench.parse(options), lines.append)[-2:]
    assert (mixture["learner"], mixture["detector"]) == ("Co-Reg", "mixture")
    assert divided["f1"] == 1 and divided["accuracy"] > 0.8


def test_missing_data_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("SKLEARN_NPLL_DATA", raising=False)
    lines = []
    options = bench.parse(
        ["--data", "caltech", "--seeds", "0", "--output", str(tmp_path / "none.json")]
    )
    assert bench.run_all(options, lines.append) == []
    assert "caltech is left out" in lines[0] and len(lines) == 1
