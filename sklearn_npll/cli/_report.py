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
    parser.set_defaults(run=run, after_interruption="Nothing was written.")


def run(args):
    """Write the report of a folder."""
    from .._report import write_report
    from ._folder import load_labels, load_learned

    labels, annotation = load_labels(args.folder)
    learned, training = load_learned(args.folder)
    images = annotation.pop("folder")  # a path of this machine is not to be in a page to share
    annotation.pop("classes", None)  # the page has a table of them
    if training is not None:
        del training["labels"]  # a checksum
    page = Path(args.output or Path(args.folder, "report.html"))
    page.parent.mkdir(parents=True, exist_ok=True)
    write_report(
        page,
        labels,
        folder=images,
        annotation=annotation,
        learned=learned,
        training=training or {},
    )
    note(args, f"Wrote {page} ({page.stat().st_size / 1e6:.1f} MB).")
