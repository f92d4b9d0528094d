"""jobs/train_cnn.py with the same batch, decoded once, at every step: what training costs without reading.

spark-submit benchmarks/in_memory.py    with the arguments of jobs/train_cnn.py
"""

import runpy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insitu.data.pipeline import Source
from insitu.training.engines import orca
from insitu.training.engines.base import Layout, Listener, TrainingJob, TrainingResult

if TYPE_CHECKING:
    import tensorflow as tf


class InMemory(Source):
    def training_dataset(self, *args: Any, **options: Any) -> "tf.data.Dataset":
        import tensorflow as tf

        batch = next(iter(super().training_dataset(*args, **options)))
        return tf.data.Dataset.from_tensors(batch).repeat()


class InMemoryEngine(orca.OrcaEngine):
    def train(self, job: TrainingJob, layout: Layout, listener: Listener) -> TrainingResult:
        return super().train(replace(job, source=InMemory(**vars(job.source))), layout, listener)


orca.OrcaEngine = InMemoryEngine  # type: ignore[misc]
runpy.run_path(str(Path(__file__).parent.parent / "jobs/train_cnn.py"), run_name="__main__")
