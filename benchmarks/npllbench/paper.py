"""The suite `paper`: the seven data sets of the Co-Reg paper with its networks and schedule.

It needs torchvision's data sets, the weights of CLIP ViT-B/32 and a GPU. The dry run trains two
steps on noise of the same shape, annotated by the model that ships with the package.
"""

from dataclasses import replace
from functools import partial

import numpy as np

from .base import CACHE_DIR, ROOT, SkipSuite, Suite, Task

DATA_HOME = ROOT / "build" / "data"
DRY_SIZES = {"n_train": 16, "n_test": 8, "n_val": 0}
DRY_SCHEDULE = {"max_epochs": 1, "warm_up": 0, "batch_size": 8, "queue_size": 8}

EUROSAT = {  # torchvision's class names, spelt out
    "AnnualCrop": "annual crop land",
    "Forest": "forest",
    "HerbaceousVegetation": "brushland or shrubland",
    "Highway": "highway or road",
    "Industrial": "industrial buildings",
    "Pasture": "pasture land",
    "PermanentCrop": "permanent crop land",
    "Residential": "residential buildings",
    "River": "river",
    "SeaLake": "lake or sea",
}
FER2013 = ["angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral"]
GTSRB = [
    *(f"red and white circle {n} kph speed limit" for n in (20, 30, 50, 60, 70, 80)),
    "end / de-restriction of 80 kph speed limit",
    "red and white circle 100 kph speed limit",
    "red and white circle 120 kph speed limit",
    "red and white circle red car and black car no passing",
    "red and white circle red truck and black car no passing",
    "red and white triangle road intersection warning",
    "white and yellow diamond priority road",
    "red and white upside down triangle yield right-of-way",
    "stop",
    "empty red and white circle",
    "red and white circle no truck entry",
    "red circle with white horizontal stripe no entry",
    "red and white triangle with exclamation mark warning",
    "red and white triangle with black left curve approaching warning",
    "red and white triangle with black right curve approaching warning",
    "red and white triangle with black double curve approaching warning",
    "red and white triangle rough / bumpy road warning",
    "red and white triangle car skidding / slipping warning",
    "red and white triangle with merging / narrow lanes warning",
    "red and white triangle with person digging / construction / road work warning",
    "red and white triangle with traffic light approaching warning",
    "red and white triangle with person walking warning",
    "red and white triangle with child and person walking warning",
    "red and white triangle with bicycle warning",
    "red and white triangle with snowflake / ice warning",
    "red and white triangle with deer warning",
    "white circle with gray strike bar no speed limit",
    "blue circle with white right turn arrow mandatory",
    "blue circle with white left turn arrow mandatory",
    "blue circle with white forward arrow mandatory",
    "blue circle with white forward or right turn arrow mandatory",
    "blue circle with white forward or left turn arrow mandatory",
    "blue circle with white keep right arrow mandatory",
    "blue circle with white keep left arrow mandatory",
    "blue circle with white arrows indicating a traffic circle",
    "white circle with gray strike bar indicating no passing for cars has ended",
    "white circle with gray strike bar indicating no passing for trucks has ended",
]
DIGITS = [f'the number: "{n}"' for n in range(10)]

# torchvision class, image shape of the network's input, class names (None: those of the data set),
# epochs, warm-up, views
DATA_SETS = {
    "CIFAR-10": ("CIFAR10", (32, 32, 3), None, 800, 50, {}),
    "CIFAR-100": ("CIFAR100", (32, 32, 3), None, 800, 100, {}),
    "SVHN": ("SVHN", (32, 32, 3), DIGITS, 800, 50, {"flip": False}),
    "FMNIST": (
        "FashionMNIST",
        (28, 28),
        None,
        100,
        50,
        {"cutout": 16, "strong_operations": False},
    ),
    "EuroSAT": ("EuroSAT", (64, 64, 3), list(EUROSAT.values()), 100, 50, {}),
    "FER2013": (
        "FER2013",
        (64, 64),
        FER2013,
        100,
        50,
        {"cutout": 16, "strong_operations": False},
    ),
    "GTSRB": ("GTSRB", (64, 64, 3), GTSRB, 100, 50, {"flip": False}),
}
SHARED = {"module": "preact_resnet18", "batch_size": 256, "lr": 0.01, "weight_decay": 5e-4}


