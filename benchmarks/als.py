"""How fast ALS is, and against what: seconds of a fit of 10 iterations on 2 million ratings.

    python benchmarks/als.py [NAME…]

A JSON line a claim on stdout, what is being measured on stderr. 60 000 users, 20 000 items, a planted rank of 10 and
noise. A fit whose held-out RMSE is more than 0.001 above MLlib's does not count, nor one of implicit feedback whose
objective is more than a hundredth above.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from job_runs import CORES, ROOT
from lines import chosen, emit
from xrays import BUILD

_BIN = Path(sys.executable).parent
_RANKS = (10, 64, 128)
_TOLERANCE = 1e-3
_IMPLICIT_TOLERANCE = 1.01


@dataclass(frozen=True)
class Fit:
    """A fit in a process of its own.

    Attributes:
        name: in words.
        module: of the class ALS.
        rank: of the factors.
        native: whether MLlib and netlib find MKL; else they take Java's BLAS.
        implicit: feedback, of the ratings' sizes.
        scale: times 2 million ratings, 60 000 users and 20 000 items.
        first_core, cores: the cores that it is kept on.
    """

    name: str
    module: str
    rank: int
    native: bool = True
    implicit: bool = False
    scale: int = 1
    first_core: int = 0
    cores: int = CORES

    def run(self) -> dict[str, Any]:
        """`seconds`, `blocks` that were best, and `rmse` on held-out ratings or the implicit `objective`."""
        settings = {
            "module": self.module,
            "blocks": (self.cores, 5 * self.cores),
            "rank": self.rank,
            "regParam": 0.05,
            "implicitPrefs": self.implicit,
        }
        library = {} if self.native else {"INSITU_MKL": "none"}  # a library that is not there: MLlib takes Java's
        cores = range(self.first_core, self.first_core + self.cores)
        found = _submit(cores, "benchmarks/als_fit.py", str(_ratings(self.scale)), json.dumps(settings), **library)
        print(f"{self.name} rank {self.rank}: {found}", file=sys.stderr)
        return found


def _submit(cores: range, *program: str, **environment: str) -> dict[str, Any]:
    """The JSON on the last line that a program prints under spark-submit on these cores."""
    kept = ["taskset", "-c", f"{cores[0]}-{cores[-1]}"]
    command: list[str | Path] = [
        *kept,
        _BIN / "spark-submit",
        "--master",
        f"local[{len(cores)}]",
        "--driver-memory",
        "10g",
        *program,
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}"} | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@cache
def _ratings(scale: int) -> Path:
    """2.2 million ratings, times `scale`, of which a tenth is held out."""
    directory = BUILD / f"ratings-{scale}"
    if not directory.exists():
        sizes = {"ratings": 2_200_000, "users": 60_000, "items": 20_000}
        flags = [flag for name, size in sizes.items() for flag in (f"--{name}", str(scale * size))]
        subprocess.run(
            [_BIN / "insitu", "data", "ratings", directory, *flags, "--rank", "10", "--noise", "0.2"],
            stdout=sys.stderr,
            check=True,
        )
    return directory


@cache
def _ours(rank: int, *, implicit: bool = False, scale: int = 1) -> dict[str, Any]:
    return Fit("insitu", "insitu.recommend.als", rank, implicit=implicit, scale=scale).run()


def _against_mllib(rank: int, *, native: bool) -> None:
    blas = "mkl" if native else "java"
    peer = Fit(f"MLlib, {blas} BLAS", "pyspark.ml.recommendation", rank, native).run()
    ours = _ours(rank)
    if ours["rmse"] > peer["rmse"] + _TOLERANCE:
        raise RuntimeError(
            f"rank {rank}: held-out RMSE {ours['rmse']}, MLlib's {peer['rmse']}: the time does not count"
        )
    _emit(f"als_vs_mllib_{blas}_rank{rank}", ours, f"MLlib's ALS, {blas} BLAS", peer)


def _emit(name: str, ours: dict[str, Any], peer_name: str, peer: dict[str, Any]) -> None:
    def told(found: dict[str, Any]) -> str:
        return "".join(f", {key} {found[key]:.6g}" for key in ("blocks", "rmse", "objective") if found.get(key))

    emit(
        name,
        subject=(f"insitu.recommend.ALS{told(ours)}", ours["seconds"]),
        peer=(f"{peer_name}{told(peer)}", peer["seconds"]),
        unit="seconds",
        less_is_better=True,
    )


def _implicit_vs_mllib() -> None:
    peer, ours = Fit("MLlib, implicit", "pyspark.ml.recommendation", 64, implicit=True).run(), _ours(64, implicit=True)
    if ours["objective"] > peer["objective"] * _IMPLICIT_TOLERANCE:
        raise RuntimeError(f"objective {ours['objective']}, MLlib's {peer['objective']}: the time does not count")
    _emit("als_implicit_vs_mllib", ours, "MLlib's ALS, implicit, mkl BLAS", peer)


def _implicit_vs_implicit() -> None:
    """Installed apart: `pip install implicit`."""
    command = [sys.executable, "benchmarks/implicit_fit.py", str(_ratings(1)), "64", str(CORES)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    peer = json.loads(done.stdout.splitlines()[-1])
    _emit("als_implicit_vs_implicit", _ours(64, implicit=True), "implicit's ALS, no Spark", peer)


def _recommend_vs_mllib() -> None:
    found = _submit(range(CORES), "benchmarks/als_top.py", str(_ratings(1)))
    if found["differing"]:
        raise RuntimeError(f"{found['differing']} users get other items than MLlib's: the time does not count")
    ours, theirs = {"seconds": found["ours"]}, {"seconds": found["mllib"]}
    _emit("recommend_vs_mllib", ours, "ALSModel.recommendForAllUsers", theirs)


def _ten_times_the_ratings() -> None:
    """A fit's seconds and memory a million ratings, on 20 million and on 2 million."""
    many, few = _ours(64, scale=10), _ours(64)
    for name, key, unit in (("als_growth", "seconds", "seconds"), ("als_growth_memory", "peak_mib", "MiB")):
        emit(
            name,
            subject=("20 million ratings, rank 64, a million ratings", many[key] / 20),
            peer=("2 million ratings, rank 64, a million ratings", few[key] / 2),
            unit=unit,
            less_is_better=True,
        )


def main() -> None:
    claims = {f"als_vs_mllib_{blas}_rank{rank}": (rank, blas == "mkl") for rank in _RANKS for blas in ("java", "mkl")}
    others = {
        "als_implicit_vs_mllib": _implicit_vs_mllib,
        "als_implicit_vs_implicit": _implicit_vs_implicit,
        "recommend_vs_mllib": _recommend_vs_mllib,
        "als_growth": _ten_times_the_ratings,
    }
    names = chosen(__doc__, names=[*claims, *others])
    for name, (rank, native) in claims.items():
        if name in names:
            _against_mllib(rank, native=native)
    for name, run in others.items():
        if name in names:
            run()


if __name__ == "__main__":
    main()
