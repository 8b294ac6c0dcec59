"""The command line: a classifier that learns from embeddings, and predicts images."""

import json
import shutil
from dataclasses import replace

import cli_runs
import joblib
import pytest
from cli_runs import IMAGES, copy_labels, error_of, interrupt_second_epoch, run, wrong_use
from fakes import write_tiny_clip
from numpy.testing import assert_array_equal
from sklearn.pipeline import make_pipeline

from sklearn_npll import CoRegClassifier, PartialLabels, VLMPartialAnnotator
from sklearn_npll.annotators import _open_clip
from sklearn_npll.cli._embeddings import check_embedder, is_public

# Fixtures, which pytest finds by their names here.
photos = cli_runs.photos
classes = cli_runs.classes
annotated = cli_runs.annotated

FIT = ("--embeddings", "--epochs", 2)


@pytest.fixture(scope="module")
def learned(annotated, tmp_path_factory):
    folder = copy_labels(annotated, tmp_path_factory.mktemp("learned"))
    assert run("fit", folder, *FIT, "--model-file", folder / "m.joblib", "--quiet") == 0
    return folder


def test_it_learns_what_the_library_learns(learned, annotated):
    labels = PartialLabels.load(learned / "labels.npz")
    names = json.loads((learned / "annotation.json").read_text())["classes"]
    pipe = make_pipeline(
        VLMPartialAnnotator(names, output="embeddings"),
        CoRegClassifier(max_epochs=2, random_state=0),
    ).fit(labels.data)
    model = joblib.load(learned / "m.joblib")
    assert_array_equal(model.predict_proba(labels.data), pipe.predict_proba(labels.data))
    assert PartialLabels.load(learned / "learned.npz").data == labels.data  # the images
    assert json.loads((learned / "training.json").read_text())["embeddings"]
    assert str(annotated.parent).encode() not in (learned / "m.joblib").read_bytes()
    assert run("report", learned, "--quiet") == 0
    assert "What the learner changed" in (learned / "report.html").read_text(encoding="utf-8")


def test_nothing_is_encoded_again(annotated, tmp_path, monkeypatch):
    shutil.copytree(annotated / "cache", tmp_path / "cache")
    monkeypatch.setattr(_open_clip.OpenClipEncoder, "encode_image", None)
    args = (*FIT, "--model-file", tmp_path / "m.joblib", "--quiet")
    assert run("fit", copy_labels(annotated, tmp_path), *args) == 0
    assert (tmp_path / "learned.csv").exists()


def test_it_predicts_images(learned, photos, tmp_path):
    assert run("predict", learned / "m.joblib", photos, "--output", tmp_path / "p.json") == 0
    rows = json.loads((tmp_path / "p.json").read_text())
    assert len(rows) == len(IMAGES)
    model = joblib.load(learned / "m.joblib")
    assert [row["label"] for row in rows] == model.predict(
        [str(photos / row["path"]) for row in rows]
    ).tolist()


def test_the_device_is_a_matter_of_the_machine(annotated, tmp_path):
    model = tmp_path / "m.joblib"
    args = ("--device", "cpu", "--model-file", model, "--quiet")
    assert run("fit", copy_labels(annotated, tmp_path), *FIT, *args) == 0
    annotator = joblib.load(model)[0]
    assert annotator.device == annotator._prompted.device == "auto"


