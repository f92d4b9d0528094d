"""The peer of a job: hand-written Keras, one process on all cores, one batch in memory.

    python benchmarks/keras_fit.py densenet121 --batch 32 --precision bf16 [--inter-op N] [--xla]

Prints the images per second of the median step.
"""

import argparse
import os
import time
from typing import Any

from insitu.cluster.threads import worker_environment

_STEPS = 12
_SIZE = 224
_CLASSES = 14


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--precision", choices=("bf16", "fp32"), required=True)
    parser.add_argument("--inter-op", type=int, default=1, help="operations at once")
    parser.add_argument("--xla", action="store_true", help="compile the step with XLA")
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    os.environ.update(worker_environment(cores))  # before TensorFlow loads its OpenMP
    import tensorflow as tf

    from insitu import models

    tf.config.threading.set_intra_op_parallelism_threads(cores)
    tf.config.threading.set_inter_op_parallelism_threads(args.inter_op)
    if args.precision == "bf16":
        tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = models.build(args.model, size=(_SIZE, _SIZE), channels=3, outputs=_CLASSES, activation="sigmoid")
    model.compile(tf.keras.optimizers.SGD(0.01, momentum=0.9), "binary_crossentropy", jit_compile=args.xla)
    images = tf.cast(tf.random.uniform([args.batch, _SIZE, _SIZE, 3], 0, 256, tf.int32), tf.uint8)
    labels = tf.cast(tf.random.uniform([args.batch, _CLASSES], 0, 2, tf.int32), tf.float32)
    seconds: list[float] = []
    batches = tf.data.Dataset.from_tensors((images, labels)).repeat()
    model.fit(batches, steps_per_epoch=_STEPS, verbose=0, callbacks=[_timer(seconds)])
    print(args.batch / sorted(seconds)[_STEPS // 2])


def _timer(seconds: list[float]) -> Any:
    """A callback that appends every step's seconds."""
    from tensorflow import keras

    started: list[float] = []
    return keras.callbacks.LambdaCallback(
        on_batch_begin=lambda batch, logs: started.append(time.perf_counter()),
        on_batch_end=lambda batch, logs: seconds.append(time.perf_counter() - started[batch]),
    )


if __name__ == "__main__":
    main()
