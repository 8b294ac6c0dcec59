"""Where the time of CoRegClassifier.fit goes, in per cent.

The functions named in PARTS are timed by the processor's clock during a fit; a call from within
another counted call belongs to that one. What is left is the rest: mixing, targets, losses but the
contrastive one, callbacks, checks and records.

Usage::

    python benchmarks/bench_profile.py [--cases features auto preact_resnet18]
"""

import argparse
import time
from contextlib import ExitStack
from unittest.mock import patch

import numpy as np
import torch
from reporting import write_result

from sklearn_npll import CoRegClassifier
from sklearn_npll._neural import _views
from sklearn_npll._neural._networks import EmbeddingNetwork
from sklearn_npll.coreg import _dividing_net, _net
from sklearn_npll.datasets import load_fashion_mnist, make_candidates

PARTS = {
    "forward passes": [(EmbeddingNetwork, "embed"), (EmbeddingNetwork, "project")],
    "backward passes": [(torch.Tensor, "backward")],
    "optimiser": [(torch.optim.SGD, "step"), (torch.optim.SGD, "zero_grad")],
    "views": [
        (kind, name)
        for kind in (_views.ImageViews, _views.FeatureViews)
        for name in ("plain", "weak", "strong")
    ],
    "mixture of the losses": [(_dividing_net, "clean_probability")],
    "contrastive loss": [(_net, "contrastive_loss")],
    "moving averages": [(_net, "update_average"), (_net.CoRegNet, "update_key_encoder")],
}
CASES = {  # rows, epochs
    "features": ("auto", 3000, 5),
    "auto": ("auto", 1500, 4),
    "preact_resnet18": ("preact_resnet18", 96, 2),
}


def profile(X, candidates, **params):
    """Return the seconds of a fit, and the share of each part."""
    seconds, inside = dict.fromkeys(PARTS, 0.0), []

    def timed(part, function):
        def call(*args, **kwargs):
            if inside:
                return function(*args, **kwargs)
            inside.append(part)
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[part] += time.process_time() - start
                inside.pop()

        return call

    with ExitStack() as patches:
        for part, functions in PARTS.items():
            for owner, name in functions:
                function = timed(part, getattr(owner, name))
                patches.enter_context(patch.object(owner, name, function))
        start = time.process_time()
        CoRegClassifier(warm_up=1, contrastive_start=0, random_state=0, **params).fit(X, candidates)
        whole = time.process_time() - start
    seconds["the rest"] = whole - sum(seconds.values())
    return {"seconds": whole, "share": {part: s / whole for part, s in seconds.items()}}


def main():
    """Profile, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--output")
    args = parser.parse_args()
    train = load_fashion_mnist("train")
    result = {}
    for case in args.cases:
        module, rows, epochs = CASES[case]
        X, y = train.images[:rows], train.target[:rows]
        if case == "features":
            X = X.reshape(rows, -1).astype(np.float32) / 255
        elif case == "preact_resnet18":
            X = np.pad(X, [(0, 0), (2, 2), (2, 2)])
        candidates = make_candidates(y, q=0.1, eta=0.2, random_state=0)
        params = {"module": module, "max_epochs": epochs}
        CoRegClassifier(**{**params, "max_epochs": 1}, random_state=0).fit(X[:32], candidates[:32])
        result[case] = {
            variant: profile(X, candidates, variant=variant, **params)
            for variant in ("robust", "paper")
        }
    write_result("profile", {"cases": result}, args.output)


if __name__ == "__main__":
    main()
