"""Annotation in shards: equal to one process, whatever is interrupted or killed."""

import os
import pickle
import signal
import threading
import uuid
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import shards_data
from fakes import FeatureVLM
from shards_data import (
    CLASSES,
    LABELS,
    ROWS,
    BatchVLM,
    N,
    X,
    brightest,
    kinds_of_samples,
    make_annotator,
)
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler

from sklearn_npll import PartialLabels, VLMPartialAnnotator
from sklearn_npll._images import ImageReadError
from sklearn_npll.annotators import (
    ChatError,
    ChatPartialAnnotator,
    ConformalPartialAnnotator,
    EnsemblePartialAnnotator,
    _shard_files,
    annotate_shard,
    annotate_shards,
    merge_shards,
)
from sklearn_npll.baselines import PLKNeighborsClassifier

# Fixtures, which pytest finds by their names here.
annotator = shards_data.annotator
folder = shards_data.folder


class MortalVLM(BatchVLM):
    """Writes down what it is asked, and dies of the black image, the first time that one sees it.

    It dies as a process out of memory does, or as the user presses Ctrl-C.
    """

    def __init__(self, folder, death=None):
        super().__init__()
        self.folder = Path(folder)
        self.death = death

    def encode_image(self, images):
        dark = not all(np.asarray(image).any() for image in images)
        if dark and self.death and not (self.folder / "died").exists():
            (self.folder / "died").touch()
            if self.death == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt
        (self.folder / f"{uuid.uuid4()}.call").write_text(str(len(images)))
        return super().encode_image(images)

    def count(self):
        """Images encoded since the last count, by all processes."""
        calls = list(self.folder.glob("*.call"))
        n_images = sum(int(path.read_text()) for path in calls)
        for path in calls:
            path.unlink()
        return n_images


class Plain(TransformerMixin, BaseEstimator):
    """An annotator that knows nothing of this package but its container."""

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return PartialLabels.from_candidates(np.eye(2)[np.asarray(X, dtype=int) % 2], data=X)


def assert_same(labels, expected):
    assert labels.classes.tolist() == expected.classes.tolist()
    np.testing.assert_array_equal(labels.toarray(), expected.toarray())
    for name in ("scores", "votes", "known"):
        value, wanted = getattr(labels, name), getattr(expected, name)
        assert getattr(value, "dtype", None) == getattr(wanted, "dtype", None), name
        np.testing.assert_array_equal(value, wanted, err_msg=name)


