"""Benchmark harness: suites of tasks, a registry of methods, a resumable runner and tables."""

from .base import SkipSuite, Suite, Task
from .methods import Method, get_methods, register
from .results import read_rows
from .runner import run_suite
from .suites import SUITES

__all__ = [
    "SUITES",
    "Method",
    "SkipSuite",
    "Suite",
    "Task",
    "get_methods",
    "read_rows",
    "register",
    "run_suite",
]
