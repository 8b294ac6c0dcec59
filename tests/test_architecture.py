"""Short modules, no circle of subpackages, private imports of others in one place."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import sklearn_npll

PACKAGE = Path(sklearn_npll.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 500
OTHERS = ("sklearn", "skorch", "open_clip")


def name_of(path):
    """Dotted name of a file below the package's parent."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_on_load(tree):
    """Import statements that run when a module is loaded: all outside functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from imports_on_load(node)


def imported_names(node, package):
    """Dotted names that an import statement in a module of a package asks for."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    base = ".".join([*above, *([node.module] if node.module else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def package_of(path):
    name = name_of(path)
    return name if path.stem == "__init__" else name.rpartition(".")[0]


def room_of(name):
    """Subpackage or module of the top level that a dotted name is in; None for other packages."""
    parts = name.split(".")
    return parts[1] if parts[0] == "sklearn_npll" and len(parts) > 1 else None


def find_circle(imports):
    """Return the rooms of a circle of imports, or None; `imports` maps a room to those it needs."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def private_imports(tree, package="sklearn_npll"):
    """Names of other packages with an underscore that a module imports, even within functions."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for name in imported_names(node, package):
                top, *rest = name.split(".")
                if top in OTHERS and any(part.startswith("_") for part in rest):
                    found.append(name)
    return found


def test_modules_are_short():
    lengths = {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in MODULES
    }
    long = {name for name, length in lengths.items() if length > MAX_LINES}
    assert not long, f"split by responsibility: {sorted(long)}"


def test_modules_say_what_they_do():
    silent = [name_of(path) for path in MODULES if not ast.get_docstring(_parse(path))]
    assert not silent


def test_no_circle_of_subpackages():
    imports = {}
    for path in MODULES:
        room = room_of(name_of(path))
        for node in imports_on_load(_parse(path)):
            for other in map(room_of, imported_names(node, package_of(path))):
                if room and other and other != room:
                    imports.setdefault(room, set()).add(other)
    # The walk has found what is known to be there.
    assert "_neural" in imports["coreg"]
    assert "_images" in imports["annotators"]
    circle = find_circle(imports)
    assert circle is None, f"imports go round: {' -> '.join(circle)}"


def test_private_names_of_others_only_in_compat():
    found = {name_of(path): private_imports(_parse(path)) for path in MODULES}
    assert found.pop("sklearn_npll._compat")
    assert not {name: names for name, names in found.items() if names}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from sklearn.utils._param_validation import Interval", 1),
        ("from sklearn.base import _fit_context, clone", 1),
        ("def f():\n    import skorch._version", 1),
        ("from sklearn.base import clone", 0),
        ("from .._compat import Interval", 0),
    ],
)
def test_private_imports(source, expected):
    assert len(private_imports(ast.parse(source), "sklearn_npll.coreg")) == expected


def test_imports_on_load_are_those_outside_functions():
    source = "import a\nif 1:\n    import b\nclass C:\n    import c\n    def f():\n        import d"
    names = [node.names[0].name for node in imports_on_load(ast.parse(source))]
    assert names == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from ..metrics import x", ["sklearn_npll.metrics.x"]),
        ("from .. import metrics", ["sklearn_npll.metrics"]),
        ("from ._net import x, y", ["sklearn_npll.coreg._net.x", "sklearn_npll.coreg._net.y"]),
        ("import sklearn_npll.plot", ["sklearn_npll.plot"]),
    ],
)
def test_imported_names(source, expected):
    assert imported_names(ast.parse(source).body[0], "sklearn_npll.coreg") == expected


def test_find_circle():
    assert find_circle({"a": {"b"}, "b": {"c"}}) is None
    assert set(find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


def _parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))
