"""The files of an annotation in shards: what they are called, say of themselves and hold."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

from .._files import atomic_write
from .._partial_labels import write_labels
from ._fingerprint import first_difference, samples_key

MANIFEST = "manifest.json"  # of a folder
_NOTE = "shard.json"  # in each file, beside the arrays
WHOLE, DAMAGED, MISSING = "whole", "damaged", "missing"


@dataclass(frozen=True)
class Shard:
    """A file, the rows it is for, and what it must say of itself."""

    path: Path
    rows: slice
    note: dict

    @classmethod
    def of(cls, path, identity, X, drop, rows):
        n_samples = rows.stop - rows.start
        note = {"annotator": identity, "samples": samples_key(X), "n_samples": n_samples}
        return cls(path, rows, {**note, "drop": drop})

    def write(self, labels):
        """Write the labels of the rows, and the note, in one step."""
        with atomic_write(self.path) as file:
            write_labels(file, labels)
            with zipfile.ZipFile(file, "a") as archive:
                archive.writestr(_NOTE, json.dumps(self.note))


def layout(folder, manifest):
    """Files of a folder, and the rows of each."""
    n_samples, size = manifest["n_samples"], manifest["shard_size"]
    return [
        (folder / f"shard-{number:05d}.npz", slice(start, min(start + size, n_samples)))
        for number, start in enumerate(range(0, n_samples, size))
    ]


def open_folder(folder, manifest):
    """Say in a folder what it is for, or check that it is for this."""
    found = read_manifest(folder)
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / MANIFEST) as file:
            file.write(json.dumps(manifest).encode())
        return
    difference = first_difference(found, manifest)
    if difference:
        name, old, new = difference
        raise ValueError(
            f"{folder} holds shards of another annotation: {name} was {_shorten(old)}, and is"
            f" {_shorten(new)} now. Take another folder, or annotate as before."
        )


def _shorten(value):
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def read_manifest(folder):
    """What a folder is for; None if it does not say."""
    path = folder / MANIFEST
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}). Delete it, and annotate again: whole shards are kept."
        ) from error


def state_of(shard):
    """Tell whether a file is whole, damaged or missing; an error if it is something else."""
    try:
        note = read_note(shard.path)
    except FileNotFoundError:
        return MISSING
    if note is None:
        return DAMAGED
    difference = first_difference(note, shard.note)
    if difference:
        what = {
            "annotator": "is of another annotator, or not of annotate_shards at all",
            "drop": f"was written with drop={note.get('drop')}",
        }.get(difference[0].partition("[")[0], "is of other samples")
        raise ValueError(f"{shard.path} {what}. Take another folder, or delete the file.")
    return WHOLE


def read_note(path):
    """What a file says of itself, after reading all of it; None if it is damaged."""
    with open(path, "rb") as stream:
        try:
            with zipfile.ZipFile(stream) as file:
                if file.testzip() is not None:
                    return None
                return json.loads(file.read(_NOTE)) if _NOTE in file.namelist() else {}
        except Exception:  # depends on where the damage is
            return None
