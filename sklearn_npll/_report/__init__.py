"""A page of HTML about labels: what the annotator said, and what the learner made of it."""

from ._page import write_report

__all__ = ["write_report"]
