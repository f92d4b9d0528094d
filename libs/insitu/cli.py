"""The `insitu` command."""

import argparse
import signal
import sys
from functools import partial
from typing import Any, NoReturn

from insitu.cluster import doctor
from insitu.errors import UserError
from insitu.job import run_job
from insitu.tracking import add_options, from_options


def main() -> NoReturn:
    """Entry point of the console command; exits as jobs do."""
    args = _parser().parse_args()
    if args.command == "doctor":
        sys.exit(doctor.run(args))
    run_job("insitu", lambda: args.run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="insitu", description="Deep learning where the data already is.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    doctor.add_arguments(commands.add_parser("doctor", help="check this machine: what was found, with ok or the mend"))
    data = commands.add_parser("data", help="make a dataset to try things on").add_subparsers(
        dest="dataset", required=True
    )
    digits = data.add_parser("digits", help="scikit-learn's 1797 real handwritten digits as PNG in Parquet")
    digits.add_argument("output", metavar="OUT")
    digits.add_argument("--seed", type=int, default=17, help="of the split (default: 17)")
    digits.set_defaults(run=_digits)
    xrays = data.add_parser("xrays", help="synthetic chest X-rays with 14 labels")
    xrays.add_argument("output", metavar="OUT")
    xrays.add_argument("--images", type=int, required=True, metavar="N")
    xrays.add_argument("--size", type=int, required=True, metavar="S", help="height and width in pixels")
    xrays.add_argument("--seed", type=int, default=17, metavar="K", help="default: 17")
    xrays.set_defaults(run=_xrays)
    windows = data.add_parser("windows", help="synthetic sensor windows, 64 steps of 32 variables, with 3 classes")
    windows.add_argument("output", metavar="OUT")
    windows.add_argument("--rows", type=int, required=True, metavar="N")
    windows.add_argument("--seed", type=int, default=17, metavar="K", help="default: 17")
    windows.set_defaults(run=_windows)
    ratings = data.add_parser("ratings", help="synthetic ratings: factors of a low rank plus noise")
    ratings.add_argument("output", metavar="OUT")
    for option, metavar, text in (
        ("--ratings", "N", "number of ratings, no two of the same user and item"),
        ("--users", "U", "number of users"),
        ("--items", "I", "number of items"),
        ("--rank", "R", "number of factors of each"),
    ):
        ratings.add_argument(option, type=int, required=True, metavar=metavar, help=text)
    ratings.add_argument(
        "--noise", type=float, required=True, metavar="S", help="its standard deviation; the signal's is 1"
    )
    ratings.add_argument(
        "--skew", type=float, default=0, metavar="Z", help="Zipf exponent of users and items (default: 0, all alike)"
    )
    ratings.add_argument("--seed", type=int, default=17, metavar="K", help="default: 17")
    ratings.set_defaults(run=_ratings)
    show = commands.add_parser("show", help="print a model directory: what it predicts, how well, where it comes from")
    show.add_argument("directory", metavar="DIR")
    show.set_defaults(run=_show)
    compare = commands.add_parser("compare", help="print model directories side by side")
    compare.add_argument("directories", metavar="DIR", nargs="+")
    compare.add_argument("--output", metavar="FILE.html", help="the same as a page, with the runs' curves")
    compare.set_defaults(run=_compare)
    _add_sweep(commands.add_parser("sweep", help="train a recipe over a grid or at random: one table and picture"))
    _add_promote(commands.add_parser("promote", help="make a model the current one of a registry, if it is not worse"))
    rollback = commands.add_parser("rollback", help="make a registry's previous model the current one")
    rollback.add_argument("registry", metavar="REGISTRY")
    add_options(rollback)
    rollback.set_defaults(run=_rollback)
    log = commands.add_parser("log", help="log in MLflow what is published, and could not be logged when it was made")
    log.add_argument("directory", metavar="DIR", help="model directory, or registry")
    add_options(log)
    log.set_defaults(run=_log)
    return parser


def _add_sweep(sweep: argparse.ArgumentParser) -> None:
    sweep.add_argument("--recipe", required=True, help="YAML file, such as one of conf/recipes/")
    sweep.add_argument("--data", required=True, help="Parquet directory, on any file system that Spark reads")
    sweep.add_argument("--output", required=True, help="the sweep's directory; named again, the sweep goes on")
    sweep.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for all trials; may repeat")
    for option, form, text in (
        ("--grid", "KEY=V1,V2,…", "values, every combination of them; may repeat"),
        ("--range", "KEY=LO:HI[:log]", "with --random, a range to draw from; may repeat"),
    ):
        entry = partial(_with_option, option)
        sweep.add_argument(option, dest="space", action="append", metavar=form, help=text, type=entry)
    sweep.add_argument("--random", type=int, metavar="N", help="draw N trials instead of every combination")
    sweep.add_argument("--seed", type=int, default=17, help="of the draw and the order (default: 17)")
    sweep.set_defaults(run=_sweep)


def _add_promote(promote: argparse.ArgumentParser) -> None:
    add = promote.add_argument
    add("--candidate", required=True, metavar="MODEL", help="model directory")
    add("--registry", required=True, help="folder of the promoted models; made where there is none")
    add("--holdout", required=True, metavar="DATASET", help="labelled dataset, of which the validation rows are scored")
    add("--replay", metavar="FOLDER", help="recent rows without labels: Parquet files or images")
    add("--max-drop", type=float, default=0.0, help="of macro AUC, or of accuracy, that is allowed (default: 0)")
    add("--replay-days", type=float, default=7.0, metavar="N", help="of files modified since then (default: 7)")
    add("--min-agreement", type=float, default=0.9, help="share of the replay with the same decision (default: 0.9)")
    add("--precision", help="int8, bf16 or fp32 (default: int8 where a model has it, else fp32)")
    add("--thresholds", metavar="FILE", help="YAML: thresholds of the decisions")
    add("--image-column", help="of the replay, where it cannot be recognised")
    add("--tensor-column", help="of the replay, where it cannot be recognised")
    add_options(promote)
    promote.set_defaults(run=_promote)


def _with_option(option: str, text: str) -> tuple[str, str]:
    return option, text


def _digits(args: argparse.Namespace) -> dict[str, Any]:
    from insitu.cluster.session import spark_session
    from insitu.data.digits import write_digits

    return write_digits(spark_session("insitu data digits"), args.output, seed=args.seed)


def _xrays(args: argparse.Namespace) -> dict[str, Any]:
    from insitu.cluster.session import spark_session
    from insitu.data.synthetic import write_xrays

    spark = spark_session("insitu data xrays")
    return write_xrays(spark, args.output, images=args.images, size=args.size, seed=args.seed)


def _windows(args: argparse.Namespace) -> dict[str, Any]:
    from insitu.cluster.session import spark_session
    from insitu.data.windows import write_windows

    return write_windows(spark_session("insitu data windows"), args.output, rows=args.rows, seed=args.seed)


def _ratings(args: argparse.Namespace) -> dict[str, Any]:
    from insitu.cluster.session import spark_session
    from insitu.data.ratings import write_ratings

    options = {name: getattr(args, name) for name in ("ratings", "users", "items", "rank", "noise", "skew", "seed")}
    return write_ratings(spark_session("insitu data ratings"), args.output, **options)


def _show(args: argparse.Namespace) -> dict[str, Any]:
    from insitu.show import show

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `insitu show DIR | head` ends quietly
    return show(args.directory)


def _compare(args: argparse.Namespace) -> dict[str, Any]:
    from insitu.compare import compare

    return compare(args.directories, output=args.output)


def _sweep(args: argparse.Namespace) -> dict[str, Any]:
    from insitu.cluster.session import spark_session
    from insitu.sweep.space import parse_space

    space = parse_space(args.space or [])
    from insitu.sweep.trials import sweep

    return sweep(
        spark_session("insitu sweep"),
        recipe=args.recipe,
        settings=args.set,
        data=args.data,
        output=args.output,
        space=space,
        random=args.random,
        seed=args.seed,
    )


def _promote(args: argparse.Namespace) -> dict[str, Any]:
    from insitu.cluster.session import spark_session
    from insitu.scoring.promote import promote
    from insitu.scoring.thresholds import read_thresholds

    tracking, thresholds = from_options(args), read_thresholds(args.thresholds)
    models, rows = ("candidate", "registry", "precision"), ("holdout", "replay", "image_column", "tensor_column")
    given = {name: getattr(args, name) for name in (*models, *rows, "max_drop", "min_agreement", "replay_days")}
    return promote(spark_session("insitu promote"), thresholds=thresholds, tracking=tracking, **given)


def _rollback(args: argparse.Namespace) -> dict[str, Any]:
    from insitu.scoring.promote import roll_back

    return roll_back(args.registry, tracking=from_options(args))


def _log(args: argparse.Namespace) -> dict[str, Any]:
    from insitu.scoring.promote import log

    tracking = from_options(args)
    if tracking is None:
        raise UserError("--tracking-uri", "is missing", "give the MLflow server's")
    return log(args.directory, tracking)
