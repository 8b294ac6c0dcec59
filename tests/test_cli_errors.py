"""The command line: tables of other kinds, what goes wrong, and the program itself."""

import importlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import cli_runs
import pytest
from cli_runs import IMAGES, copy_labels, error_of, run
from PIL import Image

from sklearn_npll import PartialLabels
from sklearn_npll.cli import main
from sklearn_npll.cli._main import make_parser

# Fixtures, which pytest finds by their names here.
photos = cli_runs.photos
classes = cli_runs.classes
annotated = cli_runs.annotated

ROOT = Path(__file__).parents[1]


# tables


def test_parquet(photos, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    args = ("--classes", "bag,shoe", "--output", tmp_path, "--quiet")
    assert run("annotate", photos, *args, "--table", "parquet") == 0
    assert run("annotate", photos, *args, "--table", "json") == 0
    rows = parquet.read_table(tmp_path / "labels.parquet").to_pylist()
    assert rows == json.loads((tmp_path / "labels.json").read_text())


def test_parquet_without_pyarrow(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    args = ("--classes", "bag,shoe", "--output", tmp_path / "out", "--table", "parquet")
    line = error_of(capsys, "annotate", photos, *args)
    assert "Parquet files need pyarrow: pip install pyarrow" in line
    assert not (tmp_path / "out").exists()  # said before any work


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names must be text there")
def test_file_names_that_are_no_text(tmp_path, capsys):
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    name = b"caf\xe9.png"
    with open(bytes(folder) + b"/" + name, "wb") as file:
        Image.fromarray(IMAGES[0]).save(file, "PNG")
    assert run("annotate", folder, "--classes", "bag,shoe", "--output", out, "--quiet") == 0
    assert (out / "labels.csv").read_bytes().splitlines()[1].startswith(name)
    assert run("report", out, "--output", f"{out}/caf\udce9.html") == 0
    assert r"caf\udce9.html" in capsys.readouterr().out
    assert run("report", out, "--quiet") == 0
    assert r"caf\udce9.png" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_that_cannot_show_a_path(encoding, annotated, tmp_path, monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding))
    page = tmp_path / "naïve 写真.html"
    assert run("report", annotated, "--output", page) == 0
    name = page.name.encode(encoding, "backslashreplace")
    assert name in shown.getvalue() and rb"\u5199" in name


# what goes wrong


def test_a_fit_that_did_not_finish(annotated, tmp_path, monkeypatch, capsys):
    folder = copy_labels(annotated, tmp_path)
    args = ("fit", folder, "--epochs", 1, "--model-file", tmp_path / "m.joblib", "--quiet")
    assert run(*args) == 0
    save = PartialLabels.save

    def save_and_die(labels, path):
        save(labels, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PartialLabels, "save", save_and_die)
        assert run(*args) == 130
    capsys.readouterr()
    assert run("report", folder, "--quiet") == 0
    assert "learned.npz is left out, as fit did not finish; run it again" in capsys.readouterr().err
    assert "What the learner changed" not in (folder / "report.html").read_text(encoding="utf-8")


def test_errors_are_one_line(tmp_path, photos, annotated, capsys):
    out = ("--output", tmp_path / "out", "--quiet")
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong").write_bytes(b"caf\xe9\n")
    two = ("--classes", "bag,shoe")
    cases = [
        (("annotate", tmp_path / "empty", *two), "empty holds no file ending in .bmp"),
        (("annotate", tmp_path / "none", *two), "none is not a folder."),
        (("annotate", photos, "--classes", "names.txt"), "There is no file 'names.txt'. Give"),
        (("annotate", photos, "--classes", tmp_path / "wrong"), "is no text in UTF-8"),
        (("annotate", photos, "--classes", "bag,bag"), "the class 'bag' is given twice"),
        (("annotate", photos, "--classes", "a|b,c"), "'a|b' has a '|'"),
        (("annotate", photos, "--classes", '"a, b",c'), "'a, b' has a comma but no colon"),
        (("annotate", photos, "--classes", "bag,"), "nothing to choose from"),
        (
            ("annotate", photos, *two, "--rule-value", 3),
            "rule='union' has no argument; got rule_value=3",
        ),
        (("annotate", photos, *two, "--templates", "coreg"), "Did you mean 'coreg-27'?"),
        (("annotate", photos, *two, "--model", "no-such-model"), "no-such-model"),
        (("report", tmp_path / "empty"), "Give the folder that sklearn-npll annotate"),
    ]
    for args, message in cases:
        assert message in error_of(capsys, *args, *out)
        assert not (tmp_path / "out" / "labels.npz").exists()
    assert "holds no labels.npz" in error_of(capsys, "fit", tmp_path / "none")
    line = error_of(capsys, "fit", annotated, "--model-file", "m.pkl")
    assert "must end in .skops (safe to share) or .joblib" in line


@pytest.mark.parametrize(
    "line, message",
    [
        ("bag, shoe", "line 2: 'bag, shoe' has a comma but no colon"),
        ("bag: a,,b", "line 2: 'bag: a,,b' has an empty name"),
        (": a", "line 2: ': a' has an empty name"),
    ],
)
def test_wrong_class_files(line, message, photos, tmp_path, capsys):
    file = tmp_path / "names.txt"
    file.write_text(f"coat\n{line}\n")
    assert message in error_of(capsys, "annotate", photos, "--classes", file)


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no labels.npz"):
        run("report", tmp_path, "--debug")


def test_errors_without_a_message_of_ours_have_their_type(annotated, monkeypatch, capsys):
    def fail(*_):
        raise KeyError("a\nb")

    monkeypatch.setattr("sklearn_npll.cli._folder.load_labels", fail)
    assert error_of(capsys, "report", annotated).endswith(r"error: KeyError: 'a\nb'")


def test_wrong_use_ends_with_2(capsys):
    rule_value = ("annotate", "x", "--classes", "a,b", "--rule-value", "many")
    epochs = ("fit", "x", "--epochs")
    for args in ((), ("annotat",), ("annotate", "x"), (*epochs, "many"), (*epochs, 0), rule_value):
        with pytest.raises(SystemExit) as ended:
            run(*args)
        assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "--epochs: 0 is less than 1" in message
    assert "--rule-value: invalid number value: 'many'" in message


def test_choices_are_those_of_the_library():
    from sklearn_npll._rules import SCORE_RULES
    from sklearn_npll.annotators._refinement import REFINEMENTS
    from sklearn_npll.coreg._classifier import VARIANTS

    commands = make_parser()._subparsers._group_actions[0].choices
    choices = {
        action.dest: set(action.choices)
        for command in commands.values()
        for action in command._actions
        if action.choices
    }
    assert choices["rule"] == {"union", *SCORE_RULES}
    assert choices["refine"] == set(REFINEMENTS)
    assert choices["variant"] == set(VARIANTS)


def test_the_script_is_declared():
    (target,) = re.findall(r'^sklearn-npll = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    module, _, function = target.partition(":")
    assert getattr(importlib.import_module(module), function) is main


def test_the_program_starts_without_torch():
    program = (
        "import sys; from sklearn_npll.cli._main import make_parser; make_parser().format_help();"
        " assert not {'torch', 'sklearn', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=120)
    command = [sys.executable, "-m", "sklearn_npll", "report", "no such folder"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("sklearn-npll: error: no such folder holds no labels.npz")
