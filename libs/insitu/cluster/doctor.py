"""`insitu doctor`: prints the preflight checks, each with ok or the mend."""

from __future__ import annotations

import argparse
import dataclasses
import json

from insitu.cluster.preflight import Check, checks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `insitu doctor`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end instead of lines")
    parser.add_argument("--quick", action="store_true", help="leave out what loads TensorFlow, MKL and petastorm")


def run(args: argparse.Namespace) -> int:
    """Check this machine and print what was found, line by line as it is found.

    Returns:
        The exit code: 0 if everything works, 1 if something is broken.
    """
    report = []
    for check in checks(quick=args.quick):
        report.append(check)
        if not args.json:
            print(_line(check), flush=True)
    ok = all(check.ok for check in report)
    if args.json:
        print(json.dumps({"ok": ok, "checks": [dataclasses.asdict(check) for check in report]}))
    return 0 if ok else 1


def _line(check: Check) -> str:
    verdict = "ok" if check.ok else f"BROKEN: {check.mend}"
    return f"{check.name:<12}{check.found}  {verdict}"
