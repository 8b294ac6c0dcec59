"""``sklearn-npll fit``: train a classifier on the labels of a folder."""

import warnings
from pathlib import Path

from ._options import add_device_option, add_table_option, note, positive

_N_CHECKED = 500  # images on which the model is compared with the labels it has learned
_MIN_AGREEMENT = 0.8


def add_parser(commands, **options):
    """Add the command to a parser."""
    parser = commands.add_parser(
        "fit",
        help="train a classifier on the labels",
        description="Train Co-Reg on what annotate has written. After an interruption, the same"
        " command continues where it stopped.",
        **options,
    )
    parser.add_argument("folder", metavar="dir", help="folder that annotate has written")
    parser.add_argument(
        "--known", metavar="FILE", help="CSV file of a few known labels, with columns path, class"
    )
    parser.add_argument(
        "--doubly-robust",
        action="store_true",
        help="with --known: also correct what the annotator says of the other images by what it"
        " says of these, which a class that it never names needs",
    )
    parser.add_argument(
        "--prior",
        metavar="SHARES",
        help="how frequent the classes are, if you know it: 'cat=3, dog=1'; or uniform, annotator,"
        " candidates, estimated, none (default: equally, unless the annotator says otherwise)",
    )
    parser.add_argument(
        "--embeddings",
        action="store_true",
        help="learn from the annotator's embeddings of the images, not from pixels: better with a"
        " few hundred images, but predict then needs the annotator's model",
    )
    parser.add_argument("--epochs", type=positive, default=50, metavar="N", help="(default: 50)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    parser.add_argument(
        "--module",
        default="auto",
        help="network: auto (default, by the size of the images), resnet8, resnet8_strided,"
        " preact_resnet18, wrn_28_2, or a timm model; mlp, if anything, with --embeddings",
    )
    parser.add_argument(
        "--variant",
        choices=("robust", "paper"),
        default="robust",
        help="paper is the method as published (default: robust)",
    )
    parser.add_argument(
        "--image-size",
        type=positive,
        metavar="PIXELS",
        help="side of the squares that images are resized to (default: their own size, or 64)",
    )
    parser.add_argument(
        "--no-flip", action="store_true", help="never mirror images: for digits, letters, signs"
    )
    add_device_option(parser)
    parser.add_argument(
        "--model-file",
        metavar="FILE",
        help=".skops, safe to share, or .joblib (default: model.skops in dir if skops is"
        " installed, else model.joblib)",
    )
    parser.add_argument(
        "--checkpoint-dir", metavar="DIR", help="for interruptions (default: checkpoints in dir)"
    )
    add_table_option(parser)
    parser.set_defaults(
        run=run,
        wrong_use=parser.error,
        after_interruption="The same command continues from the last finished epoch.",
    )


def run(args):
    """Train on the labels of a folder; the model and its labels go into it."""
    from ..coreg import CoRegClassifier
    from ._embeddings import embed_images, is_public, with_embedder
    from ._folder import CACHE, digest, load_labels
    from ._inputs import read_labels, read_prior
    from ._model_files import check_model_file, default_model_file, save_model
    from ._tables import check_table

    if args.embeddings:
        _refuse_options_for_images(args)
    if args.doubly_robust and args.known is None:
        args.wrong_use("--doubly-robust needs --known")
    folder = Path(args.folder)
    labels, annotation = load_labels(folder)
    checksum = digest(folder)
    shareable = not args.embeddings or is_public(annotation["model"], annotation["pretrained"])
    model_file = Path(args.model_file or default_model_file(folder, shareable))
    check_model_file(model_file, shareable)
    check_table(f"learned.{args.table}")
    prior = "auto" if args.prior is None else read_prior(args.prior, labels.classes)
    if args.known is not None:
        known = read_labels(args.known, labels, annotation["folder"], "--known")
        labels = labels.with_known(known)
    clf = CoRegClassifier(
        args.module,
        max_epochs=args.epochs,
        variant=args.variant,
        doubly_robust=args.doubly_robust,
        prior=prior,
        image_size=args.image_size and (args.image_size, args.image_size),
        flip=not args.no_flip,
        checkpoint_dir=args.checkpoint_dir or folder / "checkpoints",
        checkpoint_every=1,
        device=args.device,
        random_state=args.seed,
        verbose=int(not args.quiet),
    )
    samples = labels
    if args.embeddings:
        options = {"cache_dir": folder / CACHE, "device": args.device, "verbose": not args.quiet}
        samples = embed_images(labels, annotation, **options)
    clf.fit(samples)
    if clf.n_iter_ < args.epochs:  # Ctrl-C at the end of an epoch ends the training quietly
        raise KeyboardInterrupt
    clf.set_params(checkpoint_dir=None, verbose=0)  # matters of this machine
    model = with_embedder(clf, annotation, labels.data, args.device) if args.embeddings else clf
    save_model(model, model_file)
    n_known = 0 if labels.known is None else int(labels.known.sum())
    training = {"epochs": args.epochs, "seed": args.seed, "module": args.module}
    training.update(embeddings=args.embeddings, variant=args.variant, prior=args.prior)
    training.update(n_known=n_known, doubly_robust=args.doubly_robust, labels=checksum)
    learned = f"learned.{args.table}"
    _write_learned(folder, learned, labels, clf, training, annotation["folder"])
    note(args, f"Wrote {model_file} and {folder / learned}.")
    if model_file.suffix == ".joblib":
        note(args, f"Load {model_file.name} only if you made it; a .skops file is safe to share.")
    _compare(clf, samples, learned, "" if args.embeddings else "try --embeddings, and ")


def _refuse_options_for_images(args):
    given = {
        "--module": args.module not in ("auto", "mlp"),
        "--image-size": args.image_size is not None,
        "--no-flip": args.no_flip,
    }
    for option in (option for option, is_given in given.items() if is_given):
        args.wrong_use(f"{option} is for training on pixels; leave it or --embeddings out")


def _compare(clf, samples, learned, advice):
    """Warn if the model names its own images otherwise than the labels that it has learned.

    These follow the candidates, so they may be right where the model, which has only the image, is
    not: with few images or epochs it is far from them.
    """
    step = -(-len(samples) // _N_CHECKED)
    agreement = (clf.predict(samples.data[::step]) == clf.transduction_[::step]).mean()
    if agreement < _MIN_AGREEMENT:
        warnings.warn(
            f"the model itself gives only {agreement:.0%} of its own images the label in {learned},"
            " and will be no better on others: too few images or epochs. Before you use it"
            f" {advice}compare it with the annotator on some labelled images",
            stacklevel=2,
        )


def _write_learned(folder, table, labels, clf, training, images):
    """Write the learner's labels of the images, as a container and as a table."""
    from .._evidence import preferred_classes
    from ._folder import LEARNED, TRAINING, relative, write_json
    from ._tables import write_table

    (folder / TRAINING).unlink(missing_ok=True)  # until all that it tells of is there
    learned = labels.replace(scores=clf.label_distributions_, votes=None)
    learned.save(folder / LEARNED)
    write_json(folder / TRAINING, training)
    codes, confidence = preferred_classes(learned)
    before, _ = preferred_classes(labels)
    columns = {
        "path": relative(labels.data, images),
        "label": labels.classes[codes],
        "confidence": confidence,
        "annotator_label": labels.classes[before],
        "known": labels.known.tolist() if labels.known is not None else [False] * len(labels),
        "clean_probability": clf.clean_probability_,
    }
    write_table(folder / table, columns)
