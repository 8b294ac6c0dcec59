"""Classes, templates and labels of images as they are given on the command line."""

import csv
import os
from pathlib import Path

import numpy as np

from .._inputs import shares_by_class
from .._messages import did_you_mean

PRIORS = ("adaptive", "uniform", "candidates", "annotator", "estimated", "none")


def read_classes(text):
    """Read classes from a file, or from names separated by commas.

    A file has one class a line: ``name``, or ``label: name, name``. Empty lines and those that
    begin with ``#`` are left out. Between commas such a line with commas stands in double quotes.

    Parameters
    ----------
    text : str
        The file or the names.

    Returns
    -------
    dict of str to list of str
        The names of each class.

    Raises
    ------
    FileNotFoundError
        If the text is neither a file nor several names.
    ValueError
        If a line is no class, or a class is given twice.

    Examples
    --------
    >>> read_classes("cat, dog, red fox")
    {'cat': ['cat'], 'dog': ['dog'], 'red fox': ['red fox']}
    >>> read_classes('bag, "hat, cap: cap, hat"')
    {'bag': ['bag'], 'hat, cap': ['cap', 'hat']}
    """
    if os.path.isfile(text):
        lines = [(f"{text}, line {number}", line) for number, line in _lines(text)]
    elif "," in text:
        lines = [("--classes", part) for part in _parts(text)]
    else:
        raise FileNotFoundError(
            f"There is no file {text!r}. Give a file with one class a line, or several names"
            " separated by commas."
        )
    classes = {}
    for where, line in lines:
        label, colon, names = (part.strip() for part in line.partition(":"))
        names = [name.strip() for name in (names if colon else label).split(",")]
        if not label or not all(names):
            raise ValueError(f"{where}: {line!r} has an empty name. Write 'label: name, name'.")
        if not colon and len(names) > 1:
            raise ValueError(
                f"{where}: {line!r} has a comma but no colon. Write one class a line, or 'label:"
                " name, name' for a class with several names or with a comma in its label."
            )
        if label in classes:
            raise ValueError(f"{where}: the class {label!r} is given twice.")
        if "|" in label:
            raise ValueError(f"{where}: {label!r} has a '|', which separates classes in tables.")
        classes[label] = names
    return classes


def read_templates(text):
    """Read prompt templates from a file with one a line, or return the name of a set as it is.

    Parameters
    ----------
    text : str
        A file, or what `VLMPartialAnnotator` takes as `templates`.

    Returns
    -------
    str or list of str
        Templates, or the name.

    Examples
    --------
    >>> read_templates("coreg-27")
    'coreg-27'
    """
    return [line for _, line in _lines(text)] if os.path.isfile(text) else text


def read_labels(file, labels, folder, option):
    """Read labels of some images from a CSV file with the columns path and class (or label).

    Parameters
    ----------
    file : str
        The file. Its paths are absolute or relative to the folder.
    labels : PartialLabels
        The samples, paths, that may be named in it, and the classes.
    folder : str
        The folder of the images.
    option : str
        The option that names the file.

    Returns
    -------
    ndarray of shape (n_samples,)
        Names of classes; "-1" where the file has no label.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a column is missing, or a line names another image, no class, or an image that has
        another label already.
    """
    rows = {os.path.abspath(path): row for row, path in enumerate(labels.data)}
    names = labels.classes.tolist()
    classes = {str(name): name for name in names}
    given = np.full(len(labels), "-1", dtype=object)
    if not os.path.isfile(file):
        raise FileNotFoundError(f"There is no file {file!r}, which {option} names.")
    with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        header = stream.readline()
        stream.seek(0)
        # spreadsheets of some languages write semicolons
        table = csv.DictReader(stream, delimiter=";" if "," not in header else ",")
        columns = table.fieldnames or []
        column = next((name for name in ("class", "label") if name in columns), None)
        if "path" not in columns or column is None:
            raise ValueError(
                f"{file} has the columns {columns}; its first line must name 'path' and 'class'."
            )
        for record in table:
            where = f"{file}, line {table.line_num}"
            path, name = record["path"], record[column]
            forms = [path or "", (path or "").replace("\\", "/")]  # or else as Windows writes it
            found = (rows.get(os.path.abspath(os.path.join(folder, form))) for form in forms)
            row = next((row for row in found if row is not None), None)
            if row is None:
                raise ValueError(
                    f"{where}: {path!r} is no annotated image. Paths are relative to {folder}."
                )
            if name not in classes:
                raise ValueError(f"{where}: {name!r} is no class.{did_you_mean(name, names)}")
            if given[row] not in ("-1", classes[name]):
                raise ValueError(f"{where}: {path!r} is {name!r} here, and {given[row]!r} above.")
            given[row] = classes[name]
    return given


def read_prior(text, classes):
    """Read the shares of the classes, or the name of a way to find them.

    Parameters
    ----------
    text : str
        "adaptive", "uniform", "candidates", "annotator", "estimated", "none", or a share for each
        class, such as ``"cat=3, dog=1"``. One whose name has a comma stands in double quotes.
    classes : ndarray of shape (n_classes,)

    Returns
    -------
    str, None or ndarray of shape (n_classes,)
        What `CoRegClassifier` takes as `prior`.

    Raises
    ------
    ValueError
        If a class is missing, unknown or given twice, or a share is not positive.

    Examples
    --------
    >>> read_prior("cat=3, dog=1", np.array(["cat", "dog"]))
    array([3., 1.])
    >>> read_prior('cat=3, "dog, wild=1"', np.array(["cat", "dog, wild"]))
    array([3., 1.])
    """
    if "=" not in text:
        if text not in PRIORS:
            raise ValueError(
                f"--prior is one of {', '.join(PRIORS)}, or a share for each class such as"
                f" 'cat=3, dog=1'; got {text!r}."
            )
        return None if text == "none" else text
    shares = {}
    for part in _parts(text):
        name, sign, share = (piece.strip() for piece in part.rpartition("="))
        if not sign or not name:
            raise ValueError(
                f"--prior: {part!r} has no {'name' if sign else repr('=')}. Write 'cat=3, dog=1',"
                " and a name with a comma in double quotes, 'cat=3, \"dog, wild=1\"'."
            )
        if name in shares:
            raise ValueError(f"--prior: {name!r} is given twice.")
        try:
            shares[name] = float(share)
        except ValueError:
            raise ValueError(
                f"--prior: the share of {name!r} is {share!r}, which is no number."
            ) from None
        if not 0 < shares[name] < np.inf:
            raise ValueError(f"--prior: the share of {name!r} is {share}; it must be positive.")
    return shares_by_class(shares, classes.astype(str), "--prior")


def _parts(text):
    """Parts of a text between commas; one with commas of its own stands in double quotes."""
    (parts,) = csv.reader([" ".join(text.splitlines())], skipinitialspace=True)
    return [part.strip() for part in parts if part.strip()]


def _lines(file):
    """Numbers and text of the lines that are neither empty nor a comment."""
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8: {error}") from error
    stripped = ((number, line.strip()) for number, line in enumerate(lines, 1))
    return [(number, line) for number, line in stripped if line and not line.startswith("#")]
