"""Cost of a Co-Reg epoch against the bare cost of its forward and backward passes.

During each epoch the passes through the networks are noted: which network, how many rows, with or
without gradients. After the epoch they are run again on ready-made tensors, with the projections of
an embedding where the training had them, and with a step of the same optimiser wherever the
training made one. The ratio of the two times is what views, division, targets, losses, averages and
the queue add. Times are of the processor, in which other processes of the machine do not count;
``OMP_NUM_THREADS=1`` makes them those of one core. The seconds of the clock are kept beside them.

Usage::

    python benchmarks/bench_training.py [--rows 6000] [--feature-rows 6000] [--epochs 5] [--jobs 1]
    python benchmarks/bench_training.py --kinds preact_resnet18 --epochs 3 [--large-rows 256]
"""

import argparse
import time
from itertools import product
from unittest.mock import patch

import numpy as np
import torch
from joblib import Parallel, delayed
from reporting import write_result
from skorch.callbacks import Callback

from sklearn_npll import CoRegClassifier
from sklearn_npll._neural._networks import EmbeddingNetwork
from sklearn_npll.datasets import load_fashion_mnist, make_candidates

METHODS = {name: getattr(EmbeddingNetwork, name) for name in ("embed", "project")}


class Replay(Callback):
    """Note the passes of an epoch, and time them again on ready-made tensors."""

    times = []  # of the class: the classifier works on a copy of the callback

    def on_train_begin(self, net, **kwargs):
        # a rate of 0 costs the same and leaves the weights where the training has them
        self.optimizer = type(net.optimizer_)(
            net.module_.parameters(), **{**net.optimizer_.defaults, "lr": 0.0}
        )

    def on_epoch_begin(self, net, **kwargs):
        self.passes, self.patches = [], []
        for name, method in METHODS.items():

            def noted(network, x, name=name, method=method):
                grad = torch.is_grad_enabled() and network.classifier.weight.requires_grad
                self.passes.append((name, network, tuple(x.shape), grad, network.training))
                return method(network, x)

            self.patches.append(patch.object(EmbeddingNetwork, name, noted))
            self.patches[-1].start()
        self.start = clocks()

    def on_batch_end(self, net, **kwargs):
        self.passes.append("step")

    def on_epoch_end(self, net, **kwargs):
        epoch = clocks() - self.start
        for started in self.patches:
            started.stop()
        if net.history[-1]["phase"] == "warm_up":
            return
        kept = {k: v.clone() for k, v in net.module_.state_dict().items()}
        ready = {p[2]: torch.rand(p[2]) for p in self.passes if p != "step"}
        start = clocks()
        losses, embedding = [], torch.empty(0)
        for item in self.passes:
            if item == "step":
                self.optimizer.zero_grad(set_to_none=True)
                sum(losses).backward()
                self.optimizer.step()
                losses, embedding = [], torch.empty(0)
                continue
            name, network, shape, grad, training = item
            network.train(training)
            with torch.set_grad_enabled(grad):
                if name == "embed":
                    output = METHODS[name](network, ready[shape])
                    if grad:
                        embedding = output
                    output = network.classifier(output)
                else:
                    has_graph = grad and embedding.shape == shape
                    output = METHODS[name](network, embedding if has_graph else ready[shape])
                if grad:
                    losses.append(output.logsumexp(1).mean())
        bare = clocks() - start
        net.module_.load_state_dict(kept)
        self.times.append((epoch, bare))


def clocks():
    """Seconds of the processor and of the clock."""
    return np.array([time.process_time(), time.perf_counter()])


def measure(X, y, epochs, **params):
    """Return the seconds of epochs and of their bare passes, and the ratio."""
    candidates = make_candidates(y[: len(X)], q=0.1, eta=0.2, random_state=0)
    Replay.times.clear()
    CoRegClassifier(
        max_epochs=epochs + 2,
        warm_up=1,
        contrastive_start=0,
        callbacks=[Replay()],
        random_state=0,
        **params,
    ).fit(X, candidates)
    times = np.array(Replay.times[1:])  # the first one warms caches up
    (epoch, epoch_wall), (bare, bare_wall) = times.transpose(1, 2, 0)
    ratio = epoch / bare
    return {
        "epoch_seconds": epoch.tolist(),
        "bare_seconds": bare.tolist(),
        "ratio_median": float(np.median(ratio)),
        "ratio_range": [float(ratio.min()), float(ratio.max())],
        "clock_ratio_median": float(np.median(epoch_wall / bare_wall)),
    }


def main():
    """Measure on images and on features, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--feature-rows", type=int, default=6000)
    parser.add_argument("--large-rows", type=int, default=256, help="those of preact_resnet18")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="processes that measure side by side")
    parser.add_argument("--output")
    parser.add_argument("--kinds", nargs="+", default=["images", "colour_images", "features"])
    args = parser.parse_args()
    train = load_fashion_mnist("train")
    X, y = train.images[: args.rows], train.target
    colour = np.repeat(X[..., None], 3, axis=3)
    features = train.images[: args.feature_rows].reshape(args.feature_rows, -1) / np.float32(255)
    large = np.pad(colour[: args.large_rows], [(0, 0), (2, 2), (2, 2), (0, 0)])  # 32 x 32
    inputs = {
        "images": (X, "auto"),
        "colour_images": (colour, "auto"),
        "preact_resnet18": (large, "preact_resnet18"),
        "features": (features, "auto"),
    }
    result = {
        "wanted": {"images": 1.10, "features": 1.3},
        "rows": args.rows,
        "feature_rows": args.feature_rows,
        "large_rows": args.large_rows,
    }
    cases = list(product(("robust", "paper"), args.kinds))
    measured = Parallel(args.jobs)(
        delayed(measure)(inputs[kind][0], y, args.epochs, module=inputs[kind][1], variant=variant)
        for variant, kind in cases
    )
    for (variant, kind), figures in zip(cases, measured, strict=True):
        result.setdefault(variant, {})[kind] = figures
    write_result("training", result, args.output)


if __name__ == "__main__":
    main()
