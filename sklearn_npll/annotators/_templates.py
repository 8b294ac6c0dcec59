"""Prompt templates: named sets, and the prompts made from them."""

from collections.abc import Mapping, Set

from .._messages import did_you_mean
from .._partial_labels import check_class_names

# General enough for any photographs; each differs from the first in one respect.
_COREG_27 = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of my {}.",
    "a photo of one {}.",
    "a photo of several {}.",
    "a picture showing a {}.",
    "a close-up view of a {}.",
    "a {} seen from far away.",
    "a sharp photo of a {}.",
    "a blurred photo of a {}.",
    "a grainy snapshot of a {}.",
    "a photo of a {} in bright light.",
    "a photo of a {} in dim light.",
    "a greyscale photo of a {}.",
    "a colour photo of a {}.",
    "a washed-out photo of a {}.",
    "a tightly cropped photo of a {}.",
    "a thumbnail image of a {}.",
    "a coarse, pixelated image of a {}.",
    "a detailed image of a {}.",
    "a {} on a plain background.",
    "a {} in front of a busy background.",
    "a studio shot of a {}.",
    "a casual shot of a {}.",
    "a typical example of a {}.",
    "an unusual example of a {}.",
    "this is a {}.",
)


def _imagenet_80():
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]


_SETS = {
    "coreg-27": lambda: list(_COREG_27),
    "imagenet-80": _imagenet_80,
    "simple": lambda: ["a photo of a {}."],
}


def resolve_templates(templates):
    """Look up a named set of templates, or check a list of them.

    Parameters
    ----------
    templates : str or sequence of str
        "coreg-27", "imagenet-80", "simple", one template or several. ``{}`` stands for the name
        of a class.

    Returns
    -------
    list of str
        The templates.

    Raises
    ------
    ValueError
        If there is none, the set is unknown, or a template has no ``{}``.

    Examples
    --------
    >>> resolve_templates("simple")
    ['a photo of a {}.']
    >>> len(resolve_templates("coreg-27"))
    27
    """
    if isinstance(templates, str):
        if templates in _SETS:
            return _SETS[templates]()
        if "{}" not in templates:
            raise ValueError(
                f"Unknown templates {templates!r}.{did_you_mean(templates, _SETS)} The sets are"
                f" {', '.join(map(repr, _SETS))}; a template of your own contains {{}}."
            )
        return [templates]
    templates = list(templates) if hasattr(templates, "__iter__") else []
    if not templates:
        raise ValueError(
            "templates is empty or no list; give at least one, such as 'a photo of a {}.'."
        )
    for i, template in enumerate(templates):
        if not isinstance(template, str) or "{}" not in template:
            raise ValueError(
                f"templates[{i}] is {template!r}; a template is a string with {{}} where the name"
                " of the class goes, such as 'a photo of a {}.'."
            )
    return templates


def resolve_classes(classes):
    """Split classes into their labels and the names to show to the text encoder.

    Parameters
    ----------
    classes : sequence of str or mapping
        The names, which are also the labels; or label -> name or names. Labels are strings or
        integers.

    Returns
    -------
    labels : list
        One label a class, sorted.
    names : list of list of str
        The names of each class.

    Raises
    ------
    ValueError
        If there are fewer than two classes, a label is no string or whole number, or a name is
        empty, no string or used twice.

    Examples
    --------
    >>> resolve_classes({1: ["dog", "puppy"], 0: "cat"})
    ([0, 1], [['cat'], ['dog', 'puppy']])
    """
    is_list = hasattr(classes, "__iter__") and getattr(classes, "ndim", 1) == 1
    if isinstance(classes, (str, Set)) or not is_list:
        raise ValueError(f"classes is {classes!r}; give a list of names, or a mapping to names.")
    if isinstance(classes, Mapping):
        labels = list(classes)
        names = [
            [n] if isinstance(n, str) or not hasattr(n, "__iter__") else list(n)
            for n in classes.values()
        ]
    else:
        labels = [str(name) if isinstance(name, str) else name for name in classes]
        names = [[label] for label in labels]
    if len(labels) < 2:
        raise ValueError(f"classes has {len(labels)} element(s); there is nothing to choose from.")
    user = {}
    for label, own in zip(labels, names):
        if not own:
            raise ValueError(f"Class {label!r} has no name; give at least one.")
        for name in own:
            if not isinstance(name, str):
                raise ValueError(
                    f"{name!r} is no name a text encoder could read; map labels to names, such as"
                    " {0: 'cat', 1: 'dog'}."
                )
            key = name.strip().lower()
            if not key:
                raise ValueError(f"Class {label!r} has an empty name.")
            if key in user:
                raise ValueError(
                    f"The name {name!r} is used twice, for class {user[key]!r} and for class"
                    f" {label!r}; names must differ in more than capitals."
                )
            user[key] = label
    check_class_names(labels)
    order = sorted(range(len(labels)), key=labels.__getitem__)
    return [labels[i] for i in order], [names[i] for i in order]


def make_prompts(templates, names):
    """Write every name into every template.

    Parameters
    ----------
    templates : list of str
        Templates with ``{}``.
    names : list of str
        Names of classes.

    Returns
    -------
    list of str
        ``len(templates) * len(names)`` prompts, all names of the first template first.

    Examples
    --------
    >>> make_prompts(["a {}.", "my {}."], ["cat", "dog"])
    ['a cat.', 'a dog.', 'my cat.', 'my dog.']
    """
    return [template.replace("{}", name) for template in templates for name in names]
