"""Turn examples into notebooks and run them: ``make notebooks`` writes examples/notebooks/."""

import copy
import json
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from sphinx_gallery.gen_gallery import DEFAULT_GALLERY_CONF
from sphinx_gallery.notebook import jupyter_notebook
from sphinx_gallery.py_source_parser import split_code_and_text_blocks

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ["plot_candidate_rules", "plot_embeddings"]
LARGEST = 500_000  # bytes


def make_notebook(script, folder):
    """Convert a script, run the notebook in the script's folder, and write it."""
    _, blocks = split_code_and_text_blocks(str(script))
    cells = jupyter_notebook(blocks, copy.deepcopy(DEFAULT_GALLERY_CONF), str(script.parent))
    notebook = nbformat.reads(json.dumps(cells), as_version=4)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # else random, and another one in every run
    client = NotebookClient(notebook, timeout=600, record_timing=False)
    client.execute(cwd=str(script.parent))
    for cell in notebook.cells:
        if cell.cell_type == "code":  # without what the last call returns, such as a legend
            cell.outputs = [out for out in cell.outputs if out.output_type != "execute_result"]
    notebook.metadata.pop("language_info", None)  # the version of Python that ran it
    path = folder / f"{script.stem.removeprefix('plot_')}.ipynb"
    nbformat.write(notebook, path)
    if path.stat().st_size > LARGEST:
        raise SystemExit(f"{path} has {path.stat().st_size} bytes, more than {LARGEST}")
    print(f"wrote {path}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm's, without ipywidgets
    folder = EXAMPLES / "notebooks"
    folder.mkdir(exist_ok=True)
    for name in sys.argv[1:] or NAMES:
        make_notebook(EXAMPLES / f"{name}.py", folder)
