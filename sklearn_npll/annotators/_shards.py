"""Annotation in parts, by any number of processes, into files that merge."""

import math
import os
import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from .._compat import HasMethods, Interval, validate_parameter_constraints
from .._images import ImageReadError, check_collection
from .._messages import did_you_mean
from .._partial_labels import PartialLabels, npz_path
from .._rows import length, take
from .._rules import BATCH_RULES
from .._typing import Estimator, PathLike, Samples
from ._chat_backends import ChatError
from ._fingerprint import as_paths, describe, fingerprint, samples_key
from ._members import check_answers, embeds, is_transductive
from ._shard_files import (
    DAMAGED,
    MANIFEST,
    WHOLE,
    Shard,
    layout,
    open_folder,
    read_manifest,
    read_note,
    state_of,
)

_DROPPABLE = ("scores", "votes")
_CONSTRAINTS = {
    "annotator": [HasMethods(["fit", "transform"])],
    "folder": [str, os.PathLike],
    "path": [str, os.PathLike],
    "shard_size": [Interval(Integral, 1, None, closed="left")],
    "drop": [list, tuple],
    "n_jobs": [Integral, None],
    "verbose": ["verbose"],
}


def annotate_shards(
    annotator: Estimator,
    X: Samples,
    folder: PathLike,
    *,
    shard_size: int = 10_000,
    drop: Collection[str] = (),
    n_jobs: int | None = None,
    verbose: bool = False,
) -> Any:
    """Annotate samples shard by shard, in one or many processes, into a folder of files.

    Call it again after Ctrl-C, a crash or the loss of a machine: only what is missing or damaged
    is annotated. :func:`merge_shards` makes one container of the files, equal bit for bit to what
    ``annotator.transform(X)`` gives in one process.

    Parameters
    ----------
    annotator : annotator
        A fitted annotator, or a pipeline that ends with one. What it says of a sample must not
        depend on the others.
    X : images or array-like of shape (n_samples, n_features)
        The samples: whatever the annotator takes. Each process is sent its shards of it; of paths,
        and of a memory map to processes of this machine, that is next to nothing.
    folder : str or path-like
        Where the files go; made if missing. Every process must see it under this name.
    shard_size : int, default=10_000
        Samples of a shard, rounded up to whole batches of the annotator.
    drop : list or tuple of {"scores", "votes"}, default=()
        What not to keep. Scores take four bytes a sample and class, more than all else together.
    n_jobs : int, default=None
        Number of processes, or of whatever :func:`joblib.parallel_config` has chosen. None is 1,
        unless it says otherwise, and -1 is one for each core.
    verbose : int or bool, default=False
        Whether to show a progress bar.

    Returns
    -------
    paths : list of pathlib.Path
        The files, in the order of the samples. Each can be read by
        :meth:`PartialLabels.load <sklearn_npll.PartialLabels.load>`.

    Raises
    ------
    ValueError
        If the annotator compares samples with each other, or the folder holds shards of another
        annotator, other samples or another size.
    NotFittedError
        If the annotator is not fitted.

    Warns
    -----
    UserWarning
        If a file is damaged, and its samples are annotated again.

    See Also
    --------
    merge_shards : Makes one container of the files.
    annotate_shard : Writes one file, for samples that never meet in one process.

    Notes
    -----
    A file appears only when it is complete, so that several calls may work on one folder at once.
    They may annotate the same shard, but neither spoils what the other does. Warnings are issued
    where a shard is annotated, and count its rows from its start; errors count those of X.

    Another annotator is noticed by its parameters and the weights of its model, one of your own by
    its ``cache_key``, if it has one. Other samples are noticed by their paths, or else by the first
    and the last sample of each shard, so not if only others were changed.

    Shards consist of the same batches that one process would encode, because a batch of another
    size may change the last bits of an embedding. So may another kind of processor, or another
    number of threads.

    With ``refine``, the rule "cpl" and other options that compare samples, use
    ``output="embeddings"`` in shards; then annotate the merged embeddings, which are small, with
    these options in one process.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn_npll import VLMPartialAnnotator
    >>> from sklearn_npll.annotators import annotate_shards, merge_shards
    >>> from sklearn_npll.datasets import load_fashion_mnist
    >>> data = load_fashion_mnist("test")
    >>> X = data.images[:100]
    >>> annotator = VLMPartialAnnotator(data.class_prompts, batch_size=32).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = annotate_shards(annotator, X, folder, shard_size=64)
    ...     labels = merge_shards(folder, X)
    >>> [path.name for path in paths]
    ['shard-00000.npz', 'shard-00001.npz']
    >>> bool((labels.scores == annotator.transform(X).scores).all())
    True
    """
    options = {"shard_size": shard_size, "n_jobs": n_jobs, "verbose": verbose}
    n_samples = _check(annotator, X, drop, folder=folder, **options)
    from tqdm.auto import tqdm

    manifest = {
        "n_samples": n_samples,
        "shard_size": _whole_batches(annotator, shard_size),
        "drop": sorted(set(drop)),
        "annotator": describe(annotator),
    }
    folder = Path(folder).expanduser()
    open_folder(folder, manifest)
    identity = fingerprint(manifest["annotator"])
    shards = [
        Shard.of(path, identity, take(X, rows), manifest["drop"], rows)
        for path, rows in layout(folder, manifest)
    ]
    there = [shard for shard in shards if shard.path.exists()]
    states = _ShardParallel(n_jobs)(delayed(state_of)(shard) for shard in there)
    done = {shard.path for shard, state in zip(there, states) if state == WHOLE}
    for shard, state in zip(there, states):
        _warn_if_damaged(shard, state, stacklevel=2)
    todo = [shard for shard in shards if shard.path not in done]
    with tqdm(
        total=len(shards), initial=len(done), desc="Annotating", unit="shard", disable=not verbose
    ) as bar:
        _ShardParallel(n_jobs, bar)(
            delayed(_annotate)(_Task(annotator, take(X, shard.rows), shard)) for shard in todo
        )
    return [shard.path for shard in shards]


