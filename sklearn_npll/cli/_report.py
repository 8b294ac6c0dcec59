"""``sklearn-npll report``: a page about the labels of a folder."""

from pathlib import Path

from ._options import note


def add_parser(commands, **options):
    """Add the command to a parser."""
    parser = commands.add_parser(
        "report",
        help="write a page that shows how good the labels look",
        description="Write one HTML file, without links to others, about what annotate, and fit if"
        " it was run, have written.",
        **options,
    )
    parser.add_argument("folder", metavar="dir", help="folder that annotate has written")
    parser.add_argument(
        "--output", metavar="FILE", help="the page (default: report.html in the folder)"
    )
    parser.add_argument(
        "--truth",
        metavar="FILE",
        help="CSV file of true labels, with columns path, class, to judge by; nothing is trained on"
        " them",
    )
    parser.set_defaults(run=run, after_interruption="Nothing was written.")


def run(args):
    """Write the report of a folder."""
    from .._report import write_report
    from ..annotators._open_clip import without_folder
    from ._folder import load_labels, load_learned

    labels, annotation = load_labels(args.folder)
    learned, training = load_learned(args.folder)
    images = annotation.pop("folder")  # a path of this machine is not to be in a page to share
    annotation.pop("classes", None)  # the page has a table of them
    for name in annotation.keys() & {"model", "pretrained"}:
        annotation[name] = without_folder(annotation[name])
    if training is not None:
        del training["labels"]  # a checksum
    judged = None if args.truth is None else _judge(args, labels, learned, images)
    page = Path(args.output or Path(args.folder, "report.html"))
    page.parent.mkdir(parents=True, exist_ok=True)
    write_report(
        page,
        labels,
        folder=images,
        annotation=annotation,
        learned=learned,
        training=training or {},
        judged=judged,
    )
    note(args, f"Wrote {page} ({page.stat().st_size / 1e6:.1f} MB).")


def _judge(args, labels, learned, images):
    """Compare the labels with true ones in a file, and print the result."""
    from .._report._findings import judge
    from ._inputs import read_labels

    truth = read_labels(args.truth, labels, images, "--truth")
    codes, right = judge(labels, truth, learned)
    n_known = (truth != "-1").sum() - len(codes)
    if not len(codes):
        reason = "fit was given all of its labels" if n_known else "it holds no labels"
        raise ValueError(f"{args.truth} has nothing to judge by: {reason}.")
    shares = ", ".join(f"{name} {values.mean():.1%}" for name, values in right.items())
    left_out = f" {n_known} that fit was given are left out." if n_known else ""
    note(args, f"By {len(codes)} true labels: {shares}.{left_out}")
    return codes, right
