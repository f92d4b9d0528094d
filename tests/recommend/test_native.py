"""native/, as setup compiled it for each generation of processors, against NumPy in double precision."""

import ctypes
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyspark
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

JAR = Path(pyspark.__file__).parent / "jars/insitu.jar"
FLAGS = Path("/proc/cpuinfo").read_text()
VECTOR = 16  # floats that must be readable beyond the table
EVERY = 2**31 - 1

LIBRARIES = [
    pytest.param("als-avx2.so", marks=pytest.mark.skipif("avx2" not in FLAGS, reason="this processor has no AVX2")),
    pytest.param("als-avx512.so", marks=pytest.mark.skipif("avx512vl" not in FLAGS, reason="it has no AVX-512")),
]


@pytest.fixture(scope="module", params=LIBRARIES)
def solve_rows(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with zipfile.ZipFile(JAR) as jar:
        library = jar.extract(f"insitu/recommend/als/{request.param}", tmp_path_factory.mktemp("native"))
    function = ctypes.CDLL(library)["Java_insitu_recommend_als_Native_00024_solveRows"]
    whole, real, address = ctypes.c_int32, ctypes.c_float, ctypes.c_void_p
    environment = [address, address]
    function.argtypes = [*environment, whole, real, ctypes.c_bool, real, whole, whole, *[address] * 7]
    return function


class Rows:
    """Random rows of random ratings, and what solves them.

    lengths: ratings of each row. All arrays are what native/ratings.h says.
    """

    def __init__(self, seed: int, rank: int, lengths: list[int], implicit: bool, reg: float) -> None:
        random = np.random.default_rng(seed)
        self.rank, self.implicit, self.reg, self.alpha = rank, implicit, np.float32(reg), np.float32(0.7)
        self.starts = np.cumsum([0, *lengths], dtype=np.int32)
        columns = 100  # more than factors, so that `base` is regular
        self.table = random.normal(size=(columns, rank)).astype(np.float32)
        self.sources = random.integers(0, columns, self.starts[-1], dtype=np.int32)
        self.ratings = random.normal(1, 2, self.starts[-1]).astype(np.float32)
        self.base = np.tril(self.table.T @ self.table) if implicit else np.zeros((rank, rank), np.float32)
        self.factors = random.normal(size=(len(lengths), rank)).astype(np.float32)

    def solve(self, function: Any, conjugate_up_to: int) -> tuple[int, float]:
        """Fill `factors`; gives the error code and the loss."""
        loss = np.zeros(1)
        padded = np.append(self.table.ravel(), np.full(VECTOR, np.nan, np.float32))
        arrays = [self.base, self.starts, self.sources, self.ratings, padded, self.factors, loss]
        addresses = [array.ctypes.data for array in arrays]
        shape = (self.rank, self.reg, self.implicit, self.alpha, conjugate_up_to, len(self.starts) - 1)
        return function(None, None, *shape, *addresses), loss[0]

    def systems(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64], float]]:
        """Each row's normal matrix, right side and error without factors."""
        base = self.base.astype(float) + np.tril(self.base, -1).T
        made = []
        for start, end in zip(self.starts, self.starts[1:], strict=False):
            columns, ratings = self.table[self.sources[start:end]].astype(float), self.ratings[start:end].astype(float)
            confidence = self.alpha * abs(ratings) if self.implicit else np.ones(len(ratings))
            weight = np.where(ratings > 0, 1 + confidence, 0) if self.implicit else ratings
            counted = np.sum(ratings > 0) if self.implicit else len(ratings)
            matrix = base + columns.T * confidence @ columns + float(self.reg) * counted * np.eye(self.rank)
            made.append((matrix, columns.T @ weight, sum(weight if self.implicit else ratings**2)))
        return made

    def loss(self) -> float:
        """Of `factors`, without the regularisation."""
        total = 0.0
        for (matrix, right, alone), x, start, end in zip(
            self.systems(), self.factors.astype(float), self.starts, self.starts[1:], strict=False
        ):
            ratings = self.ratings[start:end]
            counted = np.sum(ratings > 0) if self.implicit else len(ratings)
            total += alone - 2 * right @ x + x @ matrix @ x - float(self.reg) * counted * x @ x
        return total


LENGTHS = st.lists(st.integers(1, 40) | st.sampled_from([127, 128, 129, 300, 1024, 1025]), min_size=1, max_size=40)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**31), rank=st.integers(1, 70), lengths=LENGTHS, implicit=st.booleans())
def test_rows_solve_their_normal_equations(
    solve_rows: Any, seed: int, rank: int, lengths: list[int], implicit: bool
) -> None:
    rows = Rows(seed, rank, lengths, implicit, reg=0.1)
    code, loss = rows.solve(solve_rows, conjugate_up_to=0)
    assert code == 0
    for (matrix, right, _), x in zip(rows.systems(), rows.factors, strict=True):
        assert np.linalg.norm(x - np.linalg.solve(matrix, right)) <= 1e-3 * max(float(np.linalg.norm(x)), 1e-3)
    assert loss == pytest.approx(rows.loss(), rel=1e-3, abs=1e-3)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**31), rank=st.integers(1, 70), lengths=LENGTHS, implicit=st.booleans())
def test_conjugate_gradient_comes_nearer(
    solve_rows: Any, seed: int, rank: int, lengths: list[int], implicit: bool
) -> None:
    rows = Rows(seed, rank, lengths, implicit, reg=0.1)
    solutions = [np.linalg.solve(matrix, right) for matrix, right, _ in rows.systems()]
    before = rows.factors.copy()
    code, loss = rows.solve(solve_rows, conjugate_up_to=EVERY)
    assert code == 0
    for (matrix, _, _), solution, x, start in zip(rows.systems(), solutions, rows.factors, before, strict=True):
        left, distance = x - solution, start - solution
        shrinks = min(1, chebyshev_bound(matrix, steps=3))
        assert left @ matrix @ left <= (shrinks + 1e-3) * distance @ matrix @ distance + 1e-4
    assert loss == pytest.approx(rows.loss(), rel=1e-3, abs=1e-3)


def chebyshev_bound(matrix: NDArray[np.float64], steps: int) -> float:
    """What of the squared error, in the matrix's norm, conjugate gradient leaves at most (Saad 2003, eq. 6.128)."""
    root = np.sqrt(np.linalg.cond(matrix))
    return (2 * ((root - 1) / (root + 1)) ** steps) ** 2


def test_enough_steps_of_conjugate_gradient_give_the_solution(solve_rows: Any) -> None:
    rows = Rows(1, 20, [5, 15, 200], False, reg=0.1)
    for _ in range(30):
        rows.solve(solve_rows, conjugate_up_to=EVERY)
    for (matrix, right, _), x in zip(rows.systems(), rows.factors, strict=True):
        np.testing.assert_allclose(x, np.linalg.solve(matrix, right), atol=1e-3)


def test_a_singular_system_is_told(solve_rows: Any) -> None:
    rows = Rows(1, 8, [20, 3], False, reg=0)
    rows.table[:] = 1
    assert rows.solve(solve_rows, conjugate_up_to=0)[0] == 1