def annotate_shard(
    annotator: Estimator, X: Samples, path: PathLike, *, drop: Collection[str] = ()
) -> Any:
    """Annotate samples into one file, unless that is done already.

    This is for samples that never meet in one process, such as the partitions of a Dask bag: each
    process reads its own samples, and only the files meet.

    Parameters
    ----------
    annotator : annotator
        A fitted annotator, or a pipeline that ends with one. What it says of a sample must not
        depend on the others.
    X : images or array-like of shape (n_samples, n_features)
        The samples of this shard.
    path : str or path-like
        The file; ``.npz`` is added if missing.
    drop : list or tuple of {"scores", "votes"}, default=()
        What not to keep.

    Returns
    -------
    path : pathlib.Path
        The file.

    Raises
    ------
    ValueError
        If the annotator compares samples with each other, or the file is of another annotator, of
        other samples, or no shard at all.
    NotFittedError
        If the annotator is not fitted.

    Warns
    -----
    UserWarning
        If the file is damaged, and its samples are annotated again.

    See Also
    --------
    annotate_shards : Cuts samples into shards and annotates them in parallel.
    merge_shards : Makes one container of the files.

    Notes
    -----
    What is merged equals the annotation in one process bit for bit if each shard but the last has
    whole batches of the annotator, on like processors.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn_npll import VLMPartialAnnotator
    >>> from sklearn_npll.annotators import annotate_shard, merge_shards
    >>> from sklearn_npll.datasets import load_fashion_mnist
    >>> data = load_fashion_mnist("test")
    >>> annotator = VLMPartialAnnotator(data.class_prompts).fit(data.images[:1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = [
    ...         annotate_shard(annotator, data.images[start : start + 10], f"{folder}/{start}")
    ...         for start in (0, 10)
    ...     ]
    ...     merge_shards(paths)
    PartialLabels(n_samples=20, n_classes=10, mean_set_size=..., data=None)
    """
    n_samples = _check(annotator, X, drop, path=path)
    path = Path(npz_path(path)).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    identity = fingerprint(describe(annotator))
    shard = Shard.of(path, identity, X, sorted(set(drop)), slice(0, n_samples))
    _warn_if_damaged(shard, state_of(shard), stacklevel=2)
    _annotate(_Task(annotator, X, shard))
    return path


def merge_shards(shards: PathLike | Iterable[PathLike], X: Samples | None = None) -> PartialLabels:
    """Make one container of the files of shards.

    Parameters
    ----------
    shards : str, path-like or list of path-like
        The folder of :func:`annotate_shards`, or files in the order wanted.
    X : images or array-like of shape (n_samples, n_features), default=None
        The samples, to be the ``data`` of the container. By default that is what the files hold:
        the paths, if the samples are paths, embeddings with ``output="embeddings"``, else None.

    Returns
    -------
    labels : PartialLabels of shape (n_samples, n_classes)
        The container.

    Raises
    ------
    ValueError
        If a file is missing or damaged, is of another annotator than the others, or X holds other
        samples than those annotated.

    See Also
    --------
    annotate_shards : Writes the files.
    PartialLabels.load : Reads one of them.

    Notes
    -----
    Memory is twice that of the container. What is too large for that is read file by file.

    Examples
    --------
    See :func:`annotate_shards`.
    """
    if isinstance(shards, (str, os.PathLike)):
        manifest = read_manifest(Path(shards))
        if manifest is None:
            raise ValueError(
                f"{shards} has no {MANIFEST}, so it is no folder of annotate_shards. To merge"
                " files of annotate_shard pass them as a list."
            )
        files = [path for path, _ in layout(Path(shards), manifest)]
        kind = fingerprint(manifest["annotator"]), manifest["drop"]
    else:
        files, kind = [Path(path) for path in shards], None
        if not files:
            raise ValueError("There are no shards to merge; the list is empty.")
    missing = [path.name for path in files if not path.exists()]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(files)} shards are missing, first {missing[0]}; annotate again"
            " to make them."
        )
    n_samples = None if X is None else length(X, "X")
    parts, stop = [], 0
    for path in files:
        note = read_note(path)
        if note is None:
            raise ValueError(f"{path} is damaged; annotate again to replace it.")
        kind = kind or (note.get("annotator"), note.get("drop"))
        if not note or (note["annotator"], note["drop"]) != kind:
            raise ValueError(f"{path} is not of the same annotator and drop as the other shards.")
        start, stop = stop, stop + note["n_samples"]
        if X is not None and (
            stop > n_samples or samples_key(take(X, slice(start, stop))) != note["samples"]
        ):
            raise ValueError(
                f"X[{start}:{stop}] are not the samples that {path.name} has labels of."
            )
        parts.append(PartialLabels.load(path))
    if X is not None and n_samples != stop:
        raise ValueError(f"X has {n_samples} samples, but the shards have {stop}.")
    labels = PartialLabels.concatenate(parts)
    if X is None:
        return labels
    return labels.replace(data=X)


