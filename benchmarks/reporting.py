"""Write the result of a benchmark with what is needed to repeat it."""

import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "open_clip_torch", "skorch", "pillow")


def environment():
    """Versions, machine, git revision and command of this run."""
    import torch

    command = [Path(sys.argv[0]).resolve().relative_to(ROOT).as_posix(), *sys.argv[1:]]
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *command]),
        "git": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--", "sklearn_npll", "benchmarks")),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg(),
        "torch_threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def write_result(name, result, path=None):
    """Write a result with its environment to ``benchmarks/results/<name>.json``."""
    path = Path(path) if path else ROOT / "benchmarks" / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"benchmark": name, **result, "environment": environment()}, indent=2)
    path.write_text(text + "\n")
    print(text)


def mean_and_std(runs):
    """Return task -> option -> mean and deviation of the accuracy over seeds, in per cent."""
    table = {}
    for row in runs:
        cell = table.setdefault(row["task"], {}).setdefault(row["option"], [])
        cell.append(100 * row["accuracy"])
    return {
        task: {
            name: {"mean": np.mean(v), "std": np.std(v, ddof=1) if len(v) > 1 else None}
            for name, v in cell.items()
        }
        for task, cell in table.items()
    }


def peak_memory():
    """Peak resident memory of this process in megabytes."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, ru_maxrss begins with the parent's peak
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource  # Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def _git(*arguments):
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None
