"""What a suite and a task are."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CACHE_DIR = ROOT / "build" / "cache"


class SkipSuite(Exception):
    """The suite cannot run here: data, a package or a GPU is missing. The message says which."""


@dataclass
class Task:
    """One training set with candidates, its test set and, for tuning, a validation set."""

    #: PartialLabels of the training samples, with the samples.
    labels: object
    #: True labels of the training samples, for the report only.
    y_train: np.ndarray
    #: Test samples, or PartialLabels of them where the annotator annotates them too.
    X_test: object
    y_test: np.ndarray
    #: PartialLabels of the validation samples, or None.
    X_val: object = None
    y_val: np.ndarray | None = None
    kind: str = "features"

    @property
    def noise_rate(self):
        """Share of training samples whose candidates miss the true label."""
        return 1.0 - self.labels.coverage(self.y_train)


@dataclass(frozen=True)
class Suite:
    """Tasks of one kind of data, with their sizes and the schedule of the networks.

    A loader is called as ``loader(seed, n_train=, n_test=, n_val=)`` and returns a `Task`; a size
    of None means all there is.
    """

    name: str
    description: str
    kind: str
    tasks: dict
    schedule: dict
    #: Gradient samples per training row; None trains the epochs of the schedule.
    passes: int | None = None
    n_train: int | None = None
    n_test: int | None = None
    n_val: int = 100
    seeds: tuple = (0, 1, 2)
    #: Group of methods that run by default.
    methods: str = "all"
    #: What the annotator leaves besides candidates, for training and for test rows.
    train_has: frozenset = frozenset()
    test_has: frozenset = frozenset()
    #: Further tasks that only ablations use.
    ablation_tasks: dict = field(default_factory=dict)
    #: Schedule of a task, where it differs: task -> {"shared": ..., "coreg": ...}.
    task_schedules: dict = field(default_factory=dict)
    #: Called before anything runs; raises SkipSuite where the suite cannot.
    check: object = None

    def task_schedule(self, task):
        """Return the schedule of a task."""
        own = self.task_schedules.get(task, {})
        return {
            part: {**self.schedule.get(part, {}), **own.get(part, {})}
            for part in ("shared", "coreg")
        }
