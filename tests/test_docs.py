"""The pages of the documentation: code in them compiles, and names in them exist."""

import ast
import importlib
import re
import textwrap
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.rst"))
BLOCK = re.compile(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", flags=re.M)


def read(page):
    return page.read_text(encoding="utf-8")


def code_blocks(page):
    return [textwrap.dedent(block) for block in BLOCK.findall(read(page))]


def imported_names(block):
    """(module, name) of everything that a block imports from this package."""
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "sklearn_npll":
            yield from ((node.module, alias.name) for alias in node.names)


def test_code_is_found_where_it_is():
    assert sum(len(code_blocks(page)) for page in PAGES) > 30
    names = [name for block in code_blocks(DOCS / "learn.rst") for name in imported_names(block)]
    assert ("sklearn_npll", "CoRegClassifier") in names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_compiles_and_imports_what_there_is(page):
    for block in code_blocks(page):
        for module, name in imported_names(block):
            assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"


def test_terms_are_in_the_glossary():
    terms = set(re.findall(r"^   (\w.*)$", read(DOCS / "glossary.rst"), flags=re.M))
    used = re.findall(r":term:`(?:[^`<]*<)?([^`>]+)>?`", "".join(map(read, PAGES)))
    assert len(used) > 10
    assert {" ".join(term.split()) for term in used} <= terms


def test_no_page_has_the_name_of_one_that_sphinx_makes():
    assert {page.stem for page in PAGES}.isdisjoint({"search", "genindex", "modindex"})
