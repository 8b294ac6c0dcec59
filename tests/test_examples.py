"""The examples: readable by sphinx-gallery, and running."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
SLOWEST = "plot_quickstart"  # what `make quickstart` runs


def name_of(path):
    return path.stem


def test_there_are_examples():
    assert len(EXAMPLES) > 10
    assert len(NOTEBOOKS) >= 2
    assert all(path.stem.startswith("plot_") for path in EXAMPLES)  # else the gallery runs none


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_example_compiles_and_has_a_title(path):
    source = path.read_text(encoding="utf-8")
    compile(source, path, "exec")
    title, underline, blank, *text = ast.get_docstring(ast.parse(source)).splitlines()
    assert underline == "=" * len(title)
    assert not blank and text


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_example_ends_with_a_picture(path):
    *_, look = path.read_text(encoding="utf-8").partition("# Look\n# ----\n")
    assert "ax" in look


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_notebook_is_that_of_its_script_and_has_run(path):
    script = (ROOT / "examples" / f"plot_{path.stem}.py").read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert all("".join(cell["source"]).strip() in script for cell in code)
    assert script.count("\n# %%\n") + 1 == sum(cell["cell_type"] == "markdown" for cell in cells)
    assert all(cell["execution_count"] for cell in code)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert path.stat().st_size < 500_000


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in EXAMPLES if p.stem != SLOWEST], ids=name_of)
def test_example_runs(path, tmp_path):
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(path)]
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
    )
    assert run.returncode == 0, run.stderr
    assert not list(tmp_path.iterdir())  # what an example writes goes to a temporary folder
