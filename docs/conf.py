"""Sphinx configuration; built by `make docs`."""

import re
import sys
from pathlib import Path

from sphinx_gallery.sorting import ExplicitOrder

import sklearn_npll

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_extensions")]

project = "sklearn_npll"
author = "The sklearn_npll developers"
copyright = "2026, the sklearn_npll developers"
version = release = sklearn_npll.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "mathml",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_templates", "sg_execution_times.rst", "auto_examples/sg_execution_times.rst"]
templates_path = ["_templates"]
html_theme = "pydata_sphinx_theme"
html_title = f"sklearn_npll {version}"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_sidebars = {"index": []}
html_theme_options = {
    "logo": {"text": "sklearn_npll"},
    "navigation_with_keys": False,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
}
copybutton_exclude = ".linenos, .gp, .go"  # neither prompts nor output

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say more
autosummary_imported_members = True
numpydoc_show_class_members = False

# Methods that scikit-learn adds, whose texts refer to its own site.
autodoc_default_options = {
    "exclude-members": (
        "get_metadata_routing, set_fit_request, set_score_request, set_transform_request"
    ),
}

sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "examples"),
    "gallery_dirs": "auto_examples",
    # The quickstart trains for minutes, and is shown but not run.
    "filename_pattern": r"/plot_(?!quickstart)",
    "ignore_pattern": r"/notebooks/",
    "abort_on_example_error": True,
    "within_subsection_order": ExplicitOrder(
        [
            "plot_quickstart.py",
            "plot_candidate_rules.py",
            "plot_annotators.py",
            "plot_few_shot.py",
            "plot_grid_search.py",
            "plot_embeddings.py",
            "plot_rivals.py",
            "plot_noise_detection.py",
            "plot_export_labels.py",
            "plot_onnx.py",
            "plot_chat_annotator.py",
            "plot_own_annotator.py",
            "plot_own_network.py",
            "*",
        ]
    ),
    "capture_repr": (),  # not what the last call of a cell returns, such as a legend
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_memory": False,
}


def translate_changelog(app, path, docname, content):
    """Turn the Markdown that CHANGELOG.md is made of into reStructuredText."""
    if path.name != "CHANGELOG.md":
        return
    text = re.sub(r"(?m)^# .*\n", "", content[0])
    text = re.sub(r"(?m)^## (.*)$", lambda match: f"{match[1]}\n{'-' * len(match[1])}", text)
    content[0] = re.sub(r"(``.+?``)|`(.+?)`|\[(.+?)\]\((\S+?)\)", _translate_span, text)


def _translate_span(match):
    literal, code, words, address = match.groups()
    return literal or (f"``{code}``" if code else f"`{words} <{address}>`__")


def setup(app):
    app.connect("include-read", translate_changelog)
