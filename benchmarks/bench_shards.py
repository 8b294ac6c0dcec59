"""Cost of annotating in shards: time beside one process, size of the files, time to merge.

Seconds are those of the processor, which other work on the machine changes least.

Overhead: seconds of ``annotate_shards`` with one job, and of ``merge_shards``, against seconds of
``transform``, with the shipped model on its test images. The runs alternate, and the median ratio
is reported.

Size: bytes a row on disk of the same images' labels, of made-up labels of more classes, and of
paths; and seconds to write a shard of 10,000 rows.

Merge: seconds and peak memory of ``merge_shards`` for many made-up rows in shards of 10,000, and
seconds of a call that finds all of them there. Needs Linux for the memory.

    python benchmarks/bench_shards.py
    python benchmarks/bench_shards.py --n-images 512 --n-rows 20000 --output /dev/null
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from reporting import peak_memory, write_result
from sklearn.base import BaseEstimator, TransformerMixin

DROPS = {"all": [], "no scores": ["scores"], "candidates": ["scores", "votes"]}


class MadeUp(TransformerMixin, BaseEstimator):
    """Gives sample i scores and votes that depend on i only, as sharp as those of a CLIP."""

    def __init__(self, n_classes, n_templates=27):
        self.n_classes = n_classes
        self.n_templates = n_templates

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        from sklearn_npll import PartialLabels

        start = time.process_time()
        rng = np.random.default_rng(int(X[0, 0]))
        logits = 2.5 * rng.standard_normal((len(X), self.n_classes), dtype=np.float32)
        # Each template sees the two best classes, and one other in fifty times.
        best = np.argpartition(-logits, 2, axis=1)[:, :3]
        choice = rng.choice(3, size=(len(X), self.n_templates), p=[0.6, 0.38, 0.02])
        votes = np.take_along_axis(best, choice, axis=1)
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        classes = [f"class {i}" for i in range(self.n_classes)]
        union = PartialLabels.from_votes(votes, classes).candidates
        labels = PartialLabels(X, classes, union, scores=scores, votes=votes)
        self.seconds = time.process_time() - start
        return labels


def measure_overhead(arguments):
    from sklearn_npll import VLMPartialAnnotator
    from sklearn_npll.annotators import annotate_shards, merge_shards
    from sklearn_npll.datasets import load_fashion_mnist

    data = load_fashion_mnist("test")
    X = data.images[: arguments.n_images]
    annotator = VLMPartialAnnotator(data.class_prompts).fit(X)
    seconds = {"transform": [], "annotate_shards": [], "merge_shards": []}
    for repeat in range(arguments.repeats + 1):
        with tempfile.TemporaryDirectory() as folder:
            runs = {
                "transform": lambda: annotator.transform(X).candidates,
                "annotate_shards": lambda: annotate_shards(
                    annotator, X, folder, shard_size=arguments.shard_size
                ),
                "merge_shards": lambda: merge_shards(folder, X),
            }
            for name, run in runs.items():
                start = time.process_time()
                run()
                if repeat:  # the first warms up
                    seconds[name].append(time.process_time() - start)
    ratios = [b / a for a, b in zip(seconds["transform"], seconds["annotate_shards"])]
    sizes = {}
    for name, drop in DROPS.items():
        with tempfile.TemporaryDirectory() as folder:
            paths = annotate_shards(annotator, X, folder, drop=drop)
            sizes[name] = bytes_a_row(paths, len(X))
    return {
        "n_images": len(X),
        "shard_size": arguments.shard_size,
        "seconds": {name: statistics.median(own) for name, own in seconds.items()},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "bytes_a_row": sizes,
    }


def measure_size(n_classes, n_rows):
    from sklearn_npll.annotators import annotate_shards

    X = np.arange(n_rows)[:, None]
    annotator = MadeUp(n_classes).fit(X)
    sizes, seconds = {}, {}
    for name, drop in DROPS.items():
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            paths = annotate_shards(annotator, X, folder, shard_size=n_rows, drop=drop)
            seconds[name] = time.process_time() - start - annotator.seconds
            sizes[name] = bytes_a_row(paths, n_rows)
    return {"n_rows": n_rows, "bytes_a_row": sizes, "seconds_to_write": seconds}


def measure_path_size(n_rows):
    """Bytes a row of paths with names as hard to compress as hashes."""
    from sklearn_npll import PartialLabels

    rng = np.random.default_rng(0)
    paths = [f"/data/images/{i // 1000:05d}/{rng.bytes(16).hex()}.jpg" for i in range(n_rows)]
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for data in (paths, None):
            files.append(Path(folder) / f"{len(files)}.npz")
            PartialLabels.from_candidates(np.ones((n_rows, 2)), data).save(files[-1])
        return bytes_a_row(files[:1], n_rows) - bytes_a_row(files[1:], n_rows)


def bytes_a_row(paths, n_rows):
    return round(sum(path.stat().st_size for path in paths) / n_rows, 1)


def measure_merge(arguments):
    from sklearn_npll.annotators import annotate_shards

    X = np.arange(arguments.n_rows)[:, None]
    annotator = MadeUp(arguments.n_classes).fit(X)
    with tempfile.TemporaryDirectory() as folder:
        seconds = {}
        for name in ("write", "find all there"):
            start = time.process_time()
            paths = annotate_shards(annotator, X, folder)
            seconds[name] = time.process_time() - start
        command = [sys.executable, __file__, "--child", folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds["merge"], before, after, size = map(float, done.stdout.split())
        return {
            "n_rows": len(X),
            "n_classes": arguments.n_classes,
            "n_templates": annotator.n_templates,
            "n_shards": len(paths),
            "bytes_a_row": bytes_a_row(paths, len(X)),
            "seconds": seconds,
            "container_mb": size,
            "peak_extra_mb": after - before,
        }


def merge_in_child(folder):
    from sklearn_npll.annotators import merge_shards

    before, start = peak_memory(), time.process_time()
    labels = merge_shards(folder)
    seconds = time.process_time() - start
    size = sum(part.nbytes for part in (labels.candidates, labels.scores, labels.votes)) / 2**20
    print(seconds, before, peak_memory(), size)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n-images", type=int, default=2048)
    parser.add_argument("--shard-size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--n-rows", type=int, default=1_000_000)
    parser.add_argument("--n-classes", type=int, default=10, help="of the rows to merge")
    parser.add_argument("--output", help="default: benchmarks/results/shards.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    if arguments.child:
        return merge_in_child(arguments.child)
    result = {
        "overhead": measure_overhead(arguments),
        "bytes_a_path": measure_path_size(min(arguments.n_rows, 10_000)),
        "made_up": {
            str(n_classes): measure_size(n_classes, min(arguments.n_rows, 10_000))
            for n_classes in (10, 100, 1000)
        },
        "merge": measure_merge(arguments),
    }
    write_result("shards", result, arguments.output)


if __name__ == "__main__":
    main()
