"""What is known of the shipped model without loading it."""

import sys
import warnings

import numpy as np
import pytest

from sklearn_npll import VLMPartialAnnotator
from sklearn_npll.annotators._open_clip import names_clothes


@pytest.mark.parametrize(
    "names, known",
    [
        ([["cat"], ["dog"]], False),
        ([["a cabin"], ["a baggage car"]], False),
        ([["cat"], ["T-shirt/top"]], True),
        ([["x", "ankle boots"], ["y"]], True),
        ([["summer dresses"], ["y"]], True),
    ],
)
def test_the_shipped_model_warns_where_no_class_is_called_like_clothes(names, known):
    assert names_clothes(names) == known
    annotator = VLMPartialAnnotator({f"class {i}": name for i, name in enumerate(names)})
    images = np.zeros((2, 28, 28), dtype=np.uint8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        annotator.fit(images)
    told = [str(w.message) for w in caught if "knows clothes only" in str(w.message)]
    assert len(told) == (0 if known else 1)
    assert known or "model='ViT-B-32-quickgelu', pretrained='openai'" in told[0]


def test_open_clip_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    images = np.zeros((2, 28, 28), dtype=np.uint8)
    with pytest.raises(ImportError, match="pip install 'open_clip_torch>=3.0'"):
        VLMPartialAnnotator(["bag", "shoe"], templates="simple").fit_transform(images)
