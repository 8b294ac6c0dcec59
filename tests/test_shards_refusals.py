"""Annotation in shards: folders that are damaged or of other annotations, and their description."""

import json
import pickle

import numpy as np
import pytest
import shards_data
from fakes import write_tiny_clip
from shards_data import (
    CLASSES,
    LABELS,
    ROWS,
    BatchVLM,
    X,
    brightest,
    kinds_of_samples,
    make_annotator,
)
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler

from sklearn_npll import VLMPartialAnnotator
from sklearn_npll.annotators import (
    ChatPartialAnnotator,
    ConformalPartialAnnotator,
    EnsemblePartialAnnotator,
    annotate_shard,
    annotate_shards,
    merge_shards,
)
from sklearn_npll.annotators._fingerprint import describe, first_difference

# Fixtures, which pytest finds by their names here.
annotator = shards_data.annotator
folder = shards_data.folder


class TestRefusals:
    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"rule": "topk"}, "annotator.rule was 'union', and is 'topk' now"),
            ({"templates": ["{}", "a {}"]}, r"templates\[1\] was 'pale {}', and is 'a {}' now"),
            ({"batch_size": 2}, "batch_size was 4, and is 2 now"),
            ({"output": "embeddings"}, "output was 'images', and is 'embeddings' now"),
            ({"classes": ["red", "blue", "lush green"]}, r"classes\[1\] was 'green', and is 'lush"),
        ],
    )
    def test_another_annotator(self, annotator, folder, params, message):
        paths = annotate_shards(annotator, X, folder, shard_size=4)
        other = clone(annotator).set_params(**params).fit(X)
        with pytest.raises(ValueError, match=message):
            annotate_shards(other, X, folder, shard_size=4)
        with pytest.raises(ValueError, match="is of another annotator"):
            annotate_shard(other, X[:4], paths[0])
        with pytest.raises(ValueError, match="b.npz is not of the same annotator and drop"):
            merge_shards([paths[0], annotate_shard(other, X[:4], folder / "b")])

    def test_another_model(self, annotator, folder):
        annotate_shards(annotator, X, folder)
        vlm = BatchVLM()
        vlm.cache_key = "colour 2"
        with pytest.raises(
            ValueError, match="vlm.type was '.*VLM colour', and is '.*VLM colour 2'"
        ):
            annotate_shards(make_annotator(vlm).fit(X), X, folder)

    def test_other_weights(self, tmp_path):
        first, second = (
            VLMPartialAnnotator(
                CLASSES, model=write_tiny_clip(tmp_path / "clip", seed=seed), templates="{}"
            ).fit(X)
            for seed in (0, 1)
        )
        annotate_shards(first, X, tmp_path / "labels")
        with pytest.raises(ValueError, match="prompted.weights was '.*', and is '.*' now"):
            annotate_shards(second, X, tmp_path / "labels")

    def test_other_samples(self, annotator, tmp_path):
        folder = tmp_path / "labels"
        paths = [str(path) for path in kinds_of_samples(tmp_path)["paths"]]
        annotate_shards(annotator, paths, folder, shard_size=4)
        with pytest.raises(ValueError, match="n_samples was 21, and is 20 now"):
            annotate_shards(annotator, paths[1:], folder, shard_size=4)
        for other in ([*paths[:5], paths[6], paths[5], *paths[7:]], X):
            with pytest.raises(ValueError, match=r"shard-0000\d.npz is of other samples"):
                annotate_shards(annotator, other, folder, shard_size=4)
            with pytest.raises(ValueError, match=r"X\[\d:\d\] are not the samples that shard-0000"):
                merge_shards(folder, other)
        with pytest.raises(ValueError, match=r"X\[20:21\] are not the samples that shard-00005"):
            merge_shards(folder, paths[:20])
        with pytest.raises(ValueError, match="X has 22 samples, but the shards have 21"):
            merge_shards(folder, [*paths, "more.png"])

    def test_other_shards(self, annotator, folder):
        (path,) = annotate_shards(annotator, X, folder, drop=["votes"])
        with pytest.raises(ValueError, match="shard_size was 10000, and is 8 now"):
            annotate_shards(annotator, X, folder, shard_size=7, drop=["votes"])
        with pytest.raises(ValueError, match=r"drop was \['votes'\], and is \[\] now"):
            annotate_shards(annotator, X, folder)
        with pytest.raises(ValueError, match=r"was written with drop=\['votes'\]"):
            annotate_shard(annotator, X, path)
        other = annotate_shard(annotator, X, folder / "other")
        with pytest.raises(ValueError, match="other.npz is not of the same annotator and drop"):
            merge_shards([path, other])

    def test_files_of_other_things(self, annotator, folder):
        (path,) = annotate_shards(annotator, X, folder)
        annotator.transform(X).save(path)
        for call in (
            lambda: annotate_shards(annotator, X, folder),
            lambda: annotate_shard(annotator, X, path),
        ):
            with pytest.raises(ValueError, match="or not of annotate_shards at all"):
                call()
        for shards in (folder, [path]):
            with pytest.raises(ValueError, match="not of the same annotator"):
                merge_shards(shards)
        for no_folder in (path, folder / "none"):
            with pytest.raises(ValueError, match="has no manifest.json, so it is no folder"):
                merge_shards(no_folder)
        with pytest.raises(ValueError, match="no shards to merge"):
            merge_shards([])
        (folder / "manifest.json").write_text("{")
        with pytest.raises(ValueError, match="manifest.json is damaged .* Delete it"):
            annotate_shards(annotator, X, folder)

    @pytest.mark.parametrize(
        "params",
        [
            {"refine": "zlap"},
            {"rule": "cpl"},
            {"aggregation": "dawid_skene"},
            {"template_weights": "agreement"},
        ],
    )
    def test_what_compares_samples(self, params, folder):
        annotator = make_annotator(**params).fit(X)
        ensemble = EnsemblePartialAnnotator([annotator, make_annotator()]).fit(X)
        for estimator in (annotator, ensemble, make_pipeline(annotator).fit(X)):
            with pytest.raises(ValueError, match="VLMPartialAnnotator compares the samples"):
                annotate_shards(estimator, X, folder)
        assert not folder.exists()

    def test_arguments(self, annotator, folder):
        for X_wrong, error, message in [
            ([], ValueError, "0 sample"),
            (X[:0], ValueError, "0 sample"),
            ("cat.jpg", ValueError, "put it in a list"),
            (annotator.transform(X), ValueError, "annotated already"),
            ((x for x in X), TypeError, "X of type generator has no numbered samples"),
            (None, TypeError, "X of type NoneType has no length"),
        ]:
            with pytest.raises(error, match=message):
                annotate_shards(annotator, X_wrong, folder)
            with pytest.raises(error, match=message):
                annotate_shard(annotator, X_wrong, folder / "a")
        for params, message in [
            ({"shard_size": 0}, "'shard_size' parameter of annotate_shards must be an int"),
            ({"n_jobs": 1.5}, "'n_jobs' parameter of annotate_shards"),
            ({"drop": "votes"}, "'drop' parameter of annotate_shards"),
            ({"drop": ["vote"]}, "drop has 'vote'.* Did you mean 'votes'"),
            ({"drop": ["known"]}, "drop has 'known', but only 'scores' and 'votes'"),
        ]:
            with pytest.raises(ValueError, match=message):
                annotate_shards(annotator, X, folder, **params)
        with pytest.raises(ValueError, match="'annotator' parameter of annotate_shard must be"):
            annotate_shard("red", X, folder / "a")
        with pytest.raises(NotFittedError):
            annotate_shards(make_annotator(), X, folder)
        assert not folder.exists()
        with pytest.raises(TypeError, match="must return a PartialLabels"):
            annotate_shards(MaxAbsScaler().fit(ROWS), ROWS, folder)


