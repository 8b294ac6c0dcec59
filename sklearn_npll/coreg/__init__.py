"""Co-Reg: two networks that purify each other's training labels."""

from ._classifier import CoRegClassifier

__all__ = ["CoRegClassifier"]
