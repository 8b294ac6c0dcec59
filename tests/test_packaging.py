"""Tests of the package as a whole: version, shipped files, docstrings."""

import importlib
import inspect
import re
import subprocess
import sys
import zipfile
from dataclasses import is_dataclass
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


def test_the_wheel_holds_what_is_not_code(tmp_path, monkeypatch):
    build = pytest.importorskip("hatchling.build")
    monkeypatch.chdir(ROOT)
    with zipfile.ZipFile(tmp_path / build.build_wheel(str(tmp_path))) as wheel:
        names = wheel.namelist()
    for name in (
        "py.typed",
        "models/fashion-clip/open_clip_model.safetensors",
        "models/fashion-clip/README.md",
        "datasets/data/fashion-mnist/subset.npz.xz",
        "datasets/data/fashion-mnist/LICENSE",
        "_report/style.css",
    ):
        assert f"sklearn_npll/{name}" in names
    top = {name.partition("/")[0] for name in names}
    assert top == {"sklearn_npll", f"sklearn_npll-{sklearn_npll.__version__}.dist-info"}


def test_show_versions(capsys):
    sklearn_npll.show_versions()
    lines = capsys.readouterr().out.splitlines()
    shown = {line[:16].strip(): line[17:] for line in lines}
    assert shown["sklearn-npll"] == sklearn_npll.__version__
    assert shown["torch"] == metadata.version("torch")
    assert shown["python"] == ".".join(map(str, sys.version_info[:3]))


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


def missing_hints(function):
    signature = inspect.signature(function)
    names = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
    if signature.return_annotation is signature.empty:
        names.append("return")
    return set(names) - {"self", "cls"}


def test_public_functions_have_type_hints():
    missing = {}
    for name, value in public_objects():
        function = vars(value).get("__init__") if inspect.isclass(value) else value
        # there is none if it is inherited; and of a dataclass the fields have the hints
        if function is not None and not is_dataclass(value) and missing_hints(function):
            missing[name] = missing_hints(function)
    assert not missing


USER = """
from sklearn_npll import CoRegClassifier, PartialLabels, VLMPartialAnnotator

labels = PartialLabels.from_sets([["cat"], ["cat", "dog"]])
reveal_type(labels)
reveal_type(VLMPartialAnnotator(["cat"]).fit([]).transform([]))
reveal_type(CoRegClassifier(max_epochs=3).fit(labels).predict(labels))
CoRegClassifier(max_epochs="three")
labels.to_frame(vote=True)
VLMPartialAnnotator(["cat"], modell="ViT-B-32")
"""


@pytest.mark.slow
def test_type_checkers_use_the_hints(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(USER)
    command = [sys.executable, "-m", "mypy", "--ignore-missing-imports", "user.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    told = dict.fromkeys(range(5, 11), "")
    for line in result.stdout.splitlines()[:-1]:
        told[int(line.split(":")[1])] += line
    assert told[5].endswith('PartialLabels"') and told[6].endswith('PartialLabels"')
    assert "numpy.ndarray" in told[7]
    for row, name in ((8, "max_epochs"), (9, "vote"), (10, "modell")):
        assert "error" in told[row] and name in told[row], result.stdout + result.stderr
