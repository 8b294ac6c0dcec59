"""The parser of all commands, and what becomes of errors."""

import argparse
import sys
import warnings

from .. import __version__
from . import _annotate, _fit, _predict, _report

PROGRAM = "sklearn-npll"
_EXPLAINED = (ImportError, OSError, ValueError)  # whose messages say what is wrong, and where
_EXIT_CODES = "exit codes: 0 done, 1 error, 2 wrong use, 130 interrupted"


def make_parser():
    """Return the parser of the command line.

    Returns
    -------
    argparse.ArgumentParser
        Its results have ``run``, the function of the command, which takes them.
    """
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Label a folder of images with a vision-language model, and learn from that.",
        epilog=_EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quiet", action="store_true", help="print warnings and errors only")
    common.add_argument("--debug", action="store_true", help="show where an error comes from")
    commands = parser.add_subparsers(metavar="command", required=True)
    for module in (_annotate, _fit, _predict, _report):
        module.add_parser(commands, parents=[common], epilog=_EXIT_CODES)
    return parser


def main(argv=None):
    """Run a command.

    Parameters
    ----------
    argv : list of str, default=None
        Its arguments; those of the process by default.

    Returns
    -------
    int
        The exit code: 0 if all went well, 1 after an error, 130 if interrupted. Wrong arguments end
        the process with 2.

    Examples
    --------
    >>> import contextlib, sys, tempfile
    >>> from sklearn_npll.cli import main
    >>> with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(sys.stdout):
    ...     main(["annotate", folder, "--classes", "cat,dog"])
    sklearn-npll: error: ... holds no file ending in .bmp, .gif, .jpeg, ....
    1
    """
    args = make_parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: _say(f"warning: {message}")
        try:
            args.run(args)
        except KeyboardInterrupt:
            print(file=sys.stderr)  # below the progress bar
            _say(f"interrupted. {args.after_interruption}")
            return 130
        except Exception as error:
            if args.debug:
                raise
            kind = "" if isinstance(error, _EXPLAINED) else f"{type(error).__name__}: "
            _say(f"error: {kind}{error}")
            return 1
    return 0


def _say(message):
    """Print a message in one line."""
    line = " ".join(part.strip() for part in str(message).splitlines())
    print(f"{PROGRAM}: {line}", file=sys.stderr)
