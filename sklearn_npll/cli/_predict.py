"""``sklearn-npll predict``: labels for the images of a folder by a fitted classifier."""

from pathlib import Path

from ._options import ON_ERROR, note, report_unreadable

_CHUNK = 512  # images between two steps of the progress bar
_TOP = 3


def add_parser(commands, **options):
    """Add the command to a parser."""
    parser = commands.add_parser(
        "predict",
        help="label the images of a folder with a trained classifier",
        description="Write a table with the most probable classes of all images of a folder.",
        **options,
    )
    parser.add_argument("model", help="file that fit has written; .joblib only if you made it")
    parser.add_argument("folder", help="folder of the images")
    parser.add_argument(
        "--output",
        default="predictions.csv",
        metavar="FILE",
        help="table, in .csv, .json or .parquet (default: predictions.csv)",
    )
    parser.add_argument("--on-error", choices=("skip", "raise"), default="raise", help=ON_ERROR)
    parser.set_defaults(run=run, after_interruption="Nothing was written.")


def run(args):
    """Predict the classes of the images of a folder into a table."""
    import numpy as np

    from ..datasets._image_folder import find_images
    from ._folder import relative
    from ._model_files import load_model
    from ._tables import check_table, write_table

    output = Path(args.output)
    check_table(output)
    model = load_model(args.model)
    images = find_images(args.folder)
    paths, proba, errors = _predict(model, images, args.on_error == "skip", not args.quiet)
    columns = {"path": relative(paths, args.folder)}
    best = (-proba).argsort(axis=1, kind="stable")[:, :_TOP]
    confidence = np.take_along_axis(proba, best, axis=1)
    for rank in range(best.shape[1]):
        suffix = f"_{rank + 1}" if rank else ""
        columns[f"label{suffix}"] = model.classes_[best[:, rank]]
        columns[f"confidence{suffix}"] = confidence[:, rank]
    write_table(output, columns)
    note(args, f"{len(paths)} images. Wrote {output}.")
    unreadable = output.with_name(f"{output.stem}-unreadable.csv")
    report_unreadable(errors, args.folder, unreadable)


def _predict(model, images, skip, verbose):
    """Return the paths of images that can be read, their probabilities, and the others' errors."""
    import numpy as np
    from tqdm.auto import tqdm

    from .._images import ImageReadError

    paths, proba, errors = [], [], []
    with tqdm(total=len(images), desc="Predicting", unit="image", disable=not verbose) as bar:
        for start in range(0, len(images), _CHUNK):
            chunk = readable = images[start : start + _CHUNK]
            try:
                part = model.predict_proba(chunk)
            except ImageReadError as error:
                if not skip:
                    error.index += start  # the row in all images, not in the chunk
                    raise
                failed = _read_errors(chunk)
                errors += failed.values()
                readable = [path for path in chunk if path not in failed]
                part = model.predict_proba(readable) if readable else None
            if readable:
                paths += readable
                proba.append(part)
            bar.update(len(chunk))
    if not paths:
        raise errors[0]
    return paths, np.concatenate(proba), errors


def _read_errors(paths):
    """Errors of the images that cannot be read, by path; one image is in memory at a time."""
    from .._images import ImageReadError, read_images

    images = ((path, read_images([path], on_error="return")[0]) for path in paths)
    return {path: image for path, image in images if isinstance(image, ImageReadError)}
