"""The benchmark harness: resumable runs, error rows, tables, and suites that cannot run here."""

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from npllbench import SUITES, Method, SkipSuite, Task, get_methods, register, run_suite, tables
from npllbench import methods as registry
from npllbench.growth import exponents
from npllbench.loaders import long_tail, swap_truth
from npllbench.methods import non_default, sample_settings, why_not, with_epochs
from npllbench.paper import paper_suite
from npllbench.results import COLUMNS, read_rows

from sklearn_npll import CoRegClassifier

TASK = "mixture-uniform-q0.1-eta0.1"
SIZES = {"n_train": 120, "n_test": 60}
FITS = []


class Nearest(ClassifierMixin, BaseEstimator):
    """Nearest mean of the samples that hold a class; `power` is there to be tuned."""

    def __init__(self, power=2.0, fails=False):
        self.power = power
        self.fails = fails

    def fit(self, X, y=None):
        FITS.append(self.power)
        if self.fails:
            raise RuntimeError("no such\nluck")
        candidates = X.toarray().astype(float)
        self.classes_ = X.classes
        self.means_ = candidates.T @ X.data / candidates.sum(0)[:, None]
        return self

    def predict_proba(self, X):
        distance = np.abs(X[:, None] - self.means_) ** self.power
        proba = np.exp(-distance.mean(2))
        return proba / proba.sum(1, keepdims=True)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(1)]


