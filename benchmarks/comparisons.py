"""Speeds compared: runs take turns, and the best of a run's turns counts."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lines import chosen, emit

TURNS = 2
_OUTRUN = 0.95
"""A run slower than this share of its side's best in the first turn is not run again."""


class Run(Protocol):
    """Something whose speed can be measured again; equal ones are measured once."""

    def images_per_second(self) -> float:
        """Without what comes before the first step."""
        ...


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The fastest of `subjects` against the fastest of `peers`, whose speed counts `peer_factor` times."""

    subjects: tuple[Run, ...]
    peers: tuple[Run, ...]
    peer_factor: int = 1


def compare(claims: dict[str, list[Comparison]]) -> None:
    """Time each run that any comparison needs, in turns, and print a line a comparison."""
    named = [(name, comparison) for name, comparisons in claims.items() for comparison in comparisons]
    speeds = _best_speeds([side for _, comparison in named for side in (comparison.subjects, comparison.peers)])
    for name, comparison in named:
        subject, peer = (max(runs, key=speeds.__getitem__) for runs in (comparison.subjects, comparison.peers))
        factor = comparison.peer_factor
        emit(
            name,
            subject=(str(subject), speeds[subject]),
            peer=(f"{factor} x {peer}" if factor > 1 else str(peer), factor * speeds[peer]),
            unit="images/s",
        )


def run_chosen(
    description: str | None, comparisons: Mapping[str, list[Comparison]], others: Mapping[str, Callable[[], None]]
) -> None:
    """Run the benchmarks that the command line names, or all: the comparisons together, then the others."""
    names = chosen(description, names=[*comparisons, *others])
    compare({name: own for name, own in comparisons.items() if name in names})
    for name, measure in others.items():
        if name in names:
            measure()


def _best_speeds(sides: Sequence[tuple[Run, ...]]) -> dict[Run, float]:
    """Images per second of each run, the best of its turns."""
    best = {run: 0.0 for side in sides for run in side}
    for _ in range(TURNS):
        for run in _contenders(sides, best):
            speed = run.images_per_second()
            print(f"{run}: {speed:.2f} images/s", file=sys.stderr, flush=True)
            best[run] = max(best[run], speed)
    return best


def _contenders(sides: Sequence[tuple[Run, ...]], speeds: Mapping[Run, float]) -> list[Run]:
    """Those that may be the fastest of a side."""
    least = [(side, _OUTRUN * max(speeds[run] for run in side)) for side in sides]
    return [run for run in speeds if any(run in side and speeds[run] >= speed for side, speed in least)]
