"""The rivals of Co-Reg: learners from partial labels, noisy labels and the annotator alone."""

from ._adapters import PseudoLabelClassifier
from ._aggregation import AnnotatorClassifier, DawidSkeneClassifier, LabelModelClassifier
from ._clpl import CLPLClassifier
from ._ipal import IPALClassifier
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
from ._noisy_partial_label import FREDISClassifier, POPClassifier
from ._partial_label import (
    ABSClassifier,
    CAVLClassifier,
    CCClassifier,
    CRDPLLClassifier,
    LWSClassifier,
    PRODENClassifier,
)
from ._pl_knn import PLKNeighborsClassifier
from ._pl_svm import PLSVMClassifier
from ._prototype import ALIMClassifier, PiCOClassifier, PiCOPlusClassifier
from ._sure import SUREClassifier

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