def paper_suite(dry_run=False, allow_cpu=False):
    """Return the suite; with `dry_run` on stand-in data, one epoch of two batches."""
    schedules = {}
    for name, (_, shape, _, epochs, warm_up, views) in DATA_SETS.items():
        shared = {"max_epochs": epochs, "warm_up": warm_up, "image_size": shape[:2], **views}
        if dry_run:
            shared.update(DRY_SCHEDULE)
        coreg = {"variant": "paper", "warm_up": shared["warm_up"]}
        schedules[name] = {"shared": shared, "coreg": coreg}
    has = frozenset({"scores", "votes"})
    suite = Suite(
        "paper",
        "the paper's seven data sets, CLIP ViT-B/32, PreAct ResNet-18; needs a GPU and downloads",
        "images",
        tasks={name: partial(_load, name=name) for name in DATA_SETS},
        schedule={"shared": SHARED, "coreg": {"contrastive_start": 0 if dry_run else 10}},
        task_schedules=schedules,
        train_has=has,
        test_has=has,
        check=partial(_check, allow_cpu),
    )
    if not dry_run:
        return suite
    tasks = {name: partial(_load_stand_in, name=name) for name in DATA_SETS}
    return replace(
        suite, name="paper-dry-run", tasks=tasks, check=None, seeds=(0,), methods="", **DRY_SIZES
    )


def _check(allow_cpu):
    _torchvision()
    import torch

    if not (allow_cpu or torch.cuda.is_available()):
        raise SkipSuite(
            "the paper's schedule is 100 to 800 epochs of two PreAct ResNet-18 and there is no CUDA"
            " device; --dry-run checks the code, --allow-cpu trains all the same"
        )


def _torchvision():
    try:
        import torchvision.datasets
    except ImportError as error:
        raise SkipSuite("the suite paper needs torchvision: pip install torchvision") from error
    return torchvision.datasets


def _load(seed, n_train, n_test, n_val, *, name):
    """Download a data set and annotate it with CLIP ViT-B/32."""
    from sklearn_npll import VLMPartialAnnotator

    kind, shape, names, *_ = DATA_SETS[name]
    train, test = _splits(getattr(_torchvision(), kind), kind, seed)
    if names is None:
        names = [str(c) for c in train.classes]
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(train))
    rows = rows if n_train is None else rows[: n_train + n_val]
    val_rows, rows = rows[:n_val], rows[n_val:]
    test_rows = rng.permutation(len(test))[:n_test]
    annotator = VLMPartialAnnotator(
        names, model="ViT-B-32-quickgelu", pretrained="openai", cache_dir=CACHE_DIR
    )

    def part(split, rows):
        samples = [split[int(i)] for i in rows]
        y = np.asarray(names)[[int(label) for _, label in samples]]
        images = np.stack([_resized(image, shape) for image, _ in samples])
        return annotator.fit_transform(images), y

    val = part(train, val_rows) if n_val else (None, None)
    return Task(*part(train, rows), *part(test, test_rows), *val, kind="images")


def _splits(data_set, kind, seed):
    """Return training and test split; EuroSAT has none, and gets 80 / 20 % by the seed."""
    from torch.utils.data import Subset

    options = {"root": DATA_HOME, "download": True}
    try:
        if kind in ("SVHN", "GTSRB"):
            return [data_set(split=split, **options) for split in ("train", "test")]
        if kind == "FER2013":  # its owner asks for a login, so it cannot be downloaded here
            return [data_set(root=DATA_HOME, split=split) for split in ("train", "test")]
        if kind == "EuroSAT":
            whole = data_set(**options)
            rows = np.random.default_rng(seed).permutation(len(whole))
            cut = len(rows) * 4 // 5
            return Subset(whole, rows[:cut]), Subset(whole, rows[cut:])
        return [data_set(train=train, **options) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise SkipSuite(
            f"{kind} is not in {DATA_HOME} and could not be downloaded ({error}); put it there as "
            f"torchvision.datasets.{kind} describes"
        ) from error


def _resized(image, shape):
    image = image.convert("L" if len(shape) == 2 else "RGB")
    return np.asarray(image.resize((shape[1], shape[0])))


def _load_stand_in(seed, n_train, n_test, n_val, *, name):
    """Return noise in the shape of a data set, annotated by the shipped model."""
    from sklearn_npll import VLMPartialAnnotator

    _, shape, names, *_ = DATA_SETS[name]
    names = names or [f"class {i}" for i in range(100 if name == "CIFAR-100" else 10)]
    rng = np.random.default_rng(seed)
    annotator = VLMPartialAnnotator(names)

    def part(n):
        images = rng.integers(0, 256, size=(n, *shape), dtype=np.uint8)
        return annotator.fit_transform(images), rng.choice(names, size=n)

    val = part(n_val) if n_val else (None, None)
    return Task(*part(n_train), *part(n_test), *val, kind="images")
