"""``sklearn-npll annotate``: candidate labels for a folder of images."""

import os
import warnings
from pathlib import Path

from ._options import (
    ON_ERROR,
    add_device_option,
    add_table_option,
    note,
    positive,
    report_unreadable,
)


def add_parser(commands, **options):
    """Add the command to a parser."""
    parser = commands.add_parser(
        "annotate",
        help="give each image of a folder candidate labels",
        description="Ask a vision-language model about all images of a folder, at any depth. After"
        " an interruption, the same command continues where it stopped.",
        **options,
    )
    parser.add_argument("folder", help="folder of the images")
    parser.add_argument(
        "--classes",
        required=True,
        metavar="FILE|NAMES",
        help="'cat,dog,red fox', or a file with one class a line: 'name', or 'label: name, name'",
    )
    parser.add_argument(
        "--templates",
        default="coreg-27",
        metavar="FILE|NAME",
        help="coreg-27 (default), imagenet-80, simple, or a file with one template a line, such as"
        " 'a photo of a {}.'",
    )
    parser.add_argument(
        "--model",
        help="open_clip model, such as ViT-B-32-quickgelu (default: the small one for clothes)",
    )
    parser.add_argument("--pretrained", metavar="TAG", help="weights of the model, such as openai")
    parser.add_argument(
        "--rule",
        choices=("union", "topk", "threshold", "ratio", "cumulative", "cpl"),
        default="union",
        help="from answers to candidates (default: union)",
    )
    parser.add_argument(
        "--rule-value",
        type=number,
        metavar="VALUE",
        help="such as 3, 0.1 or, for cpl, 0.6,0.9",
    )
    parser.add_argument(
        "--refine",
        choices=("zlap", "transclip", "inmap"),
        help="compare the images as well (default: no)",
    )
    parser.add_argument(
        "--output", default="labels", metavar="DIR", help="folder of the results (default: labels)"
    )
    add_table_option(parser)
    parser.add_argument("--on-error", choices=("skip", "raise"), default="raise", help=ON_ERROR)
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=256,
        metavar="N",
        help="images at once (default: 256)",
    )
    add_device_option(parser)
    parser.set_defaults(
        run=run,
        wrong_use=parser.error,
        after_interruption="The same command continues from where it stopped.",
    )


def run(args):
    """Annotate a folder of images; the results go into another one."""
    from .._evidence import preferred_classes, rare_classes
    from .._messages import name_classes
    from .._partial_labels import label_columns
    from .._report._findings import class_shares
    from ..annotators import VLMPartialAnnotator
    from ..annotators._open_clip import SHIPPED_MODEL, absolute_paths
    from ..datasets._image_folder import find_images
    from ._folder import ANNOTATION, CACHE, LABELS, relative, write_json
    from ._inputs import read_classes, read_templates
    from ._tables import check_table, write_table

    if args.pretrained is not None and args.model is None:
        args.wrong_use("--pretrained needs --model, such as --model ViT-B-32-quickgelu")
    folder, output = os.path.abspath(args.folder), Path(args.output)
    table = output / f"labels.{args.table}"
    check_table(table)
    model, pretrained = absolute_paths(args.model or SHIPPED_MODEL, args.pretrained)
    settings = {
        "model": model,
        "pretrained": pretrained,
        "rule": args.rule,
        "rule_value": args.rule_value,
        "refine": args.refine,
    }
    classes = read_classes(args.classes)
    annotator = VLMPartialAnnotator(
        classes,
        templates=read_templates(args.templates),
        **settings,
        device=args.device,
        batch_size=args.batch_size,
        cache_dir=output / CACHE,
        on_error=args.on_error,
        verbose=not args.quiet,
    )
    images = find_images(folder)
    with warnings.catch_warnings():
        # all of them are listed below
        warnings.filterwarnings("ignore", message=r"\d+ of \d+ images cannot be read")
        labels = annotator.fit_transform(images)
    labels, errors = _readable(labels)

    labels.save(output / LABELS)
    lists = {"classes": classes, "templates": annotator.templates_}
    write_json(output / ANNOTATION, {"folder": folder, **lists, **settings})
    write_table(table, {"path": relative(labels.data, folder), **label_columns(labels)})
    summary = labels.summary()
    note(
        args,
        f"{len(labels)} images, {summary['mean_set_size']:.2f} candidates each,"
        f" {summary['single_share']:.1%} with a single one.\n"
        f"Wrote {output / LABELS} and {table}.",
    )
    codes, _ = preferred_classes(labels)
    rare = rare_classes(class_shares(labels, codes)[0])
    if len(rare):
        names = name_classes(labels.classes[rare].tolist(), limit=5)
        warnings.warn(
            f"{len(rare)} of {len(classes)} classes are never or hardly ever preferred to the"
            f" others: {names}. If they are in the images, the model may not know them; look"
            " at the report",
            stacklevel=2,
        )
    report_unreadable(errors, folder, output / "unreadable.csv")


def number(text):
    """A number or, with a comma, a pair of them."""
    values = [float(part) if "." in part or "e" in part else int(part) for part in text.split(",")]
    return values[0] if len(values) == 1 else values


def _readable(labels):
    """Labels of the images that could be read, and the errors of the others."""
    from .._images import ImageReadError, read_images

    silent = (labels.votes < 0).all(axis=1)
    errors = read_images(labels.data, silent.nonzero()[0], on_error="return")
    errors = [error for error in errors if isinstance(error, ImageReadError)]
    if silent.all():
        raise errors[0]
    return labels[~silent], errors
