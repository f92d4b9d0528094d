"""tf.data pipelines: stored batches → decoded, augmented tensors; images are uint8 to the end.

Legend: B local batch, h, w the model's input size, C channels, K classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from insitu.data.augment import Augmentation
from insitu.data.columns import LabelColumn
from insitu.data.inputs import Input
from insitu.data.plan import ShardPlan
from insitu.data.readers import READERS
from insitu.data.stream import Batch, stream_batches

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Source:
    """Where a worker's rows come from and what they become.

    Attributes:
        reader: a key of `insitu.data.readers.READERS`.
        input: what is read for the network.
        label: the label column.
        label_shape: of one label: (K,) for multi-hot, () for integers.
        label_dtype: NumPy name.
    """

    reader: str
    input: Input
    label: LabelColumn
    label_shape: tuple[int, ...]
    label_dtype: str

    def validation_batches(self, plan: ShardPlan, rank: int) -> Iterator[Batch]:
        """A worker's rows as they are stored; the last batch may be smaller."""
        return self._stream(plan.in_order(rank), plan.local_batch)

    def _stream(self, windows: Any, batch_rows: int) -> Iterator[Batch]:
        return stream_batches(
            windows, reader=READERS[self.reader](), input=self.input, label=self.label, batch_rows=batch_rows
        )

    def training_batches(self, plan: ShardPlan, rank: int, first_step: int) -> Iterator[tuple[Batch, tuple[int, int]]]:
        """A worker's batches without end, each with its seed pair, from step `first_step` on."""
        for epoch in count(first_step // plan.steps):
            done = first_step % plan.steps if epoch == first_step // plan.steps else 0
            windows = plan.epoch(rank, epoch, first_row=done * plan.local_batch)
            for step, batch in zip(range(done, plan.steps), self._stream(windows, plan.local_batch), strict=False):
                yield batch, (plan.seed, (epoch * plan.steps + step) * plan.workers + rank)

    def training_dataset(
        self, plan: ShardPlan, augment: Augmentation, *, rank: int, first_step: int, threads: int
    ) -> "tf.data.Dataset":
        """One worker's training batches, without end.

        Args:
            plan: the rows.
            augment: changes to the decoded images; none where the input is tensors.
            rank: the worker's.
            first_step: steps of the run that are already done.
            threads: batches decoded at once.

        Returns:
            a dataset of (`input.dtype` [B, h, w, C], `label_dtype` [B, *label_shape]); its order and
            its augmentation are pure functions of the plan's seed and the step.
        """
        import tensorflow as tf

        size = plan.local_batch

        def generate() -> Iterator[tuple[np.ndarray, np.ndarray, tuple[int, int]]]:
            for batch, seed in self.training_batches(plan, rank, first_step):
                yield batch.inputs, batch.labels.astype(self.label_dtype), seed

        def prepare(stored: "tf.Tensor", labels: "tf.Tensor", seed: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor"]:
            return augment(self._decoded(stored, size), seed), labels

        stored = tf.data.Dataset.from_generator(
            generate,
            output_signature=(
                tf.TensorSpec([size, *self.input.stored_shape], self.input.stored_dtype),
                tf.TensorSpec([size, *self.label_shape], self.label_dtype),
                tf.TensorSpec([2], tf.int64),
            ),
        )
        batches = stored.map(prepare, num_parallel_calls=threads, deterministic=True).prefetch(2)
        # Without it the workers ask each other before every step who still has rows.
        return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

    def validation_dataset(self, plan: ShardPlan, *, rank: int, threads: int) -> "tf.data.Dataset":
        """One worker's validation batches, each row once, in stored order.

        Args:
            plan: the rows.
            rank: the worker's.
            threads: batches decoded at once.

        Returns:
            a dataset of (`input.dtype` [B, h, w, C], `label_dtype` [B, *label_shape]); the last batch may be smaller.
        """
        import tensorflow as tf

        def generate() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for batch in self.validation_batches(plan, rank):
                yield batch.inputs, batch.labels.astype(self.label_dtype)

        def prepare(stored: "tf.Tensor", labels: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor"]:
            return self._decoded(stored, None), labels

        stored = tf.data.Dataset.from_generator(
            generate,
            output_signature=(
                tf.TensorSpec([None, *self.input.stored_shape], self.input.stored_dtype),
                tf.TensorSpec([None, *self.label_shape], self.label_dtype),
            ),
        )
        return stored.map(prepare, num_parallel_calls=threads, deterministic=True).prefetch(2)

    def _decoded(self, stored: "tf.Tensor", rows: int | None) -> "tf.Tensor":
        import tensorflow as tf

        decoded = tf.numpy_function(self.input.decode, [stored], self.input.dtype, stateful=False)
        return tf.ensure_shape(decoded, [rows, *self.input.shape])
