"""Memory of annotating, and of learning from, images that stay on disk.

A memory map, a list of paths, tar archives and, where the package `datasets` is installed, a
Hugging Face data set of 28 x 28 pixels: a few and many of them, each in a process of its own, with
a model that knows brightness and a network of one layer. Paths and archives are a thousand
different ones, listed again and again. An epoch is cut off after a number of gradient steps, which
take rows from everywhere; a memory map is learned from to the end. Needs Linux.

    python benchmarks/bench_streamed.py
    python benchmarks/bench_streamed.py --kinds paths --n-large 30000 --output /dev/null
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from reporting import peak_memory, write_result
from skorch.callbacks import Callback

KINDS = ("memmap", "paths", "tar", "datasets")
N_FILES = 1000


class Brightness:
    """A vision-language model of two classes."""

    logit_scale = 10.0

    def encode_image(self, images):
        light = np.array([np.asarray(image).mean() / 255 for image in images]) * np.pi / 2
        return np.stack([np.cos(light), np.sin(light)], axis=1)

    def encode_text(self, texts):
        return np.array([[1, 0] if "night" in text else [0, 1] for text in texts])


class Steps(Callback):
    """Ends the training after a number of gradient steps."""

    class Enough(Exception):
        pass

    def __init__(self, max_steps):
        self.max_steps = max_steps
        self.n_steps = 0

    def on_batch_end(self, net, **kwargs):
        self.n_steps += 1
        if self.n_steps == self.max_steps:
            raise self.Enough


def write_images(folder, n):
    """Write a memory map of n images, and files and an archive of the first of them."""
    from PIL import Image

    rng = np.random.default_rng(0)
    X = np.lib.format.open_memmap(
        folder / "images.npy", mode="w+", dtype=np.uint8, shape=(n, 28, 28)
    )
    for start in range(0, n, 1000):
        part = X[start : start + 1000]
        light = rng.integers(0, 200, size=(len(part), 1, 1))
        part[:] = light + rng.integers(0, 56, size=part.shape)
    X.flush()
    with tarfile.open(folder / "shard.tar", "w") as archive:
        for row in range(N_FILES):
            path = folder / f"{row:04d}.png"
            Image.fromarray(np.array(X[row])).save(path)
            archive.add(path, path.name)


def open_samples(kind, folder, n):
    if kind == "memmap":
        return np.load(folder / "images.npy", mmap_mode="r")[:n]
    if kind == "tar":
        from sklearn_npll.datasets import TarImages

        return TarImages([folder / "shard.tar"] * (n // N_FILES))
    paths = [str(folder / f"{row % N_FILES:04d}.png") for row in range(n)]
    if kind == "paths":
        return paths
    from datasets import Dataset, Image

    return Dataset.from_dict({"image": paths}).cast_column("image", Image())


def learn_in_child(kind, folder, n, max_steps):
    """Annotate and fit, and print figures of it."""
    from torch import nn

    from sklearn_npll import CoRegClassifier, VLMPartialAnnotator

    def network(n_classes, in_channels):
        layers = nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * in_channels, n_classes)
        return nn.Sequential(*layers)

    X = open_samples(kind, folder, n)
    figures = {"peak_mb_before": peak_memory()}
    start = time.perf_counter()
    annotator = VLMPartialAnnotator(["day", "night"], vlm=Brightness(), templates="simple")
    labels = annotator.fit_transform(X)
    figures.update(annotate_seconds=time.perf_counter() - start, peak_mb_annotated=peak_memory())
    start = time.perf_counter()
    steps = [] if kind == "memmap" else [Steps(max_steps)]
    classifier = CoRegClassifier(
        network, max_epochs=1, warm_up=1, callbacks=steps, batch_size=256, random_state=0
    )
    try:
        classifier.fit(labels)
        figures["agreement"] = float(
            (classifier.transduction_ == labels.classes[labels.toarray().argmax(axis=1)]).mean()
        )
    except Steps.Enough:
        figures["steps"] = max_steps
    figures.update(fit_seconds=time.perf_counter() - start, peak_mb=peak_memory())
    print(json.dumps(figures))


def measure(arguments):
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), arguments.n_large)
        for kind in arguments.kinds:
            if kind == "datasets" and importlib.util.find_spec("datasets") is None:
                continue
            runs[kind] = {}
            for n in (arguments.n_small, arguments.n_large):
                command = [sys.executable, __file__, "--max-steps", str(arguments.max_steps)]
                command += ["--child", kind, folder, str(n)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                runs[kind][str(n)] = json.loads(done.stdout)
                print(kind, n, done.stdout, flush=True)
            small, large = runs[kind].values()
            runs[kind]["extra_mb"] = large["peak_mb"] - small["peak_mb"]
    return runs


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--n-small", type=int, default=20_000)
    parser.add_argument("--n-large", type=int, default=500_000)
    parser.add_argument("--max-steps", type=int, default=500)
    parser.add_argument("--output", help="default: benchmarks/results/streamed.json")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    if arguments.child:
        kind, folder, n = arguments.child
        return learn_in_child(kind, Path(folder), int(n), arguments.max_steps)
    result = {"image_shape": [28, 28], "runs": measure(arguments)}
    write_result("streamed", result, arguments.output)


if __name__ == "__main__":
    main()