class TestEquality:
    def test_every_kind_of_samples(self, annotator, tmp_path):
        for kind, samples in kinds_of_samples(tmp_path).items():
            paths = annotate_shards(annotator, samples, tmp_path / kind, shard_size=8)
            assert [len(PartialLabels.load(path)) for path in paths] == [8, 8, 5], kind
            labels = merge_shards(tmp_path / kind, samples)
            assert labels.data is samples
            assert_same(labels, annotator.transform(samples))
            if "paths" in kind:
                samples = list(map(str, samples))
                assert merge_shards(tmp_path / kind).data == samples, kind
            else:
                assert merge_shards(tmp_path / kind).data is None, kind

    @pytest.mark.parametrize("samples", [ROWS, pd.DataFrame(ROWS, columns=list("abcde"))])
    def test_features(self, samples, folder):
        annotator = make_annotator(FeatureVLM())
        for pipe in (clone(annotator), make_pipeline(MaxAbsScaler(), annotator)):
            pipe.fit(samples)
            annotate_shards(pipe, samples, folder / type(pipe).__name__, shard_size=4)
            labels = merge_shards(folder / type(pipe).__name__, samples)
            assert_same(labels, pipe.transform(samples))

    def test_shards_have_whole_batches(self, annotator, folder):
        (sixteen,) = annotate_shards(annotator, X[:16], folder / "a", shard_size=13)
        assert len(PartialLabels.load(sixteen)) == 16
        by_hand = PartialLabels.concatenate(
            [annotator.transform(X[:13]), annotator.transform(X[13:16])]
        )
        assert (by_hand.scores != annotator.transform(X[:16]).scores).any()
        assert_same(merge_shards([sixteen]), annotator.transform(X[:16]))

    def test_whole_batches_of_all_members(self, folder):
        members = [("a", make_annotator(batch_size=2)), ("b", make_annotator(batch_size=3))]
        ensemble = EnsemblePartialAnnotator(members).fit(X)
        paths = annotate_shards(ensemble, X, folder, shard_size=4)
        assert [len(PartialLabels.load(path)) for path in paths] == [6, 6, 6, 3]
        assert_same(merge_shards(folder), ensemble.transform(X))

    def test_other_annotators(self, annotator, folder):
        chat = ChatPartialAnnotator(CLASSES, backend=brightest, questions="simple", batch_size=3)
        conformal = ConformalPartialAnnotator(make_annotator(), coverage=0.8)
        for name, other in {"chat": chat.fit(X), "conformal": conformal}.items():
            other = conformal.fit(X, known_labels=LABELS) if other is conformal else other
            annotate_shards(other, X, folder / name, shard_size=4)
            assert_same(merge_shards(folder / name, X), other.transform(X))
        plain = Plain().fit(None)
        annotate_shards(plain, list(range(5)), folder / "plain", shard_size=2)
        assert_same(merge_shards(folder / "plain"), plain.transform(range(5)))

    def test_many_classes(self, folder):
        annotator = VLMPartialAnnotator(
            [f"class {i}" for i in range(70)], vlm=FeatureVLM(), batch_size=4
        ).fit(ROWS)
        annotate_shards(annotator, ROWS, folder, shard_size=4)
        labels, expected = merge_shards(folder), annotator.transform(ROWS)
        assert type(labels.candidates) is type(expected.candidates)
        assert_same(labels, expected)

    def test_embeddings(self, folder):
        annotator = make_annotator(output="embeddings").fit(X)
        annotate_shards(annotator, X, folder, shard_size=4)
        np.testing.assert_array_equal(merge_shards(folder).data, annotator.embed(X))
        # What compares samples is then done with all of them.
        refined = clone(annotator).set_params(refine="zlap", rule="cpl").fit(X)
        expected = refined.transform(X)
        labels = refined.transform(merge_shards(folder).data)
        np.testing.assert_allclose(labels.scores, expected.scores, rtol=1e-4)
        np.testing.assert_array_equal(labels.candidates, expected.candidates)

    def test_drop(self, annotator, folder):
        annotate_shards(annotator, X, folder, shard_size=8, drop=["scores", "votes"])
        labels = merge_shards(folder)
        np.testing.assert_array_equal(labels.candidates, annotator.transform(X).candidates)
        assert labels.scores is labels.votes is None

    def test_unreadable_images(self, tmp_path):
        paths = kinds_of_samples(tmp_path)["paths"]
        paths[13].write_bytes(b"no image")
        annotator = make_annotator().fit(paths)
        with pytest.raises(ImageReadError, match="Image 13 .*13.png") as caught:
            annotate_shards(annotator, paths, tmp_path / "a", shard_size=4)
        assert caught.value.index == 13
        assert_same(
            merge_shards(sorted((tmp_path / "a").glob("*.npz"))), annotator.transform(paths[:12])
        )
        annotator.set_params(on_error="skip")
        with pytest.warns(UserWarning, match="1 of 4 images cannot be read"):
            annotate_shards(annotator, paths, tmp_path / "b", shard_size=4)
        assert (merge_shards(tmp_path / "b").votes[13] == -1).all()

    def test_unanswered_questions(self, folder):
        chat = ChatPartialAnnotator(CLASSES, backend=moody, questions="simple", batch_size=2)
        with pytest.raises(ChatError, match="about image 5 "):
            annotate_shards(chat.fit(X), np.arange(10.0)[:, None], folder, shard_size=2)


def moody(rows, prompt):
    return [None if row[0] == 5 else "red" for row in rows]


