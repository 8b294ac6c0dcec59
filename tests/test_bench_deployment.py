"""The benchmark of deployment: its counting, and a tiny run."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import bench_deployment as bench


def test_multiply_adds():
    network = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(60, 7))
    # 4 x 5 pixels with 3 x 3 x 2 weights for each of 3 channels, then 60 x 7
    expected = 4 * 5 * 18 * 3 + 60 * 7
    assert bench.multiply_adds(network, torch.zeros(1, 2, 4, 5)) == expected
    assert bench.multiply_adds(network, torch.zeros(3, 2, 4, 5)) == 3 * expected


def test_transformer_formulas_agree_with_counting():
    tokens, width = 5, 8
    block = nn.TransformerEncoderLayer(width, 2, 4 * width, batch_first=True)
    assert bench.transformer_parameters(width, 3) == 3 * bench.parameters(block)
    counted = bench.multiply_adds(block, torch.zeros(1, tokens, width))
    assert bench.transformer_macs(tokens, width, 3) == 3 * counted


def test_vit_b_32():
    from open_clip.transformer import VisionTransformer

    counts = bench.vit_b_32()
    assert counts["parameters"] == 151_277_313  # as OpenAI published it
    with torch.device("meta"):
        tower = VisionTransformer(224, 32, 768, 12, 12, 4.0, output_dim=512)
        assert bench.parameters(tower) == counts["image_tower_parameters"]
        assert bench.multiply_adds(tower, torch.zeros(1, 3, 224, 224)) == counts["image_tower_macs"]


def test_times_are_of_the_calls():
    seen = []
    contenders = [bench.Contender(n, seen.append, np.arange(10), 0, None) for n in "ab"]
    times = bench.time_calls(contenders, 4, rounds=2, calls=3)
    assert [len(x) for x in seen] == [4] * 16  # in each round one more that is not timed
    assert times.keys() == set("ab")
    assert 0 <= times["a"]["ms_min"] <= times["a"]["ms"] < 1000


def check_run(rows, names):
    rows = {row["name"]: row for row in rows}
    assert names <= rows.keys()
    for name, row in rows.items():
        assert row["one"]["ms"] > 0 and row["images_per_second"] > 0, name
        if name != "VLM, encode_image":
            assert row["accuracy"] > 0.5 or name.startswith("student"), name
    module, both = (
        rows[f"student (default), {part}, module"] for part in ("average", "both networks")
    )
    assert 4 * module["parameters"] < module["bytes"] < 4 * module["parameters"] + 40_000
    assert both["parameters"] == 2 * module["parameters"]
    return rows


@pytest.mark.parametrize(
    "runtime", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["torch", "onnx"]
)
def test_quick_run(runtime, tmp_path, monkeypatch):
    if runtime:
        for name in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(name)
    monkeypatch.setattr(bench, "HAS_RUNTIME", runtime)
    threads = torch.get_num_threads()
    try:
        options = bench.parse(["--quick", "--threads", "1", "--folder", str(tmp_path)])
        result = bench.run(options)
    finally:
        torch.set_num_threads(threads)
    rows = check_run(result["rows"], {"VLM, predict_proba", "VLM, encode_image"})
    # the annotator taken apart says what the annotator says
    assert rows["VLM, image tower and class embeddings"]["agreement"] == 1
    for part in ("average", "both networks"):
        assert rows[f"student (default), {part}, predict_proba"]["agreement"] == 1
    assert ("student (default), average, ONNX" in rows) == runtime
    if runtime:
        module, fp32, int8 = (
            rows[f"student (default), average, {form}"]
            for form in ("module", "ONNX", "ONNX, int8 static")
        )
        assert fp32["agreement"] == 1 and fp32["bytes"] > module["parameters"] * 4
        assert int8["bytes"] < fp32["bytes"] / 2
    assert (tmp_path / "default-200-1.joblib").exists()
    counted = result["arithmetic"]["networks"]["default student, 28 x 28 grey"]
    assert counted["macs"] == result["macs"]["student (default), average"]
