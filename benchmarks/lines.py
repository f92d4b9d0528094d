"""The benchmarks' command line, and their output: a JSON line for each claim."""

import argparse
import json
from collections.abc import Sequence

_DIGITS = 5
"""Of a printed value."""


def emit(
    benchmark: str, *, subject: tuple[str, float], peer: tuple[str, float], unit: str, less_is_better: bool = False
) -> None:
    """Print a benchmark's line on stdout.

    Args:
        benchmark: its name.
        subject, peer: what was measured, in words, and its value.
        unit: of both values.
        less_is_better: as of seconds; `ratio` is above 1 where the subject is better.
    """
    ratio = peer[1] / subject[1] if less_is_better else subject[1] / peer[1]
    line = {
        "benchmark": benchmark,
        "subject": subject[0],
        "peer": peer[0],
        "unit": unit,
        "subject_value": float(f"{subject[1]:.{_DIGITS}g}"),
        "peer_value": float(f"{peer[1]:.{_DIGITS}g}"),
        "ratio": round(ratio, 3),
    }
    print(json.dumps(line), flush=True)


def chosen(description: str | None, *, names: Sequence[str]) -> Sequence[str]:
    """The benchmarks that the command line names; all where it names none."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    asked = parser.parse_args().names
    unknown = sorted(set(asked) - set(names))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(names)}")
    return asked or names
