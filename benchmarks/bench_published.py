"""Our implementations against published accuracies, on lost and MSRCv2 without noise.

Ten splits with 10 % for testing, default parameters. What trains networks runs twice: as by default
(a perceptron, on noisy views), and as in the published comparisons (a linear model, on the
features as they are), the latter with two learning rates. Needs SKLEARN_NPLL_DATA.

    python benchmarks/bench_published.py
"""

import argparse

import numpy as np
from npllbench.suites import SUITES
from reporting import write_result
from torch import nn

from sklearn_npll import baselines

SCHEDULE = {"max_epochs": 200, "batch_size": 64, "lr": 0.05}


def linear(n_features, n_classes):
    """Make a linear model."""
    return nn.Sequential(nn.Linear(n_features, n_classes))


PUBLISHED_SETTING = {
    "module": linear,
    "weak_noise": 0.0,
    "strong_noise": 0.0,
    "feature_dropout": 0.0,
}
# Published means on (lost, MSRCv2), as collected by Xu et al. (NeurIPS 2021).
METHODS = {
    "PL-kNN": (baselines.PLKNeighborsClassifier, {}, (33.87, 43.28)),
    "IPAL": (baselines.IPALClassifier, {}, (72.10, 52.96)),
    "CLPL": (baselines.CLPLClassifier, {}, (74.15, 44.47)),
    "PL-SVM": (baselines.PLSVMClassifier, {}, (71.56, 38.25)),
    "SURE": (baselines.SUREClassifier, {}, None),
    "CC": (baselines.CCClassifier, SCHEDULE, (62.21, 47.49)),
    "PRODEN": (baselines.PRODENClassifier, SCHEDULE, (68.62, 44.47)),
    "RC": (baselines.PRODENClassifier, {**SCHEDULE, "variant": "rc"}, (68.89, 44.59)),
}


def main():
    """Run every method on every split."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--output")
    args = parser.parse_args()
    suite, rows = SUITES["pll"], []
    suite.check()
    for i, name in enumerate(("lost", "MSRCv2")):
        tasks = [
            suite.tasks[name](seed, n_train=None, n_test=None, n_val=0)
            for seed in range(args.splits)
        ]
        for method in args.methods:
            make, params, published = METHODS[method]
            settings = {"default": {}}
            if params:
                settings["linear, no views"] = PUBLISHED_SETTING
                settings["linear, no views, lr 0.001"] = {**PUBLISHED_SETTING, "lr": 0.001}
            for setting, changes in settings.items():
                scores = []
                for seed, task in enumerate(tasks):
                    learner = make(**{**params, **changes})
                    if "random_state" in learner.get_params():
                        learner.set_params(random_state=seed)
                    score = learner.fit(task.labels).score(task.X_test, task.y_test)
                    scores.append(100 * score)
                rows.append(
                    {
                        "data": name,
                        "method": method,
                        "setting": setting,
                        "mean": float(np.mean(scores)),
                        "std": float(np.std(scores, ddof=1)),
                        "published": published and published[i],
                        "scores": scores,
                    }
                )
                print(name, method, setting, f"{np.mean(scores):.1f}", flush=True)
    write_result("published", {"schedule": SCHEDULE, "runs": rows}, args.output)


if __name__ == "__main__":
    main()
