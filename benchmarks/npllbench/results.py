"""The rows of a suite in a CSV file, and beside it how they were made."""

import csv
import json
import os
from pathlib import Path

COLUMNS = (
    "suite",
    "task",
    "method",
    "seed",
    "track",
    "status",
    "accuracy",
    "accuracy_single",
    "train_accuracy",
    "covering_rate",
    "approximated_accuracy",
    "val_accuracy",
    "val_approximated_accuracy",
    "coverage",
    "mean_set_size",
    "n_train",
    "n_test",
    "n_classes",
    "epochs",
    "gradient_samples",
    "seconds_fit",
    "noise_rate_used",
    "params",
    "error",
    "session",
)
_TEXT = ("suite", "task", "method", "track", "status", "noise_rate_used", "params", "error")
_INTEGER = ("seed", "n_train", "n_test", "n_classes", "epochs", "gradient_samples", "session")
KEY = ("task", "method", "seed", "track")


class Results:
    """The rows of one suite in a CSV file, and beside them a JSON file on how they were made."""

    def __init__(self, folder, name, settings):
        self.path = Path(folder, f"{name}.csv")
        self.info_path = self.path.with_suffix(".json")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        settings = json.loads(json.dumps(settings, default=str))
        self.info = {"suite": name, "settings": settings, "sessions": []}
        if self.info_path.exists():
            self.info = json.loads(self.info_path.read_text())
            if self.info["settings"] != settings:
                raise ValueError(
                    f"{self.path} holds runs made with {self.info['settings']}, now asked for is "
                    f"{settings}: choose another output folder or remove the file"
                )
        self.rows = {tuple(row[k] for k in KEY): row for row in read_rows(self.path)}
        self.session = None
        self._mend()

    def begin_session(self, environment):
        """Record how the rows that follow are made, before the first of them."""
        self.session = len(self.info["sessions"])
        self.info["sessions"].append(environment)
        temporary = self.info_path.with_suffix(".json.tmp")
        temporary.write_text(json.dumps(self.info, indent=2) + "\n")
        os.replace(temporary, self.info_path)

    def append(self, row):
        """Add a row and make sure that it is on disk."""
        row = {"session": self.session, **row}
        row = {name: row.get(name, "" if name in _TEXT else None) for name in COLUMNS}
        is_new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            os.fsync(file.fileno())
        self.rows[tuple(row[k] for k in KEY)] = row
        return row

    def _mend(self):
        """Cut off a row that an interruption left half written."""
        if self.path.exists():
            text = self.path.read_bytes()
            if not text.endswith(b"\n"):
                with self.path.open("r+b") as file:
                    file.truncate(text.rfind(b"\n") + 1)
                if not self.path.stat().st_size:
                    self.path.unlink()


def read_rows(path):
    """Read the rows of a CSV file; of runs that were repeated the last.

    Parameters
    ----------
    path : path-like
        The file; a missing one has no rows.

    Returns
    -------
    rows : list of dict
        Numbers as int and float, empty cells as None (as "" in columns of text).
    """
    if not Path(path).exists():
        return []
    text = Path(path).read_text(encoding="utf-8")
    rows = {}
    for raw in csv.DictReader(text[: text.rfind("\n") + 1].splitlines()):
        row = {name: _parse(name, value) for name, value in raw.items()}
        rows[tuple(row[k] for k in KEY)] = row
    return list(rows.values())


def _parse(name, value):
    if name in _TEXT:
        return value
    if value == "":
        return None
    return int(value) if name in _INTEGER else float(value)
