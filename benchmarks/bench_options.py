"""Options of Co-Reg from other papers, each alone, on rows that are neither trained nor tested on.

Usage::

    python benchmarks/bench_options.py
"""

import argparse
import json
from functools import lru_cache

import numpy as np
from npllbench import SUITES
from reporting import mean_and_std, write_result

from sklearn_npll import CoRegClassifier

# Suite, task, training rows and validation rows.
TASKS = (
    ("fashion-embeddings", "union", 1500, 2000),
    ("caltech-clip", "topk-3", None, 300),
    ("pll", "lost-eta0.2", None, 250),
)
FEW_LABELS = tuple(("few-shot", f"labels-{k}", 1500, 2000) for k in (4, 16))
OPTIONS = {
    "default": {},
    "early-learning regularisation, 0.3": {"elr_weight": 0.3},
    "pseudo-label threshold 0.5": {"pseudo_label_threshold": 0.5},
    "class-wise threshold": {"pseudo_label_threshold": "class"},
    "disagreement weight 0.9": {"disagreement_weight": 0.9},
    "candidate update by cluster": {"candidate_update": "cluster"},
    "prototype blend 1": {"prototype_blend": 1.0},
    "confidence loss 0.25": {"confidence_weight": 0.25},
    "confidence loss 0.5": {"confidence_weight": 0.5},
}


@lru_cache(maxsize=1)
def load(suite, task, seed, n_train, n_val):
    """Return the training rows and, in place of the test rows, validation rows."""
    return SUITES[suite].tasks[task](seed, n_train=n_train, n_test=50, n_val=n_val)


def run(suite, task, n_train, n_val, seed, params):
    """Return the validation accuracy of one setting."""
    data = load(suite, task, seed, n_train, n_val)
    schedule = SUITES[suite].task_schedule(task)
    settings = {**schedule["shared"], **schedule["coreg"]}
    settings.pop("warm_up")
    clf = CoRegClassifier(random_state=seed).set_params(**settings, **params).fit(data.labels)
    return {
        "accuracy": float(np.mean(clf.predict(data.X_val.data) == data.y_val)),
        "gradient_samples": sum(epoch["gradient_samples"] for epoch in clf.history_),
    }


def main():
    """Run every option on every task."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102])
    args = parser.parse_args()
    few = {"default": {}, "doubly robust": {"doubly_robust": True}}
    plan = [(task, OPTIONS) for task in TASKS] + [(task, few) for task in FEW_LABELS]
    runs = []
    for (suite, task, n_train, n_val), options in plan:
        for seed in args.seeds:
            for name, params in options.items():
                row = run(suite, task, n_train, n_val, seed, params)
                runs.append({"suite": suite, "task": task, "option": name, "seed": seed, **row})
                print(json.dumps(runs[-1]), flush=True)
    write_result("options", {"summary": mean_and_std(runs), "runs": runs})


if __name__ == "__main__":
    main()