class TestDescription:
    def test_is_plain_and_stable(self, annotator):
        chat = ChatPartialAnnotator(CLASSES, backend=brightest, embed=len).fit(X)
        conformal = ConformalPartialAnnotator(make_annotator(), coverage=0.8)
        conformal.fit(X, known_labels=LABELS)
        ensemble = EnsemblePartialAnnotator([annotator, chat]).fit(X)
        for estimator in (annotator, chat, conformal, ensemble, make_pipeline(annotator)):
            description = describe(estimator)
            assert json.loads(json.dumps(description)) == description
            if estimator is not ensemble and estimator is not chat:
                assert estimator.transform(X).mean_set_size >= 1
            assert first_difference(description, describe(estimator)) is None
            again = pickle.loads(pickle.dumps(estimator))
            assert first_difference(description, describe(again)) is None

    def test_sees_what_matters(self):
        def chat(**params):
            return describe(ChatPartialAnnotator(CLASSES, backend=brightest, **params).fit(X))

        assert first_difference(chat(), chat(max_tokens=9))[0] == "settings.max_tokens"
        assert first_difference(chat(), chat(questions="simple"))[0] == "prompts"
        embed = chat(embed=len), chat(embed=len, embed_threshold=0.5)
        assert first_difference(*embed)[0] == "match.threshold"
        assert describe(MaxAbsScaler().fit([[2.0]])) != describe(MaxAbsScaler().fit([[3.0]]))
        assert describe(np.zeros(2000)) != describe(np.zeros((2, 1000)))
        assert describe({1, 2}) == describe({2, 1})

    def test_nan_is_no_difference(self):
        assert first_difference({"a": float("nan")}, {"a": float("nan")}) is None
        assert first_difference({"a": [1]}, {"a": [1, 2]}) == ("a", [1], [1, 2])
        assert first_difference({"a": 1}, {}) == ("a", 1, None)
