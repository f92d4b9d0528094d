"""Petastorm's batch worker, giving out the Arrow tables that it reads.

`petastorm.make_batch_reader` turns every table into NumPy on the way out: a null integer becomes
NaN, and lists that are null or of different lengths fail (`convert_arrow_table_to_numpy_dict` in
petastorm 0.13 `arrow_reader_worker.py`). Reading is the same; only that step is left out.
"""

from typing import Any

import pyarrow as pa
from petastorm.arrow_reader_worker import ArrowReaderWorker, ArrowReaderWorkerResultsQueueReader
from petastorm.workers_pool import EmptyResultError


class TableQueueReader(ArrowReaderWorkerResultsQueueReader):
    """Takes a worker's tables as they are."""

    def read_next(self, workers_pool: Any, schema: Any, ngram: Any) -> pa.Table:
        """The next row group; StopIteration after the last, as petastorm's `Reader` expects."""
        try:
            return workers_pool.get_results()
        except EmptyResultError:
            raise StopIteration from None


class TableWorker(ArrowReaderWorker):
    """An `ArrowReaderWorker` whose results stay Arrow tables."""

    new_results_queue_reader = staticmethod(TableQueueReader)
