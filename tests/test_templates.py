import numpy as np
import pandas as pd
import pytest

from sklearn_npll.annotators._templates import make_prompts, resolve_classes, resolve_templates


def test_named_sets_have_distinct_templates():
    for name, n in (("coreg-27", 27), ("imagenet-80", 80), ("simple", 1)):
        templates = resolve_templates(name)
        assert len(templates) == len(set(templates)) == n
        assert all(template.count("{}") == 1 for template in templates)
    assert resolve_templates("coreg-27")[0] == "a photo of a {}."


def test_imagenet_set_says_what_open_clip_says():
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    expected = [template("cat") for template in OPENAI_IMAGENET_TEMPLATES]
    assert make_prompts(resolve_templates("imagenet-80"), ["cat"]) == expected


def test_own_templates():
    assert resolve_templates("one {}") == ["one {}"]
    assert resolve_templates(("one {}", "two {}")) == ["one {}", "two {}"]


def test_a_change_to_a_resolved_set_stays_local():
    resolve_templates("coreg-27").clear()
    assert len(resolve_templates("coreg-27")) == 27


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ("coreg27", r"Did you mean 'coreg-27'\?"),
        ("a photo", r"Unknown templates 'a photo'"),
        ([], "templates is empty or no list"),
        (3, "templates is empty"),
        (["a {}", "a photo"], r"templates\[1\] is 'a photo'"),
        (["a {}", lambda name: name], r"templates\[1\] is <function"),
    ],
)
def test_bad_templates(templates, message):
    with pytest.raises(ValueError, match=message):
        resolve_templates(templates)


def test_prompts_keep_other_braces():
    assert make_prompts(["{0} {} {}"], ["cat"]) == ["{0} cat cat"]


def test_classes():
    assert resolve_classes(["cat", "dog"]) == (["cat", "dog"], [["cat"], ["dog"]])
    assert resolve_classes(["fox", "cat"]) == (["cat", "fox"], [["cat"], ["fox"]])
    assert resolve_classes({10: "ten", 9: "nine"}) == ([9, 10], [["nine"], ["ten"]])
    assert resolve_classes(pd.Series(["cat", "dog"])) == (["cat", "dog"], [["cat"], ["dog"]])
    assert resolve_classes({"b": ("dog", "puppy"), "a": "cat"}) == (
        ["a", "b"],
        [["cat"], ["dog", "puppy"]],
    )


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("cat", "classes is 'cat'"),
        (3, "classes is 3"),
        (np.array("cat"), "give a list of names"),
        (np.array([["cat", "dog"]]), "give a list of names"),
        ({"a": None, "b": "dog"}, "None is no name a text encoder could read"),
        ({b"a": "cat", b"b": "dog"}, "got b'a' among them"),
        (["cat"], "1 element"),
        (["cat", "dog", "cat"], "'cat' is used twice"),
        (["cat", "Cat "], "'Cat ' is used twice, for class 'cat' and for class 'Cat '"),
        ({0: ["cat", "cat"], 1: "dog"}, "'cat' is used twice, for class 0 and for class 0"),
        ({0: "cat", 1: ["dog", "cat"]}, "'cat' is used twice, for class 0 and for class 1"),
        (["cat", " "], "Class ' ' has an empty name"),
        ({0: "cat", 1: []}, "Class 1 has no name"),
        ([0, 1], r"map labels to names, such as \{0: 'cat'"),
        ({0: "cat", "1": "dog"}, "classes mix names and numbers: 0, '1'"),
        ({-1: "cat", 1: "dog"}, "-1 cannot be a class"),
        ({0.5: "cat", 1.5: "dog"}, "class 0.5 is no whole number"),
        ({None: "cat", 1: "dog"}, "got None among them"),
    ],
)
def test_bad_classes(classes, message):
    with pytest.raises(ValueError, match=message):
        resolve_classes(classes)