class TestRestart:
    def test_only_what_is_missing(self, tmp_path, folder):
        vlm = MortalVLM(tmp_path)
        annotator = make_annotator(vlm).fit(X)
        paths = annotate_shards(annotator, X, folder, shard_size=4)
        before = [path.read_bytes() for path in paths]
        assert vlm.count() == N
        assert annotate_shards(annotator, X, folder, shard_size=4) == paths
        assert vlm.count() == 0
        paths[2].unlink()
        paths[5].unlink()
        with pytest.raises(ValueError, match="2 of 6 shards are missing, first shard-00002.npz"):
            merge_shards(folder)
        annotate_shards(pickle.loads(pickle.dumps(annotator)), X.copy(), folder, shard_size=4)
        assert vlm.count() == 5
        again = [PartialLabels.load(path).scores.tobytes() for path in paths]
        for path, content in zip(paths, before):
            path.write_bytes(content)
        assert again == [PartialLabels.load(path).scores.tobytes() for path in paths]

    def test_what_does_not_matter_may_change(self, annotator, folder):
        paths = annotate_shards(annotator, X, folder, shard_size=4)
        times = [path.stat().st_mtime_ns for path in paths]
        other = make_annotator(verbose=True, cache_dir=folder / "cache", device="cpu").fit(X[:3])
        annotate_shards(other, X, folder, shard_size=3, n_jobs=1, verbose=True)
        assert [path.stat().st_mtime_ns for path in paths] == times

    def test_interrupted(self, tmp_path, folder):
        vlm, dark = MortalVLM(tmp_path, "interrupted"), X.copy()
        dark[9] = 0
        annotator = make_annotator(vlm).fit(dark)
        with pytest.raises(KeyboardInterrupt):
            annotate_shards(annotator, dark, folder, shard_size=4)
        names = ["manifest.json", "shard-00000.npz", "shard-00001.npz"]
        assert sorted(os.listdir(folder)) == names
        assert vlm.count() == 8
        annotate_shards(annotator, dark, folder, shard_size=4)
        assert vlm.count() == N - 8
        assert_same(merge_shards(folder), annotator.transform(dark))

    def test_interrupted_while_writing(self, annotator, folder, monkeypatch):
        write = _shard_files.write_labels

        def interrupted(file, labels):
            write(file, labels)
            raise KeyboardInterrupt

        monkeypatch.setattr(_shard_files, "write_labels", interrupted)
        with pytest.raises(KeyboardInterrupt):
            annotate_shards(annotator, X, folder, shard_size=4)
        assert os.listdir(folder) == ["manifest.json"]

    @pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "other"])
    def test_damaged(self, damage, tmp_path, folder):
        vlm = MortalVLM(tmp_path)
        annotator = make_annotator(vlm).fit(X)
        paths = annotate_shards(annotator, X, folder, shard_size=8)
        vlm.count()
        content = bytearray(paths[1].read_bytes())
        with zipfile.ZipFile(paths[1]) as file:
            scores = file.getinfo("scores.npy")
        content[scores.header_offset + scores.compress_size // 2] ^= 1
        contents = {"cut": content[:-1], "empty": b"", "flipped": content, "other": b"text" * 99}
        paths[1].write_bytes(contents[damage])
        with pytest.raises(ValueError, match="shard-00001.npz is damaged; annotate again"):
            merge_shards(folder)
        with pytest.warns(UserWarning, match="shard-00001.npz is damaged, and its") as record:
            annotate_shards(annotator, X, folder, shard_size=8)
        assert record[0].filename == __file__
        assert vlm.count() == 8
        assert_same(merge_shards(folder), annotator.transform(X))

    def test_no_damage_goes_unnoticed(self, annotator, tmp_path):
        path = annotate_shard(annotator, X, tmp_path / "a")
        expected, content = PartialLabels.load(path), path.read_bytes()
        rng, noticed = np.random.default_rng(0), 0
        for _ in range(300):
            damaged = bytearray(content)
            damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            try:
                labels = merge_shards([path])
            except ValueError:
                noticed += 1
            else:  # a bit that means nothing, such as of the time of writing
                assert_same(labels, expected)
        assert noticed > 100

    def test_one_file(self, tmp_path):
        vlm = MortalVLM(tmp_path)
        annotator = make_annotator(vlm).fit(X)
        path = annotate_shard(annotator, X, tmp_path / "deep" / "a")
        assert path == tmp_path / "deep" / "a.npz"
        assert vlm.count() == N
        annotate_shard(annotator, X, path)
        assert vlm.count() == 0
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.warns(UserWarning, match="a.npz is damaged, and its") as record:
            annotate_shard(annotator, X, path)
        assert record[0].filename == __file__
        assert vlm.count() == N

    def test_two_calls_at_once(self, folder):
        together = threading.Barrier(2, timeout=60)

        class Slow(BatchVLM):
            def encode_image(self, images):
                if not together.broken and len(images) == 4:
                    together.wait()  # both are at the same shard
                return super().encode_image(images)

        annotators = [make_annotator(Slow()).fit(X) for _ in range(2)]
        joblib.Parallel(n_jobs=2, backend="threading")(
            joblib.delayed(annotate_shards)(annotator, X, folder, shard_size=4)
            for annotator in annotators
        )
        # nobody waits at the last shard, of one image, so that one call may find it there
        assert all(annotator.vlm.n_images in (N - 1, N) for annotator in annotators)
        assert len(os.listdir(folder)) == 7  # and no part of a file
        assert_same(merge_shards(folder), make_annotator().fit(X).transform(X))


def test_progress(annotator, folder, capsys):
    annotate_shards(annotator, X, folder, shard_size=8)
    assert "shard" not in capsys.readouterr().err
    (folder / "shard-00001.npz").unlink()
    annotate_shards(annotator, X, folder, shard_size=8, verbose=True)
    shown = capsys.readouterr().err
    assert "Annotating:  67%" in shown
    assert "3/3" in shown


def test_threads(annotator, folder):
    with joblib.parallel_backend("threading", n_jobs=2):
        annotate_shards(annotator, X, folder, shard_size=4)
    assert_same(merge_shards(folder), annotator.transform(X))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a system with SIGKILL")
def test_a_killed_process(tmp_path, folder):
    vlm, dark = MortalVLM(tmp_path, "killed"), X.copy()
    dark[13] = 0
    annotator = make_annotator(vlm).fit(dark)
    with pytest.raises(Exception, match="terminated"):
        annotate_shards(annotator, dark, folder, shard_size=4, n_jobs=2)
    there = {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-*")}
    assert "shard-00003.npz" not in there
    vlm.count()
    paths = annotate_shards(annotator, dark, folder, shard_size=4, n_jobs=2)
    assert vlm.count() == N - sum(min(4, N - 4 * int(name[6:11])) for name in there)
    assert there.items() <= {path.name: path.stat().st_mtime_ns for path in paths}.items()
    assert_same(merge_shards(folder), annotator.transform(dark))


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


@pytest.mark.slow
class TestDask:
    def test_a_killed_worker(self, client, tmp_path, folder):
        vlm = MortalVLM(tmp_path, "killed")
        dark = np.tile(X, (1, 8, 8, 1))  # joblib treats shards of more than a kilobyte differently
        dark[9] = 0
        annotator = make_annotator(vlm).fit(dark)
        before = set(client.run(os.getpid).values())
        with joblib.parallel_backend("dask", client=client):
            annotate_shards(annotator, dark, folder, shard_size=4)
        assert (tmp_path / "died").exists()
        client.wait_for_workers(2, timeout=60)
        assert len(before & set(client.run(os.getpid).values())) == 1
        assert vlm.count() >= N
        assert_same(merge_shards(folder), annotator.transform(dark))

    def test_samples_that_never_meet(self, client, tmp_path):
        bag = pytest.importorskip("dask.bag")
        annotator = make_annotator().fit(X[:1])

        def read(number):
            return np.random.default_rng(number).integers(1, 255, (8, 2, 2, 3), np.uint8)

        def annotate(number):
            return annotate_shard(annotator, read(number), tmp_path / f"{number}.npz")

        paths = bag.from_sequence(range(4), npartitions=4).map(annotate).compute(scheduler=client)
        labels = merge_shards(paths, np.concatenate([read(number) for number in range(4)]))
        assert_same(labels, annotator.transform(labels.data))

    def test_search(self, client):
        pipe = make_pipeline(
            VLMPartialAnnotator(CLASSES, vlm=FeatureVLM(), rule="topk"),
            PLKNeighborsClassifier(n_neighbors=3),
        )
        grid = {
            "vlmpartialannotator__rule_value": [1, 2],
            "plkneighborsclassifier__n_neighbors": [1, 5],
        }
        search = GridSearchCV(pipe, grid, cv=3, error_score="raise")
        serial = clone(search).fit(ROWS, LABELS)
        with joblib.parallel_backend("dask", client=client):
            parallel = clone(search).fit(ROWS, LABELS)
        for key in ("mean_test_score", "rank_test_score", "split0_test_score", "split2_test_score"):
            np.testing.assert_array_equal(parallel.cv_results_[key], serial.cv_results_[key])
        assert parallel.best_params_ == serial.best_params_
        np.testing.assert_array_equal(parallel.predict(ROWS), serial.predict(ROWS))
