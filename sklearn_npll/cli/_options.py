"""Options and messages that several commands have."""

import argparse
import sys
from pathlib import Path

ON_ERROR = "what to do with an image that cannot be read (default: raise)"


def add_table_option(parser):
    """Add ``--table``, the format of tables in a folder."""
    parser.add_argument(
        "--table",
        choices=("csv", "json", "parquet"),
        default="csv",
        help="format of the table (default: csv); parquet needs pyarrow",
    )


def add_device_option(parser):
    """Add ``--device``, where a model runs."""
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, ... (default: cuda if there is one)"
    )


def positive(text):
    """Read an integer of at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)


def note(args, text):
    """Print a message that ``--quiet`` silences."""
    if not args.quiet:
        encoding = sys.stdout.encoding or "utf-8"
        # paths may be no text, or none that a terminal can show
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def report_unreadable(errors, folder, file):
    """List images that could not be read in a file, and the first ones on stderr.

    Parameters
    ----------
    errors : list of ImageReadError
        Why they could not be read; if it is empty, a file of an earlier run is removed.
    folder : str
        The folder that the paths are shown relative to.
    file : path-like
        A CSV file with the columns path and reason.
    """
    from ._folder import relative
    from ._tables import write_table

    if not errors:
        Path(file).unlink(missing_ok=True)
        return
    paths = relative([error.path for error in errors], folder)
    reasons = [error.reason for error in errors]
    write_table(file, {"path": paths, "reason": reasons})
    print(f"Skipped {len(errors)} that could not be read; see {file}:", file=sys.stderr)
    for path, reason in zip(paths[:5], reasons):
        print(f"  {path!r}: {reason}", file=sys.stderr)
    if len(errors) > 5:
        print(f"  and {len(errors) - 5} more", file=sys.stderr)
