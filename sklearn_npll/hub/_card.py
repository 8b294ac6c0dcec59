"""The model card: a README.md with a header that hubs read."""

import json
import math
from numbers import Real

_N_TEMPLATES = 3  # shown of a long list


def make_card(config, *, license, metrics, dataset, name):
    """Return the text of a model card.

    Parameters
    ----------
    config : dict
        What config.json holds.
    license : str or None
    metrics : dict of str to float
    dataset : str or None
    name : str
        Of the model.

    Returns
    -------
    str
    """
    sections = [
        _header(config, license, metrics, dataset, name),
        f"# {name}\n",
        _summary(config),
        _use(config),
        "## Training\n\n" + _table(_training_rows(config)),
    ]
    if metrics:
        rows = [(metric, f"{value:.4g}") for metric, value in metrics.items()]
        sections.append(f"## Evaluation\n\nOn {dataset}:\n\n" + _table(rows))
    versions = ", ".join(f"{k} {v}" for k, v in config["versions"].items())
    sections.append(_LIMITS)
    sections.append(f"## Versions\n\n{versions}\n")
    return "\n".join(sections)


_LIMITS = """\
## Limits

Where an annotator made the labels, people have checked none but the known ones, and what it never
names the model cannot have learnt. The probabilities are not calibrated. Try the model on labelled
samples of your own before you rely on it.
"""


def check_metrics(metrics, dataset):
    """Return metrics as floats; a ValueError tells what is wrong with them."""
    metrics = {} if metrics is None else dict(metrics)
    for metric, value in metrics.items():
        if not isinstance(value, Real) or not math.isfinite(value):
            raise ValueError(f"metrics[{metric!r}] is {value!r}; it must be a finite number.")
    if metrics and not dataset:
        raise ValueError(
            "metrics need the name of the data they were measured on, such as"
            " dataset='Fashion-MNIST test images'."
        )
    return {str(metric): float(value) for metric, value in metrics.items()}


def _header(config, license, metrics, dataset, name):
    """YAML between lines of dashes; strings are quoted as in JSON, which YAML understands."""
    task = "image-classification" if _is_image(config) else "tabular-classification"
    lines = ["---", "library_name: sklearn_npll"]
    if license is not None:
        lines.append(f"license: {json.dumps(license)}")
    lines += [f"pipeline_tag: {task}", "tags:"]
    tags = ("sklearn_npll", "scikit-learn", "weak-supervision", "partial-label-learning")
    lines += [f"- {tag}" for tag in tags]
    if metrics:
        lines += ["metrics:", *(f"- {json.dumps(metric)}" for metric in metrics)]
        lines += ["model-index:", f"- name: {json.dumps(name)}", "  results:"]
        lines += ["  - task:", f"      type: {task}", "    dataset:"]
        lines += [f"      name: {json.dumps(dataset)}", f"      type: {json.dumps(dataset)}"]
        lines.append("    metrics:")
        for metric, value in metrics.items():
            lines += [f"    - type: {json.dumps(metric)}", f"      value: {value!r}"]
    return "\n".join([*lines, "---", ""])


def _is_image(config):
    return len(config["network"]["shape"]) == 3


def _summary(config):
    shape, classes = config["network"]["shape"], config["classes"]
    if _is_image(config):
        colours = {1: "grey", 3: "RGB"}.get(shape[0], f"of {shape[0]} channels")
        samples = f"images, {colours}, resized to {shape[1]} x {shape[2]} pixels"
    else:
        samples = f"rows of {shape[0]} features"
    return (
        f"A `{config['estimator']}` of sklearn_npll that tells {len(classes)} classes apart."
        f" Network: `{config['network']['module']}`, {config['network']['n_networks']} of it.\n\n"
        f"Input: {samples}. The networks standardise it with the mean and scale in"
        " `config.json`.\n\n"
        f"Classes, in the order of the probabilities:\n\n    {json.dumps(classes)}\n"
    )


def _use(config):
    sample = '["photo.jpg"]' if _is_image(config) else "X"
    return (
        "## Use\n\nNo code in the files is run.\n\n```python\n"
        "from huggingface_hub import snapshot_download\n"
        "from sklearn_npll.hub import load_pretrained\n\n"
        'clf = load_pretrained(snapshot_download("owner/name"))  # or a folder\n'
        f"clf.predict({sample})\n```\n"
    )


def _training_rows(config):
    training = config["training"]
    rows = [("epochs", training["epochs"])]
    if "random_state" in config["parameters"]:
        rows.append(("random_state", config["parameters"]["random_state"]))
    annotator = training.get("annotator")
    if annotator is not None:
        parameters, templates = annotator["parameters"], annotator["templates"]
        rows.append(("annotator", annotator["estimator"]))
        rows += [
            (f"annotator's {key}", parameters[key])
            for key in ("model", "pretrained", "rule", "rule_value", "refine", "aggregation")
            if parameters.get(key) is not None
        ]
        if templates:
            shown = ", ".join(map(repr, templates[:_N_TEMPLATES]))
            more = len(templates) - _N_TEMPLATES
            rows.append(("templates", shown + (f" and {more} more" if more > 0 else "")))
    for key, value in training.get("candidates", {}).items():
        if value is not None:
            rows.append((f"candidates: {key}", f"{value:.4g}"))
    omitted = config["omitted_parameters"]
    if omitted:
        rows.append(("parameters that are not in `config.json`", ", ".join(omitted)))
    return rows


def _table(rows):
    lines = [f"| {key} | {str(value).replace('|', chr(92) + '|')} |" for key, value in rows]
    return "\n".join(["| | |", "|---|---|", *lines, ""])