@pytest.fixture
def dummies(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    FITS.clear()
    space = {"power": [0.5, 1.0, 3.0]}
    register(Method("nearest", Nearest, space=space))
    register(Method("broken", lambda: Nearest(fails=True)))
    return ["nearest", "broken"]


def run(folder, methods, **options):
    lines = []
    options = {"seeds": [0, 1], "tasks": [TASK], "passes": 4, **SIZES, **options}
    rows = run_suite(SUITES["synthetic"], methods, output=folder, report=lines.append, **options)
    return rows, lines


def test_a_run_gives_complete_rows_with_figures_in_range(tmp_path, dummies):
    rows, lines = run(tmp_path, ["nearest", "Co-Reg"])
    assert [(r["method"], r["seed"]) for r in rows] == [
        ("nearest", 0),
        ("Co-Reg", 0),
        ("nearest", 1),
        ("Co-Reg", 1),
    ]
    assert len(lines) == 4
    for row in rows:
        assert tuple(row) == COLUMNS
        assert (row["status"], row["error"], row["session"]) == ("ok", "", 0)
        assert (row["n_train"], row["n_test"], row["n_classes"]) == (120, 60, 10)
        assert 0 <= row["accuracy"] <= 1 and 0 <= row["approximated_accuracy"] <= 1
        assert 0.7 < row["coverage"] < 1 and 1 < row["mean_set_size"] < 3
    nearest, coreg = rows[:2]
    assert coreg["epochs"] == 2 and coreg["gradient_samples"] == pytest.approx(480, rel=0.1)
    assert coreg["accuracy_single"] is not None and coreg["train_accuracy"] is not None
    assert nearest["accuracy_single"] is None and nearest["params"] == "{}"
    assert nearest["accuracy"] > 0.5
    assert read_rows(tmp_path / "synthetic.csv") == rows


def test_an_interrupted_benchmark_continues(tmp_path, dummies):
    rows, _ = run(tmp_path, ["nearest"])
    path = tmp_path / "synthetic.csv"
    whole = path.read_text()
    again, lines = run(tmp_path, ["nearest"])
    assert (again, lines, len(FITS)) == (rows, [], 2)

    path.write_text(whole[:-20])  # the last row is half written
    again, lines = run(tmp_path, ["nearest"])
    assert len(lines) == 1 and len(FITS) == 3
    assert [r["accuracy"] for r in again] == [r["accuracy"] for r in rows]
    assert [r["session"] for r in again] == [0, 1]
    assert len(read_rows(path)) == 2


def test_a_failure_is_a_row_and_is_repeated_on_request_only(tmp_path, dummies):
    rows, _ = run(tmp_path, dummies, seeds=[0])
    assert [r["status"] for r in rows] == ["ok", "error"]
    assert rows[1]["error"] == "RuntimeError: no such luck"
    run(tmp_path, dummies, seeds=[0])
    assert len(FITS) == 2
    register(Method("broken", Nearest))
    rows, _ = run(tmp_path, dummies, seeds=[0], retry=True)
    assert len(FITS) == 3
    assert [r["status"] for r in rows] == ["ok", "ok"]


class Costly(Nearest):
    """An epoch takes what the fit alone tells: seven rows a sample."""

    def __init__(self, max_epochs=1):
        super().__init__()
        self.max_epochs = max_epochs

    def fit(self, X, y=None):
        self.history_ = [{"gradient_samples": 7 * len(X)}] * self.max_epochs
        return super().fit(X, y)


def test_work_of_no_fixed_cost_is_corrected(tmp_path, dummies):
    register(Method("costly", Costly, networks=1, passes=2))
    rows, _ = run(tmp_path, ["costly"], passes=70)
    # the first seed finds the ten epochs at its second fit, the other knows them from the first
    assert [r["epochs"] for r in rows] == [10, 10] and len(FITS) == 3
    assert [r["gradient_samples"] for r in rows] == [70 * 120] * 2
    assert all('"max_epochs": 10' in r["params"] for r in rows)


def test_a_missing_estimator_is_an_error_not_a_gap(tmp_path, dummies):
    registry._add("absent", "NoSuchClassifier")
    rows, _ = run(tmp_path, ["absent"], seeds=[0])
    assert rows[0]["error"] == "ImportError: sklearn_npll.baselines has no NoSuchClassifier"


def test_the_same_seed_gives_the_same_digits(tmp_path):
    first, _ = run(tmp_path / "a", ["Co-Reg"], seeds=[3])
    second, _ = run(tmp_path / "b", ["Co-Reg"], seeds=[3])
    for name in ("accuracy", "accuracy_single", "approximated_accuracy", "gradient_samples"):
        assert first[0][name] == second[0][name]


def test_results_of_other_settings_are_not_mixed(tmp_path, dummies):
    run(tmp_path, ["nearest"], seeds=[0])
    with pytest.raises(ValueError, match="choose another output"):
        run(tmp_path, ["nearest"], seeds=[0], n_train=60)


def test_the_budget_sets_epochs_and_phases():
    class Counted(CoRegClassifier):
        def gradient_samples_per_epoch(self, n_samples):
            return 3 * n_samples

    schedule = {"shared": {"max_epochs": 20, "warm_up": 5, "lr": 0.03}, "coreg": {}}
    method = Method("counted", Counted, networks=1)
    estimator = method.build(schedule, 7, n_train=100, budget=12_100)
    assert (estimator.max_epochs, estimator.warm_up) == (40, 10)
    assert (estimator.lr, estimator.random_state) == (0.03, 7)
    assert method.build(schedule, 7, 100).max_epochs == 20


def test_an_ablation_changes_the_schedule_of_coreg():
    schedule = SUITES["fashion"].task_schedule("union")
    for method in get_methods("ablation"):
        estimator = method.build(schedule, 0)
        assert estimator.max_epochs == 40 and estimator.warm_up == "auto"
        assert non_default(method.make()).items() <= non_default(estimator).items()


def test_the_variants_of_coreg_take_their_own_warm_up():
    schedule = SUITES["fashion"].task_schedule("union")
    default, paper = (m.build(schedule, 0) for m in get_methods(["Co-Reg", "Co-Reg (paper)"]))
    assert (default.variant, default.warm_up) == ("robust", "auto")
    assert (paper.variant, paper.warm_up) == ("paper", "auto")
    faithful = get_methods(["Co-Reg"])[0].build(SUITES["paper"].task_schedule("CIFAR-100"), 0)
    assert (faithful.variant, faithful.warm_up, faithful.max_epochs) == ("paper", 100, 800)


def test_fewer_epochs_shorten_the_phases_in_proportion():
    schedule = {"shared": {"max_epochs": 20, "warm_up": 5}, "coreg": {"contrastive_start": 4}}
    short = with_epochs(schedule, 4)
    assert short == {
        "shared": {"max_epochs": 4, "warm_up": 1},
        "coreg": {"contrastive_start": 1},
    }


def test_the_tuned_track_chooses_by_the_validation_rows(tmp_path, dummies):
    rows, _ = run(tmp_path, ["nearest"], seeds=[0], track="tuned", trials=3, n_val=40)
    trials = [r for r in rows if r["track"].startswith("trial-")]
    assert len(trials) == 3 and trials[0]["params"] == "{}"
    tracks = {"tuned-label-free": "val_approximated_accuracy", "tuned-labelled": "val_accuracy"}
    for track, column in tracks.items():
        chosen = next(r for r in rows if r["track"] == track)
        best = max(trials, key=lambda r: r[column])
        assert {**chosen, "track": ""} == {**best, "track": ""}
    again, lines = run(tmp_path, ["nearest"], seeds=[0], track="tuned", trials=3, n_val=40)
    assert again == rows and not lines


def test_trials_are_distinct_and_the_first_is_the_default(dummies):
    method = get_methods("nearest")[0]
    settings = sample_settings(method, 3, seed=0)
    assert settings[0] == {} and len(settings) == 3
    assert settings[1] != settings[2]
    assert settings == sample_settings(method, 3, seed=0)


def test_swap_truth_replaces_the_true_label_by_one_outside_the_set():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 5, 4000)
    candidates = np.eye(5, dtype=bool)[y]
    candidates |= np.eye(5, dtype=bool)[(y + 1) % 5]
    candidates[:10] = True
    noisy = swap_truth(candidates, y, 0.3, rng)
    assert np.array_equal(noisy.sum(1), candidates.sum(1))
    assert noisy[:10].all()
    missing = ~noisy[np.arange(4000), y]
    assert abs(missing.mean() - 0.3) < 0.03
    assert np.array_equal(noisy[~missing], candidates[~missing])
    entered = (noisy & ~candidates)[missing].argmax(1)
    shift = np.bincount((entered - y[missing]) % 5, minlength=5)
    assert shift[0] == shift[1] == 0 and shift[2:].min() > 0.25 * missing.sum()


