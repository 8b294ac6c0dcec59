"""Run a suite of the benchmark, its ablations, or the growth benchmark.

Usage::

    python benchmarks/run.py --list
    python benchmarks/run.py synthetic                           # the cheap methods, no data needed
    python benchmarks/run.py fashion --methods Co-Reg PRODEN --seeds 0 1 2
    python benchmarks/run.py fashion --ablations
    python benchmarks/run.py pll --track tuned --trials 8
    python benchmarks/run.py paper --dry-run
    python benchmarks/run.py growth --methods Co-Reg PL-kNN

Results go to benchmarks/results/suites/<suite>.csv, one row a run, and <suite>.json, how they were
made. Runs that are there are left out, so an interrupted benchmark continues; --retry repeats
those that failed. ``benchmarks/report.py`` makes tables and figures of them.
"""

import argparse
import sys
from pathlib import Path

from npllbench import SUITES, SkipSuite, get_methods, run_suite
from npllbench.growth import METHODS as GROWTH_METHODS
from npllbench.growth import exponents, run_growth
from npllbench.methods import why_not
from npllbench.paper import paper_suite
from reporting import write_result

OUTPUT = Path(__file__).resolve().parent / "results" / "suites"


def list_all():
    """Print the suites with their tasks, and the methods."""
    for suite in SUITES.values():
        print(f"{suite.name} ({suite.kind}): {suite.description}")
        print(f"    tasks: {', '.join(suite.tasks)}")
        print(f"    default: methods {suite.methods}, seeds {' '.join(map(str, suite.seeds))}")
    print("growth: time and memory of fit against samples, classes and features\n")
    for method in get_methods():
        networks = {0: "no network", 1: "1 network"}.get(method.networks, "2 networks")
        suites = [suite.name for suite in SUITES.values() if not why_not(method, suite)]
        print(f"{method.name} ({method.group}, {networks}): {', '.join(suites)}")


def growth(args):
    """Run the growth benchmark, then print and write the exponents."""
    axes = {"n": args.sizes} if args.sizes else None
    rows = run_growth(
        args.output,
        args.methods or GROWTH_METHODS,
        axes,
        timeout=args.timeout,
    )
    slopes = {
        key: {f"{method}, {axis}": slope for (method, axis), slope in exponents(rows, key).items()}
        for key in ("seconds", "memory_mb")
    }
    write_result("growth", {"exponents": slopes}, args.output / "growth.json")


def parse(arguments):
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", nargs="?", choices=[*SUITES, "growth"])
    parser.add_argument("--list", action="store_true", help="print suites and methods")
    parser.add_argument("--methods", nargs="+", help="names or groups: all, cheap, neural, oracle")
    parser.add_argument("--tasks", nargs="+", help="only these tasks")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--passes", type=int, help="gradient samples per training row")
    parser.add_argument("--n-train", type=int)
    parser.add_argument("--n-test", type=int)
    parser.add_argument("--n-val", type=int, help="validation rows of the tuned track")
    parser.add_argument("--track", choices=["default", "tuned"], default="default")
    parser.add_argument("--trials", type=int, default=8, help="of each method, tuned track")
    parser.add_argument("--ablations", action="store_true", help="variants of Co-Reg")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--retry", action="store_true", help="repeat runs that failed")
    parser.add_argument("--dry-run", action="store_true", help="suite paper: two steps on noise")
    parser.add_argument("--allow-cpu", action="store_true", help="suite paper: without a GPU")
    parser.add_argument("--sizes", type=int, nargs="+", help="growth: only along n, these sizes")
    parser.add_argument("--timeout", type=float, default=600, help="growth: seconds a fit may take")
    args = parser.parse_args(arguments)
    if args.suite is None and not args.list:
        parser.error("name a suite, or --list")
    if args.dry_run and args.suite != "paper":
        parser.error("--dry-run is for the suite paper")
    return args


def main(arguments=None):
    """Run what the command line asks for; return the exit status."""
    args = parse(arguments)
    if args.list:
        list_all()
        return 0
    if args.suite == "growth":
        growth(args)
        return 0
    suite = SUITES[args.suite]
    if args.suite == "paper":
        suite = paper_suite(args.dry_run, args.allow_cpu)
    methods = args.methods or (["Co-Reg"] if args.dry_run else None)
    try:
        rows = run_suite(
            suite,
            methods,
            args.seeds,
            args.output,
            tasks=args.tasks,
            passes=args.passes,
            n_train=args.n_train,
            n_test=args.n_test,
            n_val=args.n_val,
            track=args.track,
            trials=args.trials,
            ablations=args.ablations,
            retry=args.retry,
            report=lambda line: print(line, flush=True),
        )
    except SkipSuite as reason:
        print(f"skipped {suite.name}: {reason}", file=sys.stderr)
        return 2
    failed = sum(row["status"] == "error" for row in rows)
    print(f"{len(rows)} rows, {failed} failed, in {args.output}")
    return int(args.dry_run and failed > 0)


if __name__ == "__main__":
    sys.exit(main())
