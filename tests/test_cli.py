"""The command line: annotate, fit and predict do what the library does."""

import csv
import json
import sys
from pathlib import Path

import cli_runs
import joblib
import numpy as np
import pytest
from cli_runs import IMAGES, copy_labels, error_of, interrupt_second_epoch, run, wrong_use
from numpy.testing import assert_array_equal
from PIL import Image

from sklearn_npll import CoRegClassifier, PartialLabels, VLMPartialAnnotator
from sklearn_npll.annotators import _open_clip
from sklearn_npll.baselines import PRODENClassifier
from sklearn_npll.cli import _fit
from sklearn_npll.cli._inputs import read_prior
from sklearn_npll.cli._model_files import default_model_file

# Fixtures, which pytest finds by their names here.
photos = cli_runs.photos
classes = cli_runs.classes
annotated = cli_runs.annotated

NAMES = ["pullover", "bag", "sneaker", "ankle boot"]


@pytest.fixture(scope="module")
def fitted(annotated):
    assert run("fit", annotated, "--epochs", 2, "--model-file", annotated / "m.joblib") == 0
    return annotated


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# annotate


def test_annotate_says_what_the_annotator_says(annotated, photos):
    labels = PartialLabels.load(annotated / "labels.npz")
    assert labels.classes.tolist() == sorted(NAMES)
    names = {"pullover": ["pullover", "sweater"], **{name: name for name in NAMES[1:]}}
    expected = VLMPartialAnnotator(names).fit_transform(labels.data)
    assert_array_equal(labels.candidates, expected.candidates)
    assert_array_equal(labels.scores, expected.scores)

    rows = read_csv(annotated / "labels.csv")
    assert [str(photos / row["path"]) for row in rows] == labels.data
    assert {"a, b.png", 'say "hi".png', "été 2024/naïve 写真.png"} < {row["path"] for row in rows}
    assert [row["label"] for row in rows] == labels.classes[labels.scores.argmax(axis=1)].tolist()
    confidence = pytest.approx(labels.scores.max(axis=1), rel=5e-6)  # six digits
    assert [float(row["confidence"]) for row in rows] == confidence
    assert [int(row["set_size"]) for row in rows] == labels.set_sizes.tolist()
    assert np.mean([float(row["agreement"]) for row in rows]) == pytest.approx(labels.agreement)
    for row, candidates in zip(rows, labels.candidates):
        assert row["candidates"].split("|") == labels.classes[candidates].tolist()


def test_annotate_continues_after_an_interruption(photos, classes, tmp_path, monkeypatch, capsys):
    encode, n_encoded = _open_clip.OpenClipEncoder.encode_image, []

    def interrupted(encoder, images):
        if len(n_encoded) == 3:
            raise KeyboardInterrupt
        n_encoded.append(len(images))
        return encode(encoder, images)

    def counted(encoder, images):
        n_encoded.append(len(images))
        return encode(encoder, images)

    def annotate(output):
        args = ("--classes", classes, "--batch-size", 4, "--output", output, "--quiet")
        return run("annotate", photos, *args)

    monkeypatch.setattr(_open_clip.OpenClipEncoder, "encode_image", interrupted)
    assert annotate(tmp_path / "a") == 130
    assert "interrupted. The same command continues" in capsys.readouterr().err
    assert not (tmp_path / "a" / "labels.npz").exists()
    monkeypatch.setattr(_open_clip.OpenClipEncoder, "encode_image", counted)
    assert annotate(tmp_path / "a") == 0
    assert sum(n_encoded) == len(IMAGES)  # each was encoded once
    assert annotate(tmp_path / "b") == 0
    for name in ("labels.npz", "labels.csv", "annotation.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_options_of_annotate(photos, tmp_path, capsys):
    templates = tmp_path / "templates.txt"
    templates.write_text("a photo of a {}.\n\n# more\na drawing of a {}.\n")
    options = ("--templates", templates, "--rule", "topk", "--rule-value", 2, "--refine", "zlap")
    out = ("--output", tmp_path, "--table", "json")
    assert run("annotate", photos, "--classes", "bag, red shoe,coat", *options, *out) == 0
    labels = PartialLabels.load(tmp_path / "labels.npz")
    assert labels.classes.tolist() == ["bag", "coat", "red shoe"]
    assert labels.votes.shape == (len(IMAGES), 2)
    assert (labels.set_sizes == 2).all()
    expected = VLMPartialAnnotator(
        ["bag", "red shoe", "coat"],
        templates=["a photo of a {}.", "a drawing of a {}."],
        refine="zlap",
    )
    assert_array_equal(labels.scores, expected.fit_transform(labels.data).scores)
    rows = json.loads((tmp_path / "labels.json").read_text())
    assert len(rows) == len(IMAGES)
    assert rows[0]["set_size"] == len(rows[0]["candidates"]) == 2
    assert "30 images, 2.00 candidates each, 0.0% with a single one." in capsys.readouterr().out


def test_the_shipped_model_is_for_clothes(photos, tmp_path, capsys):
    args = ("--templates", "simple", "--output", tmp_path, "--quiet")
    assert run("annotate", photos, "--classes", "cat,dog", *args) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "clothes only" in line]
    assert len(told) == 1 and "--model ViT-B-32-quickgelu --pretrained openai" in told[0]
    assert run("annotate", photos, "--classes", "bag,coat", *args) == 0
    assert "clothes only" not in capsys.readouterr().err


