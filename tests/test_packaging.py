"""Tests of the package as a whole: version, shipped files, docstrings."""

import importlib
import inspect
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import sklearn_npll

ROOT = Path(__file__).parents[1]
PACKAGE = Path(sklearn_npll.__file__).parent
MODULES = ["sklearn_npll"] + [
    f"sklearn_npll.{name}"
    for name in (
        "annotators",
        "baselines",
        "datasets",
        "detection",
        "hub",
        "metrics",
        "model_selection",
        "plot",
    )
]


def test_version_is_written_once():
    try:
        installed = metadata.version("sklearn-npll")
    except metadata.PackageNotFoundError:
        pytest.skip("the package is imported from its folder, not installed")
    assert installed == sklearn_npll.__version__
    assert not re.search(r"^version *=", (ROOT / "pyproject.toml").read_text(), flags=re.M)


def test_importing_the_package_imports_nothing_heavy():
    program = (
        "import sys, sklearn_npll; assert not {'torch', 'sklearn', 'numpy'} & set(sys.modules); "
        "from sklearn_npll import PartialLabels, metrics, model_selection, datasets, plot; "
        "assert not {'torch', 'open_clip', 'skorch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=120)


def test_the_package_lists_what_it_has():
    assert set(sklearn_npll.__all__) <= set(dir(sklearn_npll))
    for name in sklearn_npll.__all__:
        assert getattr(sklearn_npll, name).__name__.split(".")[-1] == name
    with pytest.raises(AttributeError, match="no attribute 'CoReg'"):
        _ = sklearn_npll.CoReg


def test_changelog_begins_with_this_version():
    versions = re.findall(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)
    # 0.1.0.dev0 is on its way to 0.1.0.
    assert re.sub(r"\.?(dev|a|b|rc)\d+$", "", sklearn_npll.__version__) == versions[0]


def test_minimum_versions_agree():
    bounds = re.findall(r'"([\w-]+)>=([\d.]+)', (ROOT / "pyproject.toml").read_text())
    pins = dict(
        re.findall(r"^([\w-]+)==(\S+)", (ROOT / "constraints/minimum.txt").read_text(), flags=re.M)
    )
    tested = {name: bound for name, bound in bounds if name in pins}
    assert {"torch", "scikit-learn", "skorch", "open_clip_torch", "numpy"} <= tested.keys()
    for name, bound in tested.items():
        assert f"{pins[name]}.".startswith(f"{bound}."), name


def folder_size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_shipped_files_are_small_and_licensed():
    assert folder_size(PACKAGE / "datasets" / "data") <= 6e6
    assert folder_size(PACKAGE / "models") <= 12 * 2**20 + 1e5
    for folder in (PACKAGE / "datasets" / "data").iterdir():
        assert (folder / "LICENSE").is_file()
    for folder in (PACKAGE / "models").iterdir():
        assert "icen" in (folder / "README.md").read_text(), "the model card states no licence"


def test_no_path_of_one_machine():
    # Put together here, so that this file passes.
    foreign = re.compile("|".join(f"/{name}/" for name in ("work", "root", "home")))
    folders = ["sklearn_npll", "tests", "docs", "examples", "benchmarks", "tools", ".ci"]
    files = [path for name in folders for path in (ROOT / name).rglob("*")]
    made = {"generated", "auto_examples", "__pycache__"}
    suffixes = {".py", ".rst", ".md", ".json", ".txt", ".toml", ".cff", ".csv", ""}
    for path in [*files, *ROOT.iterdir()]:
        if path.name == ".git":  # of a worktree, where it is a file
            continue
        if path.is_file() and path.suffix in suffixes and made.isdisjoint(path.parts):
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                assert not foreign.search(line), f"{path}, line {number}: {line}"


def test_method_page_names_functions_that_exist():
    names = re.findall(r"``(_\w+)\.(\w+)``", (ROOT / "docs" / "method.rst").read_text())
    assert len(names) > 10
    for module, function in names:
        assert hasattr(importlib.import_module(f"sklearn_npll.coreg.{module}"), function)


def public_objects():
    for name in MODULES:
        module = importlib.import_module(name)
        for attribute in module.__all__:
            value = getattr(module, attribute)
            if callable(value):
                yield f"{name}.{attribute}", value
                if inspect.isclass(value):
                    for method, function in inspect.getmembers(value, inspect.isroutine):
                        module_name = getattr(function, "__module__", None) or ""
                        if not method.startswith("_") and "sklearn_npll" in module_name:
                            yield f"{name}.{attribute}.{method}", function


@pytest.mark.parametrize(
    "value", [pytest.param(value, id=name) for name, value in public_objects()]
)
def test_docstring_names_each_parameter(value):
    doc = inspect.getdoc(value)
    assert doc, "no docstring"
    documented = ",".join(re.findall(r"^\*{0,2}(\w[\w, *]*?) : ", doc, flags=re.M))
    documented = {name.strip(" *") for name in documented.split(",")}
    parameters = inspect.signature(value).parameters
    assert set(parameters) - {"self", "cls"} <= documented