def test_long_tail_by_hand():
    target = np.tile([0, 1, 2], 30)
    rows = np.random.default_rng(0).permutation(90)
    # shares 1, 1/3, 1/9 of 26 rows are 18, 6 and 2, for classes in an order that is drawn
    order = np.random.default_rng(7).permutation(3)
    kept = long_tail(rows, target, 26, 9, 9, np.random.default_rng(7))
    assert np.bincount(target[kept[:26]]).tolist() == np.array([18, 6, 2])[order].tolist()
    assert np.array_equal(kept[26:], rows[:9])  # the validation rows are not cut
    assert len(np.unique(kept)) == 35


def row(task, method, seed, accuracy, suite="s", **more):
    return {
        "suite": suite,
        "task": task,
        "method": method,
        "seed": seed,
        "track": "default",
        "status": "ok",
        "accuracy": accuracy,
        "accuracy_single": None,
        **more,
    }


def test_ranks_by_hand():
    rows = [row("a", m, s, x) for m, x in (("Co-Reg", 0.9), ("B", 0.8), ("C", 0.8)) for s in (0, 1)]
    rows += [row("b", m, 0, x) for m, x in (("Co-Reg", 0.5), ("B", 0.7), ("C", 0.6), ("D", 0.9))]
    rows += [row("c", m, 0, x, "t") for m, x in (("Co-Reg", 0.9), ("B", 0.1), ("C", 0.2))]
    assert tables.ranks(rows)["s", "a"] == {"Co-Reg": 1, "B": 2.5, "C": 2.5}
    assert tables.ranks(rows)["s", "b"] == {"Co-Reg": 3, "B": 1, "C": 2}  # D is not in every task
    # over the tasks of a suite first: Co-Reg (2 + 1) / 2, B (1.75 + 3) / 2, C (2.25 + 2) / 2
    assert tables.average_ranks(rows) == {"Co-Reg": 1.5, "C": 2.125, "B": 2.375}
    assert "| Co-Reg | 2.0 | 1.0 | 1.50 |" in tables.rank_table(rows)


