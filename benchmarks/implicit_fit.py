"""The `implicit` library's ALS, timed on the same ratings: `python implicit_fit.py RATINGS RANK THREADS`."""

import json
import sys
import time

import numpy as np
import pyarrow.parquet as pq
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix


def main() -> None:
    ratings, rank, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    table = pq.read_table(ratings, columns=["user", "item", "rating"])
    user, item, rating = (table[name].to_numpy() for name in ("user", "item", "rating"))
    kept = np.random.default_rng(1).random(len(user)) >= 0.1
    matrix = csr_matrix((np.abs(rating[kept]), (user[kept], item[kept])))
    seconds = []
    for _ in range(2):
        model = AlternatingLeastSquares(
            factors=rank, regularization=0.1, iterations=10, num_threads=threads, random_state=1
        )
        started = time.monotonic()
        model.fit(matrix, show_progress=False)
        seconds.append(time.monotonic() - started)
    print(json.dumps({"seconds": min(seconds)}))


if __name__ == "__main__":
    main()
