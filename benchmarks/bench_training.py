"""Cost of a Co-Reg epoch against the bare cost of its forward and backward passes.

During each epoch the passes through the networks are noted: which network, how many rows, with or
without gradients. After the epoch they are run again on ready-made tensors, with an optimiser step
wherever the training made one. The ratio of the two times is what views, division, targets, losses
and the queue add.

Usage::

    python benchmarks/bench_training.py [--rows 6000] [--epochs 5]
"""

import argparse
import time
from unittest.mock import patch

import numpy as np
import torch
from reporting import write_result
from skorch.callbacks import Callback

from sklearn_npll import CoRegClassifier
from sklearn_npll._neural._networks import EmbeddingNetwork
from sklearn_npll.datasets import load_fashion_mnist, make_candidates

METHODS = {name: getattr(EmbeddingNetwork, name) for name in ("embed", "project")}


class Replay(Callback):
    """Note the passes of an epoch, and time them again on ready-made tensors."""

    times = []  # of the class: the classifier works on a copy of the callback

    def on_epoch_begin(self, net, **kwargs):
        self.passes, self.patches = [], []
        for name, method in METHODS.items():

            def noted(network, x, name=name, method=method):
                grad = torch.is_grad_enabled() and network.classifier.weight.requires_grad
                self.passes.append((name, network, tuple(x.shape), grad, network.training))
                return method(network, x)

            self.patches.append(patch.object(EmbeddingNetwork, name, noted))
            self.patches[-1].start()

    def on_batch_end(self, net, **kwargs):
        self.passes.append("step")

    def on_epoch_end(self, net, **kwargs):
        for started in self.patches:
            started.stop()
        if net.history[-1]["phase"] == "warm_up":
            return
        kept = {k: v.clone() for k, v in net.module_.state_dict().items()}
        ready = {p[2]: torch.rand(p[2]) for p in self.passes if p != "step"}
        start = time.perf_counter()
        losses = []
        for item in self.passes:
            if item == "step":
                net.optimizer_.zero_grad(set_to_none=True)
                sum(losses).backward()
                losses = []
                # gradients of zero would move the weights by their momentum: step without
                for group in net.optimizer_.param_groups:
                    for parameter in group["params"]:
                        if parameter.grad is not None:
                            parameter.detach().add_(parameter.grad, alpha=-1e-9)
                continue
            name, network, shape, grad, training = item
            network.train(training)
            with torch.set_grad_enabled(grad):
                output = METHODS[name](network, ready[shape])
                if name == "embed":
                    output = network.classifier(output)
                if grad:
                    losses.append(output.logsumexp(1).mean())
        bare = time.perf_counter() - start
        net.module_.load_state_dict(kept)
        self.times.append((net.history[-1]["seconds"], bare))


def measure(X, y, epochs, **params):
    """Return epoch seconds, bare seconds and their ratio."""
    candidates = make_candidates(y, q=0.1, eta=0.2, random_state=0)
    Replay.times.clear()
    CoRegClassifier(
        max_epochs=epochs + 2,
        warm_up=1,
        contrastive_start=0,
        callbacks=[Replay()],
        random_state=0,
        **params,
    ).fit(X, candidates)
    epoch, bare = np.array(Replay.times[1:]).T  # the first one warms caches up
    return {
        "epoch_seconds": epoch.tolist(),
        "bare_seconds": bare.tolist(),
        "ratio_median": float(np.median(epoch / bare)),
        "ratio_range": [float((epoch / bare).min()), float((epoch / bare).max())],
    }


def main():
    """Measure on images and on features, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--output")
    args = parser.parse_args()
    train = load_fashion_mnist("train")
    X, y = train.images[: args.rows], train.target[: args.rows]
    features = np.asarray(X, dtype=np.float32).reshape(len(X), -1) / 255
    colour = np.repeat(X[..., None], 3, axis=3)
    inputs = {"images": X, "colour_images": colour, "features": features}
    result = {"wanted": {"images": 1.25, "features": 2.0}, "rows": args.rows}
    for variant in ("robust", "paper"):
        result[variant] = {
            kind: measure(data, y, args.epochs, variant=variant) for kind, data in inputs.items()
        }
    write_result("training", result, args.output)


if __name__ == "__main__":
    main()