@dataclass(frozen=True)
class _Task:
    """All that a process is sent.

    One object, because joblib hands larger arguments to a single Dask worker ahead of the call, and
    they are gone if it dies.
    """

    annotator: object
    X: object
    shard: Shard


class _ShardParallel(Parallel):
    """Runs tasks that are long, under the active backend, and shows how many are done."""

    def __init__(self, n_jobs, bar=None):
        super().__init__(n_jobs=n_jobs, batch_size=1)
        self.bar, self.shown = bar, 0

    def print_progress(self):
        if self.bar is not None:
            self.bar.update(self.n_completed_tasks - self.shown)
            self.shown = self.n_completed_tasks


def _check(annotator, X, drop, **options):
    """Check what is given, before anything is done; returns the number of samples."""
    parameters = {"annotator": annotator, "drop": drop, **options}
    constraints = {name: _CONSTRAINTS[name] for name in parameters}
    caller = "annotate_shards" if "folder" in options else "annotate_shard"
    validate_parameter_constraints(constraints, parameters, caller_name=caller)
    for name in drop:
        if name not in _DROPPABLE:
            raise ValueError(
                f"drop has {name!r}, but only 'scores' and 'votes' can be left out."
                f"{did_you_mean(name, _DROPPABLE)}"
            )
    check_is_fitted(annotator)
    for estimator in reversed(list(_estimators(annotator))):  # what is held comes before its holder
        rule = getattr(estimator, "rule", None)
        if is_transductive(estimator) or (isinstance(rule, str) and rule in BATCH_RULES):
            raise ValueError(
                f"{type(estimator).__name__} compares the samples of a call with each other (by"
                " refine, aggregation, template_weights or rule), so shards would not equal the"
                " whole. Make shards of output='embeddings' without these options, and annotate"
                " the merged embeddings with them in one process."
            )
    if isinstance(X, PartialLabels):
        raise ValueError("X is a PartialLabels, whose samples are annotated already; pass its data")
    check_collection(X)
    n_samples = length(X, "X")
    if n_samples == 0:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
    return n_samples


def _estimators(value):
    """Yield an estimator and all those in it."""
    if isinstance(value, BaseEstimator):
        yield value
        value = vars(value)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _estimators(item)


def _whole_batches(annotator, n_samples):
    """Round a number of samples up to whole batches of all that is in an annotator."""
    sizes = [getattr(estimator, "batch_size", None) for estimator in _estimators(annotator)]
    step = math.lcm(*(int(size) for size in sizes if isinstance(size, Integral)))
    return -(-int(n_samples) // step) * step


def _warn_if_damaged(shard, state, stacklevel):
    if state == DAMAGED:
        warnings.warn(
            f"{shard.path} is damaged, and its samples are annotated again.",
            stacklevel=stacklevel + 1,
        )


def _annotate(task):
    """Annotate the samples of a shard and write its file, unless that is done meanwhile."""
    annotator, X, shard = task.annotator, task.X, task.shard
    if state_of(shard) == WHOLE:
        return
    changes = dict.fromkeys(shard.note["drop"])
    if not embeds(annotator):
        changes["data"] = as_paths(X)
    try:
        labels = check_answers(annotator.transform(X), "annotator")
        labels = labels.replace(**changes)  # which asks the annotator
    except (ImageReadError, ChatError) as error:
        if error.index is None:
            raise
        # The row in all samples, not in those of the shard.
        index = error.index + shard.rows.start
        raise type(error)(**{**vars(error), "index": index}) from error
    shard.write(labels)
