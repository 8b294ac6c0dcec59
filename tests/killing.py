"""Jobs in processes that are killed at random moments, and run again until they end."""

import multiprocessing
import os
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from skorch.callbacks import Callback

from sklearn_npll import CoRegClassifier, PartialLabels, VLMPartialAnnotator
from sklearn_npll.annotators import ChatPartialAnnotator, _open_clip

PRELOADED = ["open_clip", "skorch", "sklearn_npll.annotators", "sklearn_npll.coreg"]
IMAGES = np.random.default_rng(0).integers(0, 256, size=(48, 28, 28), dtype=np.uint8)
LABELS = [
    PartialLabels.from_candidates(np.eye(4, dtype=bool)[np.arange(2000) % 4], data=rows)
    for rows in np.random.default_rng(0).normal(size=(2, 2000, 20))
]


def log_units(folder, n):
    """Note that n units of work are begun; a file that any number of processes append to."""
    descriptor = os.open(Path(folder, "log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, b"." * n)
    os.close(descriptor)


def n_logged(folder):
    """How many units of work were begun, by all processes."""
    log = Path(folder, "log")
    return log.stat().st_size if log.exists() else 0


def annotate(folder):
    """Annotate with the shipped model and a cache of embeddings, one image a unit."""
    encode = _open_clip.OpenClipEncoder.encode_image

    def counted(encoder, prepared):
        log_units(folder, len(prepared))
        return encode(encoder, prepared)

    _open_clip.OpenClipEncoder.encode_image = counted
    annotator = VLMPartialAnnotator(["shirt", "bag"], templates="simple", batch_size=4)
    return annotator.set_params(cache_dir=folder / "kept").fit_transform(IMAGES).scores


class Namer:
    """Names an image by its brightness, one image a unit."""

    cache_key = "namer"

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, images, prompt):
        log_units(self.folder, len(images))
        return ["dark" if np.asarray(image).mean() < 127.5 else "bright" for image in images]


def ask(folder):
    """Ask a function, with a cache of answers."""
    annotator = ChatPartialAnnotator(["dark", "bright"], backend=Namer(folder), questions="simple")
    annotator.set_params(cache_dir=folder / "kept", batch_size=4)
    return annotator.fit_transform(IMAGES).scores


class EpochLog(Callback):
    """Notes the epochs, and is no part of what the training is."""

    def __init__(self, folder=None):
        self.folder = folder

    def get_params(self, deep=True):
        return {}

    def on_epoch_begin(self, net, **kwargs):
        log_units(self.folder, 1)


def learn(folder):
    """Train with checkpoints, one epoch a unit."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 2)).astype(np.float32)
    Y = np.eye(3, dtype=bool)[rng.integers(0, 3, 40)] | (rng.random((40, 3)) < 0.3)
    clf = CoRegClassifier("mlp", max_epochs=24, random_state=0, callbacks=[EpochLog(folder)])
    clf.set_params(checkpoint_dir=folder / "kept", checkpoint_every=1).fit(X, Y)
    figures = [v for row in clf.history_ for k, v in row.items() if k.startswith("loss_") and v]
    return np.concatenate([clf.predict_proba(X).ravel(), figures])


def save(folder):
    """Save two containers in turn under one name, one file a unit."""
    (folder / "kept").mkdir(exist_ok=True)
    for i in range(12):
        log_units(folder, 1)
        LABELS[i % 2].save(folder / "kept" / "labels")
    return PartialLabels.load(folder / "kept" / "labels").data


def _work(job, folder, max_bytes):
    torch.set_num_threads(1)
    if max_bytes is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = job(folder)
    Path(folder, "warnings").write_text("".join(f"{w.message}\n" for w in caught))
    np.save(folder / "result.npy", result)


def start(job, folder, max_bytes=None):
    """Start a job in a process of its own, which cannot write files of more than max_bytes."""
    folder.mkdir(exist_ok=True)
    context = multiprocessing.get_context("forkserver")  # imports everything only once
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_work, args=(job, folder, max_bytes))
    process.start()
    return process


def finish(*processes, seconds=300):
    """Wait for processes to end well."""
    for process in processes:
        process.join(seconds)
        if process.is_alive():
            process.kill()
        assert process.exitcode == 0


def kill_at_random(job, folder, rng, n_more):
    """Start a job and kill it within one unit of work after n_more of them; whether it was killed.

    The moment is drawn in units of work, so that it does not depend on the speed of the machine.
    """
    goal, process = n_logged(folder) + n_more, start(job, folder)
    begun, seen = time.monotonic(), n_logged(folder)
    while process.is_alive() and n_logged(folder) < goal:
        if n_logged(folder) == seen:  # the first unit also waits for the imports
            begun = time.monotonic()
        time.sleep(0.0005)
    unit = (time.monotonic() - begun) / max(1, n_more)
    time.sleep(rng.uniform(0, min(unit, 1.0)))
    process.kill()
    process.join()
    return process.exitcode != 0