def test_tasks_of_one_method_become_the_rows_of_a_table():
    rows = [row("a", m, s, x) for m, x in (("Co-Reg", 0.9), ("B", 0.8)) for s in (0, 1)]
    rows += [row("few-prompts", "Co-Reg", s, 0.5) for s in (0, 1)]
    compared, single = tables.split_single(rows)
    assert compared == rows[:4]
    assert tables.summarise(single) == {("s", "Co-Reg"): {"few-prompts": (0.5, 0.0, 2)}}


def test_paired_comparison_by_hand():
    other = [0.4, 0.4, 0.5, 0.7, 0.3, 0.2, 0.9]
    rows = [row("a", "Co-Reg", s, 0.5) for s in range(6)]
    rows += [row("a", "B", s, x) for s, x in enumerate(other)] + [row("a", "C", 0, 0.25)]
    compared = tables.paired(rows)
    assert compared["C"] == {
        "pairs": 1,
        "difference": 0.25,
        "wins": 1,
        "ties": 0,
        "losses": 0,
        "p": None,
    }
    b = compared["B"]  # the seventh seed has no partner
    assert (b["pairs"], b["wins"], b["ties"], b["losses"]) == (6, 4, 1, 1)
    assert b["difference"] == pytest.approx((0.1 + 0.1 + 0 - 0.2 + 0.2 + 0.3) / 6)
    assert 0.1 < b["p"] < 0.6


def test_accuracy_table_shows_deviation_single_networks_and_failures():
    rows = [row("a", "Co-Reg", s, x, accuracy_single=x - 0.1) for s, x in enumerate((0.8, 0.9))]
    rows += [row("a", "B", 0, 0.5), row("a", "B", 1, None, status="error")]
    table = tables.accuracy_table(rows)
    assert "| Co-Reg | **85.00 ± 7.07** | 1.0 |" in table
    assert "| Co-Reg, single network | 75.00 ± 7.07 |  |" in table
    assert "| B | 50.00 (1 failed) | 2.0 |" in table


