"""The page about labels: what it says, and that it is whole, safe and self-contained."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from scipy import sparse as sp

from sklearn_npll import PartialLabels
from sklearn_npll._evidence import preferred_classes
from sklearn_npll._report import write_report
from sklearn_npll._report._charts import column_chart
from sklearn_npll._report._findings import best_of_each, confused_pairs, judge
from sklearn_npll.cli import main
from sklearn_npll.cli._folder import digest

HARM = "<script>alert(1)</script>"
NAMES = ["cat", "dog", HARM, 'a"b']
FILES = ["a b, c.png", "ünï.png", '"><img src=x onerror=alert(2)>.png', "3.png", "4.png", "5.png"]
VOTES = [[0, 0, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1], [2, 2, 1], [2, 2, 2]]
VOID = {"meta", "img", "rect", "line"}


class Page(HTMLParser):
    """Checks that elements are closed in order, and gathers them and the text."""

    def __init__(self, path):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    def all(self, tag):
        return [attrs for found, attrs in self.elements if found == tag]


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos & more")
    for i, name in enumerate(FILES):
        Image.new("RGB", (200, 100), (40 * i, 0, 0)).save(folder / name)
    paths = [str(folder / name) for name in FILES]
    return PartialLabels.from_votes(VOTES, NAMES, data=paths)


@pytest.fixture(scope="module")
def learned(labels):
    """The learner takes the second image, and no other, for another class."""
    proba = np.eye(4)[[0, 1, 1, 1, 2, 2]] * 0.6 + 0.1
    return PartialLabels(labels.data, NAMES, labels.candidates, scores=proba)


@pytest.fixture(scope="module")
def page(labels, learned, tmp_path_factory):
    path = tmp_path_factory.mktemp("out") / "report.html"
    folder = labels.data[3].rpartition("3.png")[0].rstrip("/\\")
    templates = ["a {}.", "the {}.", f"{HARM} {{}}."]
    write_report(
        path,
        labels,
        folder=folder,
        annotation={"templates": templates, "model": HARM},
        learned=learned,
        training={"epochs": 3},
    )
    return Page(path)


def test_nothing_is_loaded_or_run(page):
    for tag, attrs in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form", "a"}
        assert not any(name.startswith("on") or name == "href" for name in attrs), attrs
        assert attrs.get("src", "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,")
    assert not re.search(r"https?:|url\(|@import", page.source)
    (policy,) = (a["content"] for a in page.all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    assert HARM in page.text  # as text


def test_figures(page):
    assert "images 6 classes 4 candidates an image 1.50 with a single one 50%" in page.text
    # three images of full agreement, and three in which one pair of three agrees
    assert "template agreement 67%" in page.text
    assert "changed by the learner 17%" in page.text
    charts = [svg["aria-label"] for svg in page.all("svg") if svg.get("role") == "img"]
    assert charts[0] == "Candidates of an image. 1: 3 images, 2: 3 images"
    assert "30: 3 images" in charts[1]
    assert "90: 3 images" in charts[1]
    assert "60: 3 images" in charts[2]


def test_classes(page):
    assert 'a"b: preferred for 0% of the images, a candidate of 0%' in page.text
    # preferred, candidate, by the learner
    assert "cat 33% 50% 17%" in page.text
    assert "dog 33% 67% 50%" in page.text
    # cat and dog share 2 of the 5 images of either, dog and the third class 1 of 5
    assert f"dog 2 40% {HARM}" not in page.text
    assert "cat dog 2 40%" in page.text
    assert f"dog {HARM} 1 20%" not in page.text


def test_templates_and_settings(page):
    assert f"template agrees {HARM} {{}}. 50% a {{}}. 100% the {{}}. 100%" in page.text
    assert f"setting value model {HARM} fit: epochs 3" in page.text


def test_what_the_learner_changed(page):
    assert "1 of 6 images got another label" in page.text
    assert "from to images cat dog 1" in page.text
    assert "cat to dog (1 images) dog 70% was cat 67% ünï.png" in page.text
    assert "So many changes" not in page.text


def test_pictures(page):
    images = page.all("img")
    assert len(images) == 2 * 6 + 3 + 1  # three of the six have more than one candidate
    assert all(image["alt"] for image in images)
    assert images[0]["alt"] == "a b, c.png: cat 100%"
    least_sure = page.text.partition("The least sure")[2]
    assert least_sure.lstrip().startswith("cat 67% or dog ünï.png")
    assert len(page.source) < 60_000


def test_nothing_is_ambiguous(labels, tmp_path):
    write_report(tmp_path / "r.html", labels[labels.set_sizes == 1])
    assert "most candidates None: one candidate each." in Page(tmp_path / "r.html").text


def test_without_a_learner_votes_or_settings(labels, tmp_path):
    plain = PartialLabels(labels.data, NAMES, labels.candidates)
    write_report(tmp_path / "r.html", plain)
    page = Page(tmp_path / "r.html")
    assert "learner changed" not in page.text
    assert "template" not in page.text.replace("its templates agree", "")
    assert labels.data[1] in page.text


def test_known_labels_are_no_changes(labels, learned, tmp_path):
    known = np.arange(6) == 1  # the one image of which the learner has another label
    candidates = np.where(known[:, None], np.eye(4, dtype=bool)[1], labels.candidates)
    learned = PartialLabels(labels.data, NAMES, candidates, scores=learned.scores, known=known)
    write_report(tmp_path / "r.html", labels, learned=learned)
    page = Page(tmp_path / "r.html")
    assert "0 of 5 images got another label" in page.text
    assert "1 known ones are left out" in page.text
    assert "from to images" not in page.text


def test_true_labels(labels, learned, tmp_path):
    # the annotator says cat, cat, dog, dog, HARM, HARM, the learner cat, dog, dog, dog, HARM, HARM
    truth = ["cat", "dog", "cat", "cat", "-1", 'a"b']
    write_report(tmp_path / "r.html", labels, learned=learned, judged=judge(labels, truth, learned))
    page = Page(tmp_path / "r.html")
    assert (
        "class images annotator right truth in the set learner right all 5 20% 60% 40%" in page.text
    )
    table = page.text.partition("learner right all")[2]
    # the annotator's worst classes first
    assert table.index('a"b 1 0% 0% 0%') < table.index("cat 3 33% 67% 33%")
    assert table.index("dog 1 0% 100% 100%") < table.index("cat 3 33% 67% 33%")

    write_report(tmp_path / "r.html", labels, judged=judge(labels, truth))
    page = Page(tmp_path / "r.html")
    assert "annotator right truth in the set all 5 20% 60% " in page.text
    assert "learner right" not in page.text


def test_what_the_training_was_given_is_not_judged(labels, learned):
    known = np.array([0, 1, 0, 1, 0, 0], dtype=bool)
    learned = learned.replace(candidates=np.eye(4, dtype=bool)[[0, 1, 1, 1, 2, 2]], known=known)
    codes, right = judge(labels, ["cat", "dog", "cat", "dog", "-1", "-1"], learned)
    assert codes.tolist() == [labels.classes.tolist().index("cat")] * 2
    assert right["annotator right"].tolist() == right["learner right"].tolist() == [True, False]


def test_many_changes_are_told(labels, tmp_path):
    proba = np.full((6, 4), 0.1) + 0.6 * np.eye(4)[[1, 1, 1, 1, 1, 1]]
    learned = PartialLabels(labels.data, NAMES, labels.candidates, scores=proba)
    write_report(tmp_path / "r.html", labels, learned=learned)
    assert "So many changes are seldom right" in Page(tmp_path / "r.html").text


def test_images_that_are_gone(labels, tmp_path):
    gone = PartialLabels(
        [str(tmp_path / "gone.png"), *labels.data[1:]], NAMES, labels.candidates, votes=labels.votes
    )
    write_report(tmp_path / "r.html", gone)
    page = Page(tmp_path / "r.html")
    assert page.text.count("cannot be read") == 2
    assert len(page.all("img")) == 2 * 5 + 3


def test_many_classes_are_folded(tmp_path):
    n = 100
    names = [f"class {i}" for i in range(n)]
    labels = PartialLabels.from_votes(np.zeros((3, 2), int), names, data=["a", "b", "c"])
    write_report(tmp_path / "r.html", labels)
    page = Page(tmp_path / "r.html")
    assert "All 100 classes" in page.text
    assert page.text.index("class 10: preferred") < page.text.index("and 89 more")
    assert page.text.index("class 11: preferred") > page.text.index("and 89 more")


def test_other_samples_are_refused(labels, learned, tmp_path):
    with pytest.raises(ValueError, match="of other images or classes"):
        write_report(tmp_path / "r.html", labels, learned=learned[::-1])
    with pytest.raises(ValueError, match="no images to report on"):
        write_report(tmp_path / "r.html", labels[:0])


def test_large_sets_share_a_column(tmp_path):
    sets = np.tri(12, dtype=bool)
    write_report(tmp_path / "r.html", PartialLabels(list("abcdefghijkl"), range(12), sets))
    chart = next(svg["aria-label"] for svg in Page(tmp_path / "r.html").all("svg"))
    assert chart.endswith("7: 1 images, 8+: 5 images")


def test_columns_of_a_chart():
    chart = column_chart(["a", "b"], [0, 0], "Nothing", "x")
    assert chart.count('height="0.0"') == 2
    chart = column_chart(["a", "<b>"], [1, 2], "Two", "x")
    heights = [float(h) for h in re.findall(r'height="([\d.]+)"/>', chart)]
    assert heights[0] == pytest.approx(heights[1] / 2)
    assert "&lt;b&gt;" in chart


def test_pairs_of_sparse_candidates():
    sets = np.zeros((4, 100), dtype=bool)
    sets[:, 7] = True
    sets[:2, 70] = True
    sets[3, 99] = True
    labels = PartialLabels.from_candidates(sets)
    assert confused_pairs(labels, n_least=1) == [(7, 70, 2, 0.5), (7, 99, 1, 0.25)]
    assert confused_pairs(labels, least=0.4, n_least=1) == [(7, 70, 2, 0.5)]
    assert confused_pairs(labels) == [(7, 70, 2, 0.5)]
    assert confused_pairs(labels, least=0.6) == []


def test_preferred_classes():
    """By the scores, or else the votes, or else the candidates; not among the candidates only."""
    sets = np.array([[1, 0, 0], [0, 1, 1]], dtype=bool)
    scores = np.array([[0.1, 0.3, 0.6], [0.2, 0.4, 0.4]])
    votes = np.array([[1, 1, -1], [2, 0, 2]])
    cases = [
        ({"scores": scores, "votes": votes}, [2, 1], [0.6, 0.4]),
        ({"scores": sp.csr_array(scores), "votes": votes}, [2, 1], [0.6, 0.4]),
        ({"votes": votes}, [1, 2], [1, 2 / 3]),
        ({}, [0, 1], [1, 0.5]),
    ]
    for parts, codes, confidence in cases:
        found = preferred_classes(PartialLabels(None, NAMES[:3], sets, **parts))
        assert found[0].tolist() == codes
        assert found[1] == pytest.approx(confidence)


def test_best_of_each_class():
    codes = np.array([2, 0, 0, 2, 1])
    confidence = np.array([0.1, 0.2, 0.9, 0.8, 0.5])
    assert best_of_each(codes, confidence, 3).tolist() == [2, 4, 3]
    assert best_of_each(codes, confidence, 5).tolist() == [2, 1, 4, 3, 0]


# the command


@pytest.fixture
def folder(labels, learned, tmp_path):
    labels.save(tmp_path / "labels.npz")
    images = labels.data[3].rpartition("3.png")[0]
    (tmp_path / "annotation.json").write_text(json.dumps({"folder": images, "model": "m"}))
    return tmp_path


def images_folder(folder):
    return json.loads((folder / "annotation.json").read_text())["folder"]


def test_the_command(folder, capsys):
    assert main(["report", str(folder)]) == 0
    assert "report.html (0.0 MB)" in capsys.readouterr().out
    page = Page(folder / "report.html")
    assert page.text.startswith("Labels of photos & more")
    assert images_folder(folder) not in page.source
    assert main(["report", str(folder), "--output", str(folder / "x" / "y.html"), "--quiet"]) == 0
    assert (folder / "x" / "y.html").read_bytes() == (folder / "report.html").read_bytes()


def test_labels_of_the_learner_that_are_stale(folder, learned, capsys):
    learned.save(folder / "learned.npz")
    (folder / "training.json").write_text(json.dumps({"labels": "of before"}))
    assert main(["report", str(folder)]) == 0
    assert "is of other labels than labels.npz, which has changed since" in capsys.readouterr().err
    assert "What the learner changed" not in Page(folder / "report.html").text


def test_files_that_are_damaged(folder, capsys):
    (folder / "annotation.json").write_text("{")
    assert main(["report", str(folder)]) == 1
    assert "annotation.json is damaged" in capsys.readouterr().err
    (folder / "labels.npz").write_bytes(b"PK")
    assert main(["report", str(folder)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "is no file that PartialLabels.save wrote, or is damaged" in line


def test_the_command_with_true_labels(folder, learned, tmp_path, capsys):
    truth = folder / "truth.csv"
    truth.write_text("path,class\n3.png,dog\nünï.png,dog\n5.png,cat\n", encoding="utf-8")
    args = ["report", str(folder), "--truth", str(truth)]
    before = (folder / "labels.npz").read_bytes()
    assert main(args) == 0
    said = capsys.readouterr().out
    assert "By 3 true labels: annotator right 33.3%, truth in the set 66.7%.\n" in said
    assert "all 3 33% 67%" in Page(folder / "report.html").text

    known = np.arange(6) == 3
    sets = np.where(known[:, None], np.eye(4, dtype=bool)[1], learned.candidates)
    learned.replace(candidates=sets, known=known).save(folder / "learned.npz")
    (folder / "training.json").write_text(json.dumps({"labels": digest(folder)}))
    assert main(args) == 0
    said = capsys.readouterr().out
    assert (
        "By 2 true labels: annotator right 0.0%, truth in the set 50.0%, learner right 50.0%."
        in said
    )
    assert "1 that fit was given are left out." in said
    assert (folder / "labels.npz").read_bytes() == before


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "There is no file"),
        ("path,class\n", "truth.csv has nothing to judge by: it holds no labels."),
        ("path,class\n3.png,cow\n", "truth.csv, line 2: 'cow' is no class"),
        ("path,class\n9.png,cat\n", "truth.csv, line 2: '9.png' is no annotated image"),
    ],
)
def test_wrong_true_labels(text, message, folder, capsys):
    if text is not None:
        (folder / "truth.csv").write_text(text)
    assert main(["report", str(folder), "--truth", str(folder / "truth.csv")]) == 1
    assert message in capsys.readouterr().err
    assert not (folder / "report.html").exists()
