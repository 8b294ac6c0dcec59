"""The code on the page about other tools runs, and does what the page says."""

import re
from pathlib import Path

import numpy as np
import pytest

from sklearn_npll import PartialLabels

PAGE = Path(__file__).parents[1] / "docs" / "ecosystem.rst"


def read_sections():
    """Code of each section by its title; that before the first is under the page's title."""
    sections, title, lines = {}, None, PAGE.read_text(encoding="utf-8").splitlines()
    block = False
    for line, following in zip(lines, [*lines[1:], ""]):
        if line and re.fullmatch(r"([=-])\1+", following) and len(following) >= len(line):
            title, block = line, False
            sections[title] = []
        elif line == ".. code-block:: python":
            block = True
        elif block and (line.startswith("   ") or not line):
            sections[title].append(line[3:])
        else:
            block = False
    return {title: "\n".join(code) for title, code in sections.items()}


SECTIONS = read_sections()
SETUP = SECTIONS["Other tools"]


def check_tables(names):
    assert type(names["frame"]).__module__.startswith("pandas")
    assert len(names["doubtful"]) == 20
    assert names["doubtful"]["agreement"].max() <= names["frame"]["agreement"].median()
    assert names["table"]["votes"].list.len().to_list() == [27] * 200
    assert names["arrow"].column_names == names["frame"].columns.tolist()
    best = names["proba"].idxmax(axis=1)
    assert best.tolist() == names["clf"].predict(names["images"]).tolist()


def check_set_output(names):
    assert isinstance(names["pipe"][:-1].transform(names["images"]), PartialLabels)
    assert names["table"].equals(names["labels"].to_frame())


def check_datasets(names):
    labels = names["labels"]
    expected = names["annotator"].fit_transform(names["images"][:50])
    np.testing.assert_array_equal(labels.toarray(), expected.toarray())
    assert labels.classes.tolist() == expected.classes.tolist()
    first = labels.data[0]
    assert labels.classes[first["label"]] == expected.to_frame()["label"][0]
    np.testing.assert_array_equal(np.asarray(first["image"]), names["images"][0])


def check_hub(names):
    card = Path("clothes", "README.md").read_text(encoding="utf-8")
    assert f"| accuracy | {names['accuracy']:.4g} |" in card
    score = names["clf"].score(
        names["test"].images[:200], names["test"].target_names[names["test"].target[:200]]
    )
    assert score == names["accuracy"]


def check_tensorboard(names):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = events.EventAccumulator("runs/co-reg").Reload()
    shown = {event.step: event.value for event in log.Scalars("lr")}
    expected = {row["epoch"]: row["lr"] for row in names["clf"].history_}
    assert shown == pytest.approx(expected)
    assert "phase" not in log.Tags()["scalars"]


def check_mlflow(names):
    client = names["mlflow"].tracking.MlflowClient()
    run = names["mlflow"].last_active_run()
    for key in ("lr", "loss_warm_up"):
        shown = {m.step: m.value for m in client.get_metric_history(run.info.run_id, key)}
        history = {row["epoch"]: row[key] for row in names["clf"].history_}
        assert shown == {epoch: value for epoch, value in history.items() if value is not None}
    assert run.data.params["random_state"] == "0"
    assert {"params.pth", "history.json"} < {
        file.path for file in client.list_artifacts(run.info.run_id)
    }


CHECKS = {
    "Tables: pandas, polars, Arrow": (check_tables, ["pandas", "polars", "pyarrow"]),
    "``set_output`` of scikit-learn": (check_set_output, ["pandas"]),
    "Hugging Face datasets": (check_datasets, ["datasets", "pandas"]),
    "Model hubs": (check_hub, []),
    "TensorBoard": (check_tensorboard, ["tensorboard"]),
    "MLflow": (check_mlflow, ["mlflow"]),
}


@pytest.fixture(scope="module")
def start():
    names = {"__name__": "page"}
    exec(SETUP, names)
    return names


def test_each_section_with_code_is_run():
    assert {title for title, code in SECTIONS.items() if code} == {"Other tools", *CHECKS}


@pytest.mark.parametrize("title", CHECKS)
def test_the_code_runs(title, start, tmp_path, monkeypatch):
    check, packages = CHECKS[title]
    for package in packages:
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    names = dict(start)
    exec(SECTIONS[title], names)
    check(names)