def test_many_classes_in_one_argument(photos, tmp_path, capsys):
    names = [f"thing number {i}" for i in range(30)]  # longer than a file name may be
    args = ("--classes", ",".join(names), "--templates", "simple", "--output", tmp_path, "--quiet")
    assert run("annotate", photos, *args) == 0
    labels = PartialLabels.load(tmp_path / "labels.npz")
    assert labels.classes.tolist() == sorted(names)
    never = set(range(30)) - set(labels.votes[:, 0].tolist())
    said, first = capsys.readouterr().err, labels.classes[min(never)]
    assert (
        f"{len(never)} of 30 classes are never or hardly ever preferred to the others: '{first}', "
        in said
    )


def test_a_comma_in_a_label(photos, tmp_path):
    args = ("--templates", "simple", "--output", tmp_path, "--quiet")
    given = 'bag, "hat, cap: cap, hat", 12" disc'
    assert run("annotate", photos, "--classes", given, *args) == 0
    names = json.loads((tmp_path / "annotation.json").read_text())["classes"]
    assert names == {"bag": ["bag"], "hat, cap": ["cap", "hat"], '12" disc': ['12" disc']}


def test_two_quantiles(photos, tmp_path):
    options = ("--rule", "cpl", "--rule-value", "0.5,0.8", "--output", tmp_path, "--quiet")
    assert run("annotate", photos, "--classes", "bag,shoe", *options) == 0
    assert json.loads((tmp_path / "annotation.json").read_text())["rule_value"] == [0.5, 0.8]


