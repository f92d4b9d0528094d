"""The `insitu` command."""

import argparse
import signal
import sys
from typing import Any, NoReturn

from insitu.cluster import doctor
from insitu.job import run_job


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
    show = commands.add_parser("show", help="print a model directory: what it predicts, how well, where it comes from")
    show.add_argument("directory", metavar="DIR")
    show.set_defaults(run=_show)
    return parser


def _digits(args: argparse.Namespace) -> dict[str, Any]:
    from insitu.cluster.session import spark_session
    from insitu.data.digits import write_digits

    return write_digits(spark_session("insitu data digits"), args.output, seed=args.seed)


def _xrays(args: argparse.Namespace) -> dict[str, Any]:
    from insitu.cluster.session import spark_session
    from insitu.data.synthetic import write_xrays

    spark = spark_session("insitu data xrays")
    return write_xrays(spark, args.output, images=args.images, size=args.size, seed=args.seed)


def _show(args: argparse.Namespace) -> dict[str, Any]:
    from insitu.show import show

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `insitu show DIR | head` ends quietly
    return show(args.directory)