def test_the_report_holds_tables_and_figures(tmp_path, dummies):
    pytest.importorskip("matplotlib")
    import report

    run(tmp_path, dummies, seeds=[0])
    report.main(["--input", str(tmp_path)])
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| nearest | **" in text and "| broken |  (1 failed)" in text.replace("| (1", "|  (1")
    assert (tmp_path / "report" / "synthetic.png").stat().st_size > 1000
    table = (tmp_path / "report" / "synthetic.csv").read_text().splitlines()
    assert table[0] == f"method,{TASK},rank"
    assert table[1].startswith("nearest,**") and table[2] == "broken,(1 failed),"


@pytest.mark.parametrize("name", ["cifar10n", "pll", "caltech-clip"])
def test_suites_without_their_data_say_so(name, monkeypatch, tmp_path):
    monkeypatch.delenv("SKLEARN_NPLL_DATA", raising=False)
    with pytest.raises(SkipSuite, match="SKLEARN_NPLL_DATA"):
        run_suite(SUITES[name], output=tmp_path)
    monkeypatch.setenv("SKLEARN_NPLL_DATA", str(tmp_path))
    with pytest.raises(SkipSuite, match="has no"):
        run_suite(SUITES[name], output=tmp_path)


@pytest.mark.parametrize("name", ["cifar10n", "pll", "caltech-clip"])
def test_suites_load_the_development_data(name, shared_data):
    suite = SUITES[name]
    for loader in suite.tasks.values():
        task = loader(1, n_train=40, n_test=20, n_val=10)
        assert isinstance(task, Task)
        assert (len(task.labels), len(task.y_train), len(task.X_val)) == (40, 40, 10)
        assert len(task.X_test) == len(task.y_test) == 20
        assert set(task.y_test) <= set(task.labels.classes.tolist())
        assert task.kind == suite.kind
    if name == "pll":
        split = [suite.tasks["lost"](s, n_train=None, n_test=None, n_val=0) for s in range(10)]
        assert sum(len(task.y_test) for task in split) == 1122
        assert {len(task.y_train) for task in split} == {1009, 1010}
        assert all(task.noise_rate == 0 for task in split)


def test_the_paper_needs_a_gpu(monkeypatch):
    pytest.importorskip("torchvision")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SkipSuite, match="no CUDA device"):
        paper_suite().check()


def test_dry_run_of_the_paper(tmp_path):
    suite = paper_suite(dry_run=True)
    rows = run_suite(suite, ["Co-Reg"], output=tmp_path, tasks=["FMNIST"], report=lambda line: None)
    assert (rows[0]["status"], rows[0]["epochs"]) == ("ok", 1), rows[0]["error"]
    assert '"module": "preact_resnet18"' in rows[0]["params"]


def test_methods_apply_where_their_data_are():
    methods = {method.name: method for method in get_methods()}
    assert why_not(methods["PL-kNN"], SUITES["fashion"]) == "it does not learn from images"
    assert "test rows have no votes" in why_not(methods["majority vote"], SUITES["cifar10n"])
    assert "have no scores" in why_not(methods["KD*"], SUITES["pll"])
    assert not any(why_not(methods["Co-Reg"], suite) for suite in SUITES.values())
    with pytest.raises(ValueError, match="unknown method 'Coreg'"):
        get_methods(["Coreg"])


def test_growth_exponent():
    rows = [
        {"method": "m", "axis": "n", "size": n, "seconds": 3e-6 * n**1.5, "status": "ok"}
        for n in (10, 100, 1000)
    ]
    rows.append({**rows[0], "size": 10**6, "seconds": None, "status": "over 5 s"})
    assert exponents(rows)["m", "n"] == pytest.approx(1.5)


def test_few_labels_are_true_and_as_many_of_each_class():
    from npllbench.loaders import few_labels

    target = np.array([0, 1, 1, 0, 1, 0, 0])
    given = few_labels(target, ["cat", "dog"], 2)
    assert given.tolist() == ["cat", "dog", "dog", "cat", "-1", "-1", "-1"]
    assert few_labels(target, ["cat", "dog"], 0) is None
    for name in ("few-shot", "few-shot-images"):
        task = SUITES[name].tasks["labels-2"](0, n_train=60, n_test=5, n_val=0)
        known = task.labels.known
        assert known.sum() <= 20 and task.labels[known].coverage(task.y_train[known]) == 1
        assert (task.labels.set_sizes[known] == 1).all()


def test_the_curve_of_few_labels(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    drawn = []
    monkeypatch.setattr(tables, "_save", lambda plt, figure, path: drawn.append(figure))
    rows = [row(f"labels-{k}", "A", s, k / 20 + s / 10) for k in (0, 2, 16) for s in (0, 1)]
    rows += [row("labels-16", "B", 0, 0.9)]
    tables.plot_few_shot(rows, tmp_path / "x.png")
    axes = drawn[0].axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["B", "A"]  # the best at its most labels first
    line = {c.get_label(): c.lines[0] for c in axes.containers}["A"]
    assert line.get_xdata().tolist() == [0, 2, 16]
    assert line.get_ydata() == pytest.approx([5, 15, 85])


def test_the_report_of_results_that_are_no_suites(tmp_path):
    import json

    import report

    figures = {"f1": {"mean": 0.75}, "accuracy": {"mean": 0.5}}
    results = {
        "detection": {"a | noisy | LR | none": figures, "a | noisy | LR | vote": figures},
        "options": {"t": {"default": {"mean": 70, "std": 1}, "new": {"mean": 71.25, "std": 2}}},
    }
    for name, summary in results.items():
        result = {"summary": summary, "environment": {"command": "python x.py"}}
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    (tmp_path / "suites").mkdir()
    report.main(["--input", str(tmp_path / "suites")])
    folder = tmp_path / "suites" / "report"
    lines = (folder / "detection.csv").read_text().splitlines()
    assert lines == ["data,noise,learner,none,vote", "a,noisy,LR,75.0 / 50.0,75.0 / 50.0"]
    lines = (folder / "options.csv").read_text().splitlines()
    assert lines == ["option,t", "default,70.0 ± 1.0", "new,71.2 ± 2.0"]
    assert "Made by `python x.py`" in (folder / "report.md").read_text()
