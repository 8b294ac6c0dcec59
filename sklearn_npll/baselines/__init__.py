"""The rivals of Co-Reg: learners from partial labels, noisy labels and the annotator alone."""

from ._adapters import PseudoLabelClassifier
from ._aggregation import AnnotatorClassifier, DawidSkeneClassifier, LabelModelClassifier
from ._classic import (
    CLPLClassifier,
    IPALClassifier,
    PLKNeighborsClassifier,
    PLSVMClassifier,
    SUREClassifier,
)
from ._neighbours import PALSClassifier
from ._noisy_label import (
    CEClassifier,
    CoTeachingClassifier,
    DistillationClassifier,
    DivideMixClassifier,
    ELRClassifier,
    GCEClassifier,
    SCEClassifier,
)
from ._partial_label import (
    ABSClassifier,
    CAVLClassifier,
    CCClassifier,
    CRDPLLClassifier,
    FREDISClassifier,
    LWSClassifier,
    POPClassifier,
    PRODENClassifier,
)
from ._prototype import ALIMClassifier, PiCOClassifier, PiCOPlusClassifier

__all__ = [
    "ABSClassifier",
    "ALIMClassifier",
    "AnnotatorClassifier",
    "CAVLClassifier",
    "CCClassifier",
    "CEClassifier",
    "CLPLClassifier",
    "CRDPLLClassifier",
    "CoTeachingClassifier",
    "DawidSkeneClassifier",
    "DistillationClassifier",
    "DivideMixClassifier",
    "ELRClassifier",
    "FREDISClassifier",
    "GCEClassifier",
    "IPALClassifier",
    "LWSClassifier",
    "LabelModelClassifier",
    "PALSClassifier",
    "PLKNeighborsClassifier",
    "PLSVMClassifier",
    "POPClassifier",
    "PRODENClassifier",
    "PiCOClassifier",
    "PiCOPlusClassifier",
    "PseudoLabelClassifier",
    "SCEClassifier",
    "SUREClassifier",
]