@pytest.fixture
def broken(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(4):
        Image.fromarray(IMAGES[i]).save(folder / f"{i}.png")
    (folder / "1.png").write_bytes(b"no image")
    return folder


def test_images_that_cannot_be_read(broken, tmp_path, capsys):
    args = ("annotate", broken, "--classes", "bag,shoe", "--output", tmp_path / "out")
    assert "1.png') cannot be read" in error_of(capsys, *args, "--quiet")
    assert run(*args, "--on-error", "skip", "--quiet") == 0
    message = capsys.readouterr().err
    assert "Skipped 1 that could not be read" in message
    assert "'1.png': UnidentifiedImageError" in message
    rows = read_csv(tmp_path / "out" / "labels.csv")
    assert [row["path"] for row in rows] == ["0.png", "2.png", "3.png"]
    (unread,) = read_csv(tmp_path / "out" / "unreadable.csv")
    assert unread["path"] == "1.png"  # as the paths in labels.csv

    Image.fromarray(IMAGES[1]).save(broken / "1.png")
    assert run(*args, "--quiet") == 0
    assert not (tmp_path / "out" / "unreadable.csv").exists()
    assert len(read_csv(tmp_path / "out" / "labels.csv")) == 4


def test_many_images_that_cannot_be_read(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for i in range(7):
        (tmp_path / "images" / f"{i}.png").touch()
    Image.fromarray(IMAGES[0]).save(tmp_path / "images" / "7.png")
    args = ("annotate", tmp_path / "images", "--classes", "bag,shoe", "--output", tmp_path / "out")
    assert run(*args, "--on-error", "skip", "--quiet") == 0
    message = capsys.readouterr().err
    assert "Skipped 7 that could not be read" in message
    assert "4.png" in message and "5.png" not in message
    assert message.endswith("  and 2 more\n")


def test_labels_of_no_files(labels, tmp_path, capsys):
    labels.save(tmp_path / "labels.npz")
    assert "labels.npz holds no paths of images" in error_of(capsys, "fit", tmp_path)


def test_no_image_can_be_read(tmp_path, capsys):
    (tmp_path / "1.png").touch()
    args = ("annotate", tmp_path, "--classes", "bag,shoe", "--output", tmp_path / "out", "--quiet")
    assert "1.png') cannot be read" in error_of(capsys, *args, "--on-error", "skip")


def test_one_template_has_nothing_to_agree_with(photos, tmp_path):
    args = ("--classes", "bag,shoe", "--templates", "simple", "--output", tmp_path, "--quiet")
    assert run("annotate", photos, *args) == 0
    assert {row["agreement"] for row in read_csv(tmp_path / "labels.csv")} == {""}
    assert run("report", tmp_path, "--quiet") == 0
    assert "Agreement between" not in (tmp_path / "report.html").read_text(encoding="utf-8")


# fit


def test_fit_learns_what_the_classifier_learns(fitted):
    labels = PartialLabels.load(fitted / "labels.npz")
    clf = joblib.load(fitted / "m.joblib")
    again = CoRegClassifier(max_epochs=2, random_state=0).fit(labels)
    assert_array_equal(clf.predict_proba(labels.data), again.predict_proba(labels.data))
    assert clf.checkpoint_dir is None
    rows = read_csv(fitted / "learned.csv")
    assert [row["label"] for row in rows] == again.transduction_.tolist()
    assert [row["annotator_label"] for row in rows] == [
        row["label"] for row in read_csv(fitted / "labels.csv")
    ]
    clean = [float(row["clean_probability"]) for row in rows]
    assert clean == pytest.approx(again.clean_probability_, rel=1e-5)


def test_fit_tells_of_a_model_that_has_not_learned_its_labels(
    annotated, tmp_path, monkeypatch, capsys
):
    args = ("fit", copy_labels(annotated, tmp_path), "--epochs", 1, "--quiet")
    clf = CoRegClassifier(max_epochs=1, random_state=0)
    labels = PartialLabels.load(annotated / "labels.npz")
    agreement = (clf.fit(labels).predict(labels.data) == clf.transduction_).mean()
    monkeypatch.setattr(_fit, "_MIN_AGREEMENT", agreement + 0.01)
    assert run(*args) == 0
    assert f"gives only {agreement:.0%} of its own images the label in" in capsys.readouterr().err
    monkeypatch.setattr(_fit, "_MIN_AGREEMENT", agreement)
    assert run(*args) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("moment", ["during the second epoch", "at the end of the first"])
def test_fit_continues(moment, annotated, fitted, photos, tmp_path, monkeypatch, capsys):
    """The second call does the epoch that the first one did not."""

    def interrupted_line(*_):
        raise KeyboardInterrupt

    copy_labels(annotated, tmp_path)
    args = ("fit", tmp_path, "--epochs", 2, "--model-file", tmp_path / "m.joblib")
    with monkeypatch.context() as patch:
        if moment == "at the end of the first":
            patch.setattr("sklearn_npll._neural._net.progress_line", interrupted_line)
        else:
            interrupt_second_epoch(patch)
        assert run(*args) == 130
    assert "continues from the last finished epoch" in capsys.readouterr().err
    assert not (tmp_path / "m.joblib").exists()
    assert run(*args) == 0
    captured = capsys.readouterr()
    assert "epoch 1/2" not in captured.out
    assert "epoch 2/2" in captured.out
    assert "Load m.joblib only if you made it" in captured.out
    assert (tmp_path / "learned.csv").read_bytes() == (fitted / "learned.csv").read_bytes()


def test_weights_without_a_model(photos, tmp_path, capsys):
    args = ("annotate", photos, "--classes", "bag,shoe", "--output", tmp_path)
    assert "--pretrained needs --model" in wrong_use(capsys, *args, "--pretrained", "openai")


def test_known_labels(photos, annotated, tmp_path):
    known = tmp_path / "known.csv"
    rows = 'path,class\n"a, b.png",bag\nété 2024\\naïve 写真.png,sneaker\n'  # as Windows has it
    known.write_text(f"{rows}{photos / '05.png'},pullover\n", encoding="utf-8")
    copy_labels(annotated, tmp_path)
    model_file = tmp_path / "m.joblib"
    options = ("--known", known, "--doubly-robust", "--epochs", 1, "--model-file", model_file)
    assert run("fit", tmp_path, *options, "--quiet") == 0
    assert joblib.load(model_file).doubly_robust
    learned = {row["path"]: row for row in read_csv(tmp_path / "learned.csv")}
    assert learned["a, b.png"]["label"] == "bag"
    assert learned["été 2024/naïve 写真.png"]["label"] == "sneaker"
    assert learned["05.png"]["label"] == "pullover"
    assert json.loads((tmp_path / "training.json").read_text())["n_known"] == 3


def test_known_labels_correct_nothing_if_there_are_none(annotated, capsys):
    line = wrong_use(capsys, "fit", annotated, "--doubly-robust")
    assert "--doubly-robust needs --known" in line


@pytest.mark.parametrize(
    "text, message",
    [
        ("file,kind\n", r"has the columns \['file', 'kind'\]; its first line must name 'path'"),
        ("", r"has the columns \[\]"),
        ("path;class\nx.png;bag\n", "line 2: 'x.png' is no annotated image."),
        ("path,class\nx.png,bag\n", "line 2: 'x.png' is no annotated image. Paths are relative"),
        ("path,class\n03.png,bags\n", "line 2: 'bags' is no class. Did you mean 'bag'?"),
        ("path,class\n03.png\n", "line 2: None is no class"),
        (
            "path,class\n03.png,bag\n./03.png,sneaker\n",
            r"line 3: './03.png' is 'sneaker' here, and 'bag' above",
        ),
    ],
)
def test_wrong_known_labels(text, message, annotated, tmp_path, capsys):
    file = tmp_path / "known.csv"
    file.write_text(text)
    line = error_of(capsys, "fit", annotated, "--known", file, "--model-file", "m.joblib")
    assert message.replace("\\", "") in line


def test_known_labels_that_are_not_there(annotated, tmp_path, capsys):
    line = error_of(capsys, "fit", annotated, "--known", tmp_path / "no.csv")
    assert "There is no file" in line and "--known" in line


def test_class_shares(annotated, tmp_path):
    copy_labels(annotated, tmp_path)
    names = PartialLabels.load(annotated / "labels").classes.tolist()
    shares = ", ".join(f"{name}={i}" for i, name in enumerate(names, 1))
    options = ("--prior", shares, "--epochs", 1, "--model-file", tmp_path / "m.joblib", "--quiet")
    assert run("fit", tmp_path, *options) == 0
    prior = joblib.load(tmp_path / "m.joblib").prior
    np.testing.assert_array_equal(prior, np.arange(1, len(names) + 1))
    assert json.loads((tmp_path / "training.json").read_text())["prior"] == shares


def test_ways_to_find_class_shares():
    classes = np.array(["cat", "dog, wild"])
    assert read_prior("uniform", classes) == "uniform"
    assert read_prior("none", classes) is None
    for text in ('"dog, wild = 0.5",cat=2', 'cat=2, "dog, wild"=0.5,'):
        np.testing.assert_array_equal(read_prior(text, classes), [2, 0.5])
    equation = read_prior("a=b=3,cat=1", np.array(["a=b", "cat"]))
    np.testing.assert_array_equal(equation, [3, 1])


@pytest.mark.parametrize(
    "text, message",
    [
        ("equal", "--prior is one of adaptive, uniform"),
        ("bags=1", "'bags' is no class. Did you mean 'bag'?"),
        ("bag=1", "there is no share for "),
        ("bag=1, bag=2", "'bag' is given twice"),
        ("bag=many", "the share of 'bag' is 'many', which is no number"),
        ("big, bag=1", "'big' has no '='. Write 'cat=3, dog=1', and a name with a comma in double"),
        ("bag 1, coat=2", "'bag 1' has no '='"),
        ("=1", "'=1' has no name"),
        ("bag=-1", "the share of 'bag' is -1; it must be positive"),
        ("bag=nan", "must be positive"),
        ("bag=", "the share of 'bag' is '', which is no number"),
    ],
)
def test_wrong_class_shares(text, message, annotated, capsys):
    line = error_of(capsys, "fit", annotated, "--prior", text, "--model-file", "m.joblib")
    assert message in line


# predict


def test_predict(fitted, photos, tmp_path, capsys):
    table = tmp_path / "predictions.csv"
    assert run("predict", fitted / "m.joblib", photos, "--output", table) == 0
    assert f"30 images. Wrote {table}." in capsys.readouterr().out
    rows = read_csv(table)
    clf = joblib.load(fitted / "m.joblib")
    proba = clf.predict_proba([str(photos / row["path"]) for row in rows])
    assert [row["label"] for row in rows] == clf.classes_[proba.argmax(axis=1)].tolist()
    for rank in (1, 2, 3):
        name = "confidence" if rank == 1 else f"confidence_{rank}"
        expected = np.sort(proba, axis=1)[:, -rank]
        assert [float(row[name]) for row in rows] == pytest.approx(expected, rel=1e-5)


def test_predict_skips_what_cannot_be_read(fitted, broken, tmp_path, capsys):
    args = ("predict", fitted / "m.joblib", broken, "--output", tmp_path / "p.json", "--quiet")
    assert "1.png') cannot be read" in error_of(capsys, *args)
    assert run(*args, "--on-error", "skip") == 0
    rows = json.loads((tmp_path / "p.json").read_text())
    assert [row["path"] for row in rows] == ["0.png", "2.png", "3.png"]
    assert [row["path"] for row in read_csv(tmp_path / "p-unreadable.csv")] == ["1.png"]


def test_a_pipeline_predicts(fitted, broken, tmp_path):
    from sklearn.pipeline import make_pipeline

    clf = joblib.load(fitted / "m.joblib")
    pipe = make_pipeline(VLMPartialAnnotator(NAMES).fit(IMAGES[:1]), clf)
    joblib.dump(pipe, tmp_path / "pipe.joblib")
    (broken / "1.png").unlink()
    tables = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for model, table in zip((fitted / "m.joblib", tmp_path / "pipe.joblib"), tables):
        assert run("predict", model, broken, "--output", table, "--quiet") == 0
    assert tables[0].read_bytes() == tables[1].read_bytes()


def test_models_of_another_kind(tmp_path, photos, capsys):
    from sklearn.linear_model import LogisticRegression

    X, y = np.eye(4, dtype=np.float32), [0, 1, 0, 1]
    models = {
        "a logistic.joblib": (LogisticRegression().fit(X, y), "LogisticRegression, which is no"),
        "unfitted.joblib": (CoRegClassifier(), "no fitted classifier of sklearn_npll"),
        "features.joblib": (CoRegClassifier(max_epochs=1).fit(X, y), "a classifier of features"),
    }
    for name, (model, message) in models.items():
        joblib.dump(model, tmp_path / name)
        assert message in error_of(capsys, "predict", tmp_path / name, photos)
    (tmp_path / "damaged.joblib").write_bytes(b"damaged")
    assert "cannot be loaded" in error_of(capsys, "predict", tmp_path / "damaged.joblib", photos)
    assert "must end in .skops" in error_of(capsys, "predict", tmp_path / "a.pkl", photos)
    assert "There is no model" in error_of(capsys, "predict", tmp_path / "no.joblib", photos)
    assert error_of(capsys, "predict", photos, photos).endswith("the model that fit has written.")


def test_the_folder_in_place_of_the_model(fitted, photos, tmp_path, capsys):
    (tmp_path / "model.joblib").write_bytes((fitted / "m.joblib").read_bytes())
    line = error_of(capsys, "predict", tmp_path, photos)
    assert line.endswith(f"such as {str(tmp_path / 'model.joblib')!r}.")


def test_models_of_skops(annotated, fitted, photos, tmp_path, capsys):
    skops = pytest.importorskip("skops.io")
    model = tmp_path / "m.skops"
    assert run("fit", annotated, "--epochs", 2, "--model-file", model, "--quiet") == 0
    for file, table in ((model, "a.csv"), (fitted / "m.joblib", "b.csv")):
        assert run("predict", file, photos, "--output", tmp_path / table, "--quiet") == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert str(annotated.parent).encode() not in model.read_bytes()  # as images and checkpoints are

    skops.dump(PRODENClassifier(), tmp_path / "other.skops")
    line = error_of(capsys, "predict", tmp_path / "other.skops", photos)
    assert "it is no model of fit, since it wants to make sklearn_npll.baselines" in line


def test_models_without_skops(annotated, photos, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "skops", None)
    assert default_model_file("x") == Path("x", "model.joblib")
    for args in (("fit", annotated, "--model-file", "m.skops"), ("predict", "m.skops", photos)):
        assert "need skops: pip install skops" in error_of(capsys, *args)
