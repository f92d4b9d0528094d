"""The peer of a job: hand-written Keras, one process on all cores, one batch in memory.

    python benchmarks/keras_fit.py densenet121 --batch 32 --precision bf16 [--inter-op N] [--xla]

Prints the images per second of ten steps after two.
"""

import argparse
import os
import time

from insitu.cluster.threads import worker_environment

_WARM_STEPS = 2
_STEPS = 10
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
    ends: list[float] = []
    timer = tf.keras.callbacks.LambdaCallback(on_batch_end=lambda batch, logs: ends.append(time.perf_counter()))
    batches = tf.data.Dataset.from_tensors((images, labels)).repeat()
    model.fit(batches, steps_per_epoch=_WARM_STEPS + _STEPS, verbose=0, callbacks=[timer])
    print(args.batch * _STEPS / (ends[-1] - ends[_WARM_STEPS - 1]))


if __name__ == "__main__":
    main()