def test_it_skips_what_cannot_be_read(learned, photos, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for name in ("03.png", "04.png"):
        shutil.copy(photos / name, tmp_path / "images")
    (tmp_path / "images" / "00.png").write_bytes(b"no image")
    args = ("predict", learned / "m.joblib", tmp_path / "images", "--output", tmp_path / "p.json")
    assert "00.png') cannot be read" in error_of(capsys, *args, "--quiet")
    assert run(*args, "--quiet", "--on-error", "skip") == 0
    rows = json.loads((tmp_path / "p.json").read_text())
    assert [row["path"] for row in rows] == ["03.png", "04.png"]


def test_it_continues(annotated, learned, tmp_path, monkeypatch, capsys):
    args = ("fit", copy_labels(annotated, tmp_path), *FIT, "--model-file", tmp_path / "m.joblib")
    with monkeypatch.context() as patch:
        interrupt_second_epoch(patch)
        assert run(*args) == 130
    capsys.readouterr()
    assert run(*args) == 0
    assert "epoch 1/2" not in capsys.readouterr().out
    assert (tmp_path / "learned.csv").read_bytes() == (learned / "learned.csv").read_bytes()


def test_known_labels_and_shares(annotated, tmp_path):
    (tmp_path / "known.csv").write_text("path,class\n03.png,bag\n")
    shares = "pullover=4,bag=3,sneaker=2,ankle boot=1"
    args = ("--known", tmp_path / "known.csv", "--prior", shares, "--module", "mlp", "--seed", 3)
    model = tmp_path / "m.joblib"
    folder = copy_labels(annotated, tmp_path)
    assert run("fit", folder, *FIT, *args, "--model-file", model, "--quiet") == 0
    assert json.loads((tmp_path / "training.json").read_text())["n_known"] == 1
    learned = PartialLabels.load(tmp_path / "learned.npz")
    row = [path.endswith("03.png") for path in learned.data].index(True)
    assert learned.classes[learned.scores[row].argmax()] == "bag"
    clf = joblib.load(model)[-1]
    assert clf.random_state == 3
    assert_array_equal(clf.prior, [1, 3, 4, 2])  # in the order of sorted names


@pytest.mark.parametrize(
    "option", [("--module", "resnet8"), ("--image-size", 32), ("--no-flip",)], ids=lambda o: o[0]
)
def test_options_for_pixels(option, annotated, capsys):
    line = wrong_use(capsys, "fit", annotated, *FIT, *option)
    assert line.endswith(f"{option[0]} is for training on pixels; leave it or --embeddings out")


@pytest.mark.parametrize("embeddings", [False, True])
def test_the_warning_of_a_poor_model_names_the_remedy(
    embeddings, annotated, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("sklearn_npll.cli._fit._MIN_AGREEMENT", 1.01)
    folder = copy_labels(annotated, tmp_path)
    args = ("--epochs", 1, "--model-file", tmp_path / "m.joblib", "--quiet")
    assert run("fit", folder, *args, *(["--embeddings"] if embeddings else [])) == 0
    assert ("try --embeddings" in capsys.readouterr().err) is not embeddings


# files of skops


@pytest.fixture
def skops():
    return pytest.importorskip("skops.io")


def test_a_file_of_skops(skops, annotated, learned, photos, tmp_path):
    folder = copy_labels(annotated, tmp_path / "labels")
    assert run("fit", folder, *FIT, "--quiet") == 0
    for model, table in ((folder / "model.skops", "a.csv"), (learned / "m.joblib", "b.csv")):
        assert run("predict", model, photos, "--output", tmp_path / table, "--quiet") == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert str(tmp_path).encode() not in (folder / "model.skops").read_bytes()


def test_what_a_stranger_may_not_ask_for(skops, learned, photos, tmp_path, capsys):
    def refusal(change):
        pipe = joblib.load(learned / "m.joblib")
        skops.dump(change(pipe) or pipe, tmp_path / "m.skops")
        line = error_of(capsys, "predict", tmp_path / "m.skops", photos)
        assert not (tmp_path / "cache").exists()
        return line

    def settings(**changed):
        def change(pipe):
            pipe[0]._prompted = replace(pipe[0]._prompted, **changed)

        return change

    message = "which open_clip does not list"
    assert message in refusal(settings(model="hf-hub:stranger/model"))
    assert message in refusal(settings(model=f"local-dir:{tmp_path}"))
    assert message in refusal(settings(model="ViT-B-32-quickgelu", pretrained="weights.pt"))
    assert "a cache_dir of its own" in refusal(settings(cache_dir=str(tmp_path / "cache")))
    assert "a model or a cache_dir of its own" in refusal(settings(vlm="theirs"))
    assert "is a pipeline of 3 steps" in refusal(lambda pipe: make_pipeline("passthrough", *pipe))
    assert "no fitted VLMPartialAnnotator" in refusal(lambda pipe: make_pipeline(pipe, pipe[-1]))


def test_settings_of_a_stranger_hide_nothing(learned):
    annotator = joblib.load(learned / "m.joblib")[0]
    check_embedder(annotator)
    vars(annotator._prompted)["encoder"] = object()
    with pytest.raises(ValueError, match="holds more than settings"):
        check_embedder(annotator)


@pytest.mark.parametrize(
    "pretrained, public",
    [("OpenAI", True), ("LAION400M-e32", True), ("laion", False), (None, False)],
)
def test_tags_are_public_however_they_are_spelt(pretrained, public):
    assert is_public("ViT-B-32", pretrained) is public
    assert is_public("no-such-model", pretrained) is False


def test_a_model_in_a_folder_is_found_from_anywhere(photos, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    write_tiny_clip(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    args = ("--classes", "bag,shoe", "--model", "local-dir:model", "--rule", "topk")
    assert run("annotate", photos, *args, "--rule-value", 1, "--quiet") == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run("fit", "../labels", *FIT, "--quiet") == 0
    assert run("report", "../labels", "--quiet") == 0
    page = (tmp_path / "labels" / "report.html").read_text(encoding="utf-8")
    assert "local-dir:model" in page and str(tmp_path) not in page


def test_a_file_of_weights_is_found_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "mine.pt").touch()
    monkeypatch.chdir(tmp_path)
    found = _open_clip.absolute_paths("ViT-B-32", "mine.pt")
    assert found == ("ViT-B-32", str(tmp_path / "mine.pt"))


def test_weights_of_ones_own_are_for_joblib(annotated, photos, tmp_path, capsys):
    folder = copy_labels(annotated, tmp_path)
    annotation = json.loads((folder / "annotation.json").read_text())
    shipped = _open_clip._resolve(_open_clip.SHIPPED_MODEL, None)[0]  # the same, as a folder
    (folder / "annotation.json").write_text(json.dumps({**annotation, "model": shipped}))
    line = error_of(capsys, "fit", folder, *FIT, "--model-file", "m.skops")
    assert line.endswith("Give --model-file a name in .joblib.")
    assert run("fit", folder, *FIT, "--quiet") == 0
    assert run("predict", folder / "model.joblib", photos, "--output", tmp_path / "p.csv") == 0
